"""docs/formats.md shows what a model reads."""

import doctest
import re
from pathlib import Path

from fdjax.data.formats import PLACES, PromptFormat, ready

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/formats.md").read_text()


def test_examples_run():
    result = doctest.testfile(str(ROOT / "docs/formats.md"), module_relative=False)
    assert result.attempted > 15
    assert result.failed == 0


def test_every_prompt_is_shown_as_it_is():
    shown = dict(re.findall(r"^`(\w+)`\n\n````text\n(.*?)````$", PAGE, re.M | re.S))
    golden = {
        path.stem: path.read_text().removesuffix("\n") + "\n"
        for path in Path(__file__).parent.joinpath("prompts").iterdir()
    }
    assert shown == golden


def test_every_name_is_in_a_table():
    rows = "\n".join(line for line in PAGE.splitlines() if line.startswith("| `"))
    named = set(re.findall(r"`(\w+)`", rows))
    fields = set(PromptFormat.__dataclass_fields__)
    assert {*ready.__all__, *PLACES, *fields} <= named
