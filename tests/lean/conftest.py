"""The real embedded Lean, installed once into the user's cache."""

import pytest

from fdjax.lean import Verifier, WasmBackend, install


@pytest.fixture(scope="session")
def lean_folder():
    return install()


@pytest.fixture(scope="session")
def verifier(lean_folder):
    """Two workers that most tests share; nothing in it may be killed."""
    with Verifier(lambda: WasmBackend(lean_folder), workers=2) as verifier:
        verifier.start()
        yield verifier


@pytest.fixture(scope="module")
def backend(lean_folder):
    """A single worker without the textual scan in front of it."""
    backend = WasmBackend(lean_folder)
    yield backend
    backend.close()
