"""The documents' examples run, and the README's commands are the Makefile's."""

import doctest
import re
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("document", "examples"),
    [
        ("README.md", 10),
        ("docs/feedback.md", 8),
        ("docs/lean.md", 4),
        ("docs/losses.md", 15),
        ("docs/models.md", 20),
    ],
)
def test_examples_run(document, examples):
    # As users have it: optax needs standard promotion.
    with jax.numpy_dtype_promotion("standard"):
        result = doctest.testfile(str(ROOT / document), module_relative=False)
    assert result.attempted > examples
    assert result.failed == 0


def test_make_commands_exist():
    commands = re.findall(r"^make ([a-z]+)$", (ROOT / "README.md").read_text(), re.M)
    assert commands == ["quickstart", "test"]
    makefile = (ROOT / "Makefile").read_text()
    for command in commands:
        assert re.search(rf"^{command}:", makefile, re.M)
