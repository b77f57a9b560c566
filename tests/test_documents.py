"""The pages' examples run, and the README's commands are the Makefile's."""

import doctest
import re
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parent.parent
PAGES = [
    page
    for folder in (ROOT, ROOT / "docs", ROOT / "tpu")
    for page in sorted(folder.glob("*.md"))
]


@pytest.mark.parametrize(
    ("document", "examples"),
    [
        ("docs/data.md", 20),
        ("docs/design.md", 6),
        ("docs/episodes.md", 4),
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
    for page in PAGES:
        for target, anchor in re.findall(
            r"\]\(([^)#]*)#?([^)]*)\)", _prose(page.read_text())
        ):
            if "://" in target:
                continue
            found = page.parent / target if target else page
            assert found.exists(), (page.name, target)
            if anchor:
                assert anchor in _anchors(found), (page.name, target, anchor)


def test_tests_that_pages_name_exist():
    for page in PAGES:
        for path in re.findall(r"\btests/[\w/.-]*\w", page.read_text()):
            assert (ROOT / path).exists(), (page.name, path)


def _prose(page):
    """Without blocks of code."""
    return re.sub(r"^(`{3,})[^\n]*\n.*?^\1$", "", page, flags=re.M | re.S)


def _anchors(page):
    """Of its headings, as Git forges make them."""
    headings = re.findall(r"^#+ (.*)$", _prose(page.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


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
