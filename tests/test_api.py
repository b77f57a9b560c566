"""What users may rely on: public names, their signatures, and the metrics' names.

`tests/api.txt` lists the names and signatures as the source writes them, so that a
review sees each change. After a change on purpose, renew it:

    python tests/test_api.py

A name is public where a package's `__all__` lists it. Modules of a package that lists
nothing (`fdjax` itself, `fdjax.data`) list their own. The rooms of `fdjax.lean` are its
own affair.
"""

import ast
import difflib
import importlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
LISTED = ROOT / "tests/api.txt"


def read(module: str) -> ast.Module:
    """The syntax of a module; nothing is imported."""
    return _parsed(_path(module))


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _path(module: str) -> Path:
    place = ROOT.joinpath(*module.split("."))
    package = place / "__init__.py"
    return package if package.exists() else place.with_suffix(".py")


def names_of(module: str) -> list[str]:
    """`__all__`, sorted; nothing where there is none."""
    value = definition(read(module), "__all__")
    return [] if value is None else sorted(ast.literal_eval(value.value))


def public_modules() -> Iterator[str]:
    """Packages that list names, and modules of packages that list none."""
    for path in sorted((ROOT / "fdjax").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        module = ".".join(parts).removesuffix(".__init__")
        if module.startswith("fdjax.lean.") or not names_of(module):
            continue
        if path.name == "__init__.py" or not names_of(".".join(parts[:-1])):
            yield module


def definition(tree: ast.Module, name: str):
    """The statement that gives a name its value in a module."""
    for node in tree.body:
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef() if (
                node.name == name
            ):
                return node
            case ast.Assign(targets=[ast.Name(id=found)]) if found == name:
                return node
            case ast.AnnAssign(target=ast.Name(id=found)) if found == name:
                return node
            case ast.ImportFrom() if any(
                name == (alias.asname or alias.name) for alias in node.names
            ):
                return node
    return None


def resolved(module: str, name: str):
    """The definition behind a name that may be imported, and its module's syntax."""
    tree = read(module)
    node = definition(tree, name)
    if isinstance(node, ast.ImportFrom):
        origin = {alias.asname or alias.name: alias.name for alias in node.names}
        return resolved(str(node.module), origin[name])
    assert node is not None, f"{module} lists {name} and does not define it"
    return tree, node


def lines(module: str) -> Iterator[str]:
    """One line for each public name of a module and each member of its classes."""
    for name in names_of(module):
        tree, node = resolved(module, name)
        whole = f"{module}.{name}"
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield whole + signature(node)
            case ast.ClassDef():
                bases = ", ".join(map(ast.unparse, [*node.bases, *node.keywords]))
                made = "".join(f" @{ast.unparse(d)}" for d in node.decorator_list)
                yield f"{whole}: class({bases}){made}"
                for member in members(tree, node).values():
                    yield f"{whole}.{member}"
            case _:
                yield f"{whole} = {ast.unparse(node.value)}"


def members(tree: ast.Module, node: ast.ClassDef) -> dict[str, str]:
    """Fields and methods by name, with those of private bases, in their order."""
    found: dict[str, str] = {}
    for base in node.bases:
        parent = definition(tree, ast.unparse(base))
        if isinstance(parent, ast.ClassDef) and parent.name.startswith("_"):
            found |= members(tree, parent)
    for each in node.body:
        match each:
            case (
                ast.AnnAssign(target=ast.Name(id=name))
                | ast.Assign(targets=[ast.Name(id=name)])
            ):
                text = ast.unparse(each)
            case ast.FunctionDef(name=name):
                made = "".join(f" @{ast.unparse(d)}" for d in each.decorator_list)
                text = name + signature(each) + made
            case _:
                continue
        if not name.startswith("_") or name in ("__init__", "__call__"):
            found[name] = text
    return found


def signature(node: ast.FunctionDef) -> str:
    """Parameters and result, annotations and defaults as the source has them."""
    result = "" if node.returns is None else f" -> {ast.unparse(node.returns)}"
    return f"({ast.unparse(node.args)}){result}"


def surface() -> list[str]:
    return [line for module in public_modules() for line in lines(module)]


def test_names_and_signatures_are_the_listed_ones():
    diff = difflib.unified_diff(
        LISTED.read_text().splitlines(), surface(), "tests/api.txt", "fdjax", n=0
    )
    changes = "\n".join(diff)
    assert not changes, (
        f"The public interface changed:\n{changes}\n"
        "If that is on purpose, say so in CHANGELOG.md and renew the list with\n"
        "    python tests/test_api.py"
    )


def test_listed_names_can_be_imported():
    for name in public_modules():
        module = importlib.import_module(name)
        assert sorted(module.__all__) == names_of(name)
        missing = [each for each in module.__all__ if not hasattr(module, each)]
        assert not missing, f"{name} lists {missing} and lacks them"


METRIC = re.compile(r"[a-z]+/\w+")


def device_world() -> Iterator[ast.AST]:
    """All syntax of the packages that compute metrics."""
    for path in sorted((ROOT / "fdjax").rglob("*.py")):
        room = path.relative_to(ROOT / "fdjax").parts[:-1]
        # What speaks HTTP has types of content, spelled like metrics.
        if room[:1] not in (("lean",), ("serve",)) and room != ("feedback", "chat"):
            yield from ast.walk(_parsed(path))


def test_metrics_are_the_documented_ones():
    """Those that the source names, and the two families whose names it puts together.

    Which of them a run has is in experiments/test_quickstart.py, which a loss has in
    its own test.
    """
    from fdjax.lean import Status

    named, families, stages = set(), set(), set()
    for node in device_world():
        match node:
            case ast.Constant(value=str(text)) if METRIC.fullmatch(text):
                named.add(text)
            case ast.JoinedStr(values=[ast.Constant(value=str(area)), *_]) if (
                re.fullmatch(r"[a-z]+/", area)
            ):
                families.add(area)
            case ast.Call(
                func=ast.Attribute(attr="stage"), args=[ast.Constant(value=stage)]
            ):
                stages.add(stage)
    assert families == {"verdict/", "time/"}
    named |= {f"verdict/{status.value}" for status in Status}
    named |= {f"time/{stage}_s" for stage in stages}
    table = (ROOT / "docs/papers.md").read_text()
    documented = re.findall(r"^\| ([a-z]+/\w+) \|", table, re.MULTILINE)
    assert sorted(documented) == sorted(named)


if __name__ == "__main__":
    LISTED.write_text("".join(f"{line}\n" for line in surface()))
