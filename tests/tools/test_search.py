"""Search by ripgrep and without it: the same hits in the same order."""

import asyncio
import os
import resource
import shutil

import pytest

from fdjax.tools import Library, Toolbox, ToolError
from fdjax.tools.library import LINES, ReadLibrary, SearchLibrary
from fdjax.tools.search import (
    RIPGREPS,
    find,
    find_by_ripgrep,
    find_line_by_line,
    words_of,
)

FILES = {
    "Init/Nat.lean": "theorem Nat.add_comm (a b : Nat) : a + b = _\n\n  lemma x.y*z\n",
    "Init/Nat/Basic.lean": "theorem Nat.add_assoc : ∀ (a b c : Nat), a + b + c = _\r\n",
    "Init.lean": "import Init.Nat\nimport Init.Nat.Basic",
    "B.lean": "theorem add_comm_of_nat ⟨x⟩ [y] {z} : True\nNAT.ADD_COMM\n-- comm add",
    ".lake/packages/m/M.lean": "theorem Nat.add_comm' : True",
    ".lake/build/Made.lean": "theorem Nat.add_comm_made : True",
    ".git/Old.lean": "theorem Nat.add_comm_old : True",
    "notes.txt": "Nat.add_comm",
}
SEARCHES = [
    *("Nat.add_comm", "nat.add_comm", "add comm", "comm add", "theorem : True"),
    *("x.y*z", "x.y.z", "⟨x⟩ [y] {z}", "∀ (a", "a + b", "(", "[", "\\", "^theorem"),
    *("_", "$", "add_assoc", "nothing_like_it", "--", "-e", "Nat.add_comm'"),
]


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "library"
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    (tmp_path / "Secret.lean").write_text("theorem Nat.add_comm_secret : True")
    (root / "Link.lean").symlink_to(tmp_path / "Secret.lean")
    (root / "link").symlink_to(tmp_path)
    return root


@pytest.mark.parametrize("text", SEARCHES)
@pytest.mark.parametrize("hits", [1, 2, 100])
def test_ripgrep_finds_the_same(folder, text, hits):
    program = shutil.which("rg")
    if program is None:
        pytest.skip("ripgrep (rg) is not installed")
    words = words_of(text)
    ours = find_line_by_line(folder, words, hits)
    assert asyncio.run(find_by_ripgrep(program, folder, words, hits)) == ours


def test_hundreds_of_searches_at_once_take_few_descriptors(folder):
    if shutil.which("rg") is None:
        pytest.skip("ripgrep (rg) is not installed")

    async def searches():
        return await asyncio.gather(*[find(folder, ["nat"], 9) for _ in range(200)])

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = len(os.listdir("/proc/self/fd")) + 30 + 4 * RIPGREPS
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, limits[1]))
    try:
        found = asyncio.run(searches())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert found == [find_line_by_line(folder, ["nat"], 9)] * 200


def test_hits_come_in_the_order_of_paths(folder):
    found = find_line_by_line(folder, ["nat", "add_"], 100)
    assert [(hit.path, hit.line) for hit in found] == [
        (".lake/packages/m/M.lean", 1),
        ("B.lean", 2),
        ("Init/Nat/Basic.lean", 1),
        ("Init/Nat.lean", 1),
    ]


def test_a_capital_letter_makes_case_count(folder):
    assert not find_line_by_line(folder, ["nAT.add_comm"], 9)
    assert len(find_line_by_line(folder, ["nat.add_comm"], 9)) == 3


def test_either_way_is_taken(folder, monkeypatch):
    whole = asyncio.run(find(folder, ["Nat.add_comm"], 9))
    monkeypatch.setenv("PATH", "")
    assert asyncio.run(find(folder, ["Nat.add_comm"], 9)) == whole != []


@pytest.mark.parametrize("text", ["", "  ", "a b c d e f g h i"])
def test_a_search_has_words(text):
    with pytest.raises(ToolError, match="1 to 8 words"):
        words_of(text)


def shown(folder, name, **arguments):
    library = Library(folder=folder)
    toolbox = Toolbox([SearchLibrary(library=library), ReadLibrary(library=library)])
    seen = asyncio.run(toolbox.call(name, arguments))
    return seen.text, seen.ended


def test_few_hits_are_shown(folder):
    (folder / "Many.lean").write_text("theorem many : True\n" * 9)
    text, _ = shown(folder, "search_library", text="many")
    assert text.splitlines() == [
        *(f"Many.lean:{line}:theorem many : True" for line in range(1, 6)),
        "There are more.",
    ]
    assert shown(folder, "search_library", text="absent")[0] == "Nothing was found."


def test_lines_of_a_file_are_read(folder):
    (folder / "Long.lean").write_text("".join(f"l{n}\n" for n in range(1, 121)))
    text, _ = shown(folder, "read_library", path="Long.lean", first_line=60)
    lines = text.splitlines()
    assert lines[0] == "60: l60"
    assert lines[LINES:] == ["(11 more lines)"]
    text, _ = shown(folder, "read_library", path="Long.lean", first_line=120)
    assert text == "120: l120"
    text, ended = shown(folder, "read_library", path="Long.lean", first_line=121)
    assert (text, ended) == ("error: the file has 120 lines", "refused")
    text, ended = shown(folder, "read_library", path="Long.lean", lines=LINES + 1)
    assert ended == "refused"
    text, _ = shown(folder, "read_library", path=".lake/packages/m/M.lean")
    assert text == "1: theorem Nat.add_comm' : True"


@pytest.mark.parametrize(
    "path",
    [
        *("../Secret.lean", "link/Secret.lean", "Link.lean", "Init/../../Secret.lean"),
        *("/etc/passwd", "notes.txt", "None.lean", "Init", "Init.lean/x.lean", ""),
    ],
)
def test_no_other_file_is_read(folder, path):
    text, ended = shown(folder, "read_library", path=path)
    assert ended == "refused"
    assert "secret" not in text


def test_an_absolute_path_is_none(folder, tmp_path):
    path = str(tmp_path / "Secret.lean")
    assert shown(folder, "read_library", path=path)[1] == "refused"
