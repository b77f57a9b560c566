"""The README's examples run, and its commands are the Makefile's."""

import doctest
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_examples_run():
    result = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert result.attempted > 10
    assert result.failed == 0


def test_make_commands_exist():
    commands = re.findall(r"^make ([a-z]+)$", (ROOT / "README.md").read_text(), re.M)
    assert commands == ["quickstart", "test"]
    makefile = (ROOT / "Makefile").read_text()
    for command in commands:
        assert re.search(rf"^{command}:", makefile, re.M)
