"""One real `fdjax serve` with the embedded Lean, for tests that kill nothing."""

import pytest

from fdjax.lean import install
from serving import Server


@pytest.fixture(scope="session")
def lean():
    return install()


@pytest.fixture(scope="module")
def real(lean):
    with Server.command("--workers", "1", "--timeout", "20") as server:
        yield server
