import pytest

from fdjax.errors import InstallError
from fdjax.lean import Verifier


@pytest.fixture(scope="session")
def verifier():
    """The embedded Lean, which has the last word about answers."""
    with Verifier(workers=1) as verifier:
        try:
            verifier.start()
        except InstallError as error:
            pytest.skip(f"the embedded Lean is not installed: {error}")
        yield verifier
