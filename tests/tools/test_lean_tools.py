"""The five tools over the real embedded Lean."""

import asyncio

import pytest

from fdjax.errors import InstallError
from fdjax.lean import FakeBackend, Verifier
from fdjax.tools import LEAN_TOOLS, LeanTools, Library
from fdjax.tools.declarations import declarations_folder
from fdjax.tools.olean import declared_names

SWAP = "theorem swap (p q : Prop) (h : p ∧ q) : q ∧ p := "
SLOW = "theorem s : (List.range 900000).foldl (· + ·) 0 = 3 := by decide +kernel"


def test_code_is_run(call):
    assert call("run_lean", code=f"{SWAP}h.symm") == (
        "No errors, no warnings.",
        "done",
    )
    text, _ = call("run_lean", code="#check Nat.add_comm")
    assert "code:1:0: info: Nat.add_comm (n m : Nat) : n + m = m + n" in text
    text, _ = call("run_lean", code=f"{SWAP}h\n\n{SWAP.replace('swap', 'b')}sorry")
    first, second, *_ = text.splitlines()
    assert first == "1 error, 1 warning."
    assert second.startswith("code:1:49: error: ")
    assert "code:3:8: warning: declaration uses" in text


def test_equal_calls_have_equal_texts(call):
    texts = {call("run_lean", code=f"{SWAP}by\n  exact foo") for _ in range(3)}
    assert len(texts) == 1


@pytest.mark.parametrize(
    "code",
    [
        '#eval IO.FS.readFile "/etc/passwd"',
        "#eval (IO.Process.exit 0 : IO Unit)",
        'macro "x" : tactic => `(tactic| rfl)',
        "run_cmd pure ()",
        "import Lean",
        "\0",
    ],
)
def test_what_reaches_out_is_not_run(call, code):
    text, _ = call("run_lean", code=code)
    assert "No errors" not in text
    assert text.startswith(("Not run: ", "error: ", "1 error"))


def test_a_file_is_written_and_compiled(call):
    text, ended = call("write_file", path="proof.lean", content=f"{SWAP}h")
    assert ended == "done"
    assert text.startswith("Wrote proof.lean. 1 error, 0 warnings.\nproof.lean:1:49: ")
    assert call.toolbox.final_file == f"{SWAP}h"
    text, _ = call("write_file", path="proof.lean", content=f"{SWAP}h.symm")
    assert text == "Wrote proof.lean. No errors, no warnings."
    assert call.toolbox.final_file == f"{SWAP}h.symm"
    text, ended = call("write_file", path="../proof.lean", content="x")
    assert ended == "refused"
    assert call.toolbox.final_file == f"{SWAP}h.symm"


def test_a_file_is_checked_with_its_lemmas(call):
    file = (
        "open Nat\n"
        "theorem own_lemma (a b : Nat) (h_ab : a < b) : a + 1 ≤ b := by\n"
        "  -- Nat.commented\n"
        "  have := Nat.lt_succ_of_lt h_ab\n"
        "  exact succ_le_of_lt h_ab\n"
        "theorem other (a b : Nat) (h : a < b) : a + 1 ≤ b := by\n"
        '  rw [Nat.no_such_lemma, Nat.add_comm, "Nat.in_a_string"]\n'
        "  exact own_lemma a b h\n"
    )
    call("write_file", path="a/b.lean", content=file)
    text, ended = call("check_file", path="a/b.lean")
    assert ended == "done"
    *messages, known, unknown = text.splitlines()
    assert messages[0].endswith("errors, 0 warnings.") or "error" in messages[0]
    assert (
        known == "Cited and known: Nat.lt_succ_of_lt, Nat.succ_le_of_lt, Nat.add_comm."
    )
    assert unknown == "Cited, but unknown: Nat.no_such_lemma."


def test_a_file_without_lemmas_says_so(call):
    call("write_file", path="proof.lean", content=f"{SWAP}⟨h.2, h.1⟩")
    assert call("check_file", path="proof.lean")[0] == (
        "No errors, no warnings.\nIt cites no lemmas by name."
    )
    text, ended = call("check_file", path="other.lean")
    assert ended == "refused"
    assert "files so far: proof.lean" in text


def test_time_is_limited(tools):
    slow = LeanTools(verifier=tools.verifier, library=tools.library, wall_s=0.3)
    with slow.open() as toolbox:
        seen = asyncio.run(toolbox.call("run_lean", {"code": SLOW}))
    assert seen.text.startswith("Lean was stopped: the file used up its time.")
    assert seen.ended == "done"


def test_the_library_is_searched_and_explained(call):
    text, _ = call("search_library", text="Nat.succ_le_of_lt")
    [line] = [line for line in text.splitlines() if ":Nat.succ_le_of_lt " in line]
    path, number, statement = line.split(":", 2)
    assert path.startswith("Init/")
    assert statement == "Nat.succ_le_of_lt {n m : Nat} (h : n < m) : n.succ ≤ m"
    text, _ = call("read_library", path=path, first_line=int(number), lines=1)
    assert text.splitlines()[0] == f"{number}: {statement}"


def test_names_of_a_module_are_the_ones_it_declares(tools):
    folder = tools.library.folder
    assert folder == declarations_folder()
    names = (folder / "Init" / "Core.lean").read_text().splitlines()
    assert {"And.symm", "Iff.refl"} <= set(names)
    assert not any("._" in name or name.startswith("_") for name in names)


def test_a_damaged_module_is_an_error(tmp_path):
    for content in (b"", b"olean\x02" + b"\xff" * 200, b"olean\x01" + bytes(200)):
        (tmp_path / "M.olean").write_bytes(content)
        with pytest.raises(InstallError, match="lean install"):
            declared_names(tmp_path / "M.olean")


def test_without_lean_there_is_no_library(tmp_path):
    with pytest.raises(InstallError, match="lean install"):
        declarations_folder(tmp_path / "nothing")


def test_workspaces_are_apart_and_go(tools):
    with tools.open() as one, tools.open() as other:
        asyncio.run(one.call("write_file", {"path": "a.lean", "content": "--"}))
        seen = asyncio.run(other.call("check_file", {"path": "a.lean"}))
        assert seen.ended == "refused"
        assert other.final_file is None


def test_a_broken_lean_is_an_observation(tmp_path):
    class Broken(FakeBackend):
        def check(self, request):
            raise InstallError("no Lean")

    with Verifier(Broken, workers=1) as verifier:
        tools = LeanTools(verifier=verifier, library=Library(folder=tmp_path))
        with tools.open() as toolbox:
            assert toolbox.specs == LEAN_TOOLS
            seen = asyncio.run(toolbox.call("run_lean", {"code": "theorem t : True"}))
    assert seen.ended == "failed"
    assert "not your fault" in seen.text
