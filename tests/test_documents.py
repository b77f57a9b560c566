"""The pages' examples run, and the README's commands are the Makefile's."""

import doctest
import re
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("document", "examples"),
    [
        ("docs/data.md", 20),
        ("docs/design.md", 6),
        ("docs/feedback.md", 20),
        ("docs/lean.md", 9),
        ("docs/losses.md", 25),
        ("docs/models.md", 20),
        ("docs/training.md", 10),
    ],
)
def test_examples_run(document, examples):
    # As users have it: optax needs standard promotion.
    with jax.numpy_dtype_promotion("standard"):
        result = doctest.testfile(str(ROOT / document), module_relative=False)
    assert result.attempted > examples
    assert result.failed == 0


def test_links_of_all_pages_lead_somewhere():
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), (page.name, target)


def test_every_page_is_in_the_index():
    index = (ROOT / "docs/index.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "index.md" or f"]({page.name})" in index, page.name


def test_make_commands_exist():
    commands = re.findall(r"^make ([a-z]+)$", (ROOT / "README.md").read_text(), re.M)
    assert commands == ["quickstart", "test"]
    makefile = (ROOT / "Makefile").read_text()
    for command in commands:
        assert re.search(rf"^{command}:", makefile, re.M)
