"""What a docstring calls an example runs, as written."""

import ast
import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text()
    for folder in ("fdjax", "experiments")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
WITH_EXAMPLES = [
    module.removesuffix(".__init__")
    for module, text in SOURCES.items()
    if ">>> " in text
]


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_run(module):
    result = doctest.testmod(importlib.import_module(module))
    text = SOURCES.get(module) or SOURCES[f"{module}.__init__"]
    assert result.attempted == text.count(">>> ")
    assert result.failed == 0


def test_what_is_called_an_example_is_one_that_runs():
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for module, text in SOURCES.items():
        for node in ast.walk(ast.parse(text)):
            said = (isinstance(node, documented) and ast.get_docstring(node)) or ""
            if re.search(r"^Examples?:", said, re.MULTILINE):
                assert ">>> " in said, f"{module}: write it with >>> or as prose"
