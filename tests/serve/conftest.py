"""One real `fdjax serve` with the embedded Lean, for tests that kill nothing."""

import pytest
from serving import Server

from fdjax.lean import install


@pytest.fixture(scope="session")
def lean():
    return install()


@pytest.fixture(scope="module")
def real(lean):
    with Server.command("--workers", "1", "--timeout", "20") as server:
        yield server
