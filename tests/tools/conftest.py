"""The tools over the real embedded Lean, with one worker for all tests."""

import asyncio

import pytest

from fdjax.lean import Verifier, install
from fdjax.tools import LeanTools


@pytest.fixture(scope="session")
def tools():
    install()
    with Verifier(workers=1) as verifier:
        verifier.start()
        yield LeanTools.embedded(verifier)


@pytest.fixture
def call(tools):
    """Calls a tool of one toolbox; the observation's text and how it ended."""
    with tools.open() as toolbox:

        def call(name, **arguments):
            seen = asyncio.run(toolbox.call(name, arguments))
            return seen.text, seen.ended

        call.toolbox = toolbox
        yield call
