"""What is sent to a session and what is read from it, without Lean."""

import json

from hypothesis import given
from hypothesis import strategies as st

from fdjax.lean import CheckRequest, RunRequest, WholeFile
from fdjax.lean.backends.session import (
    Program,
    imports_of,
    is_text,
    read_record,
    without_program,
)
from fdjax.lean.facts.record import report_of
from lean.standin.scripted_repl import ACCEPTED


def test_imports_come_before_anything_else():
    assert imports_of("") == ("Lean",)
    assert imports_of("import Init\nimport Lean\nimport A.B") == ("Lean", "A.B")
    source = (
        "/- import No /- import No -/ -/ -- import No\n"
        "public import A import B\n  import all «my lib».C -- import No\n"
        "import Mathlib\nopen Nat\nimport No"
    )
    assert imports_of(source) == ("A", "B", "«my lib».C", "Mathlib", "Lean")
    assert imports_of("/- never closed import No") == ("Lean",)
    assert imports_of("import A /-! a document -/ import No") == ("A", "Lean")
    assert imports_of("open Nat\nimport No") == ("Lean",)


def test_what_is_no_module_name_reaches_no_import():
    """A bare file is not trusted, and its imports become lines of ours."""
    for name in ['"\n#eval 1\n"', "«\n#eval 1\n»", "«a\u2028#eval 1»", "#eval", "'x'"]:
        assert imports_of(f"import A\nimport {name}\nimport No") == ("A", "Lean")


@given(st.text(st.characters(codec="utf-8")))
def test_a_command_is_one_line_that_gives_the_text_back(text):
    command = Program(word="fdjax_0").header(text, "n")
    word, _, literal = command.partition(" ")
    assert word == "fdjax_0"
    # Nobody on the way may see a line's end or take a character for another.
    assert len(command.splitlines()) == 1
    assert not any("\x7f" < character <= "\uffff" for character in command)
    assert json.loads(json.loads(literal))["header"] == text


def test_every_program_has_a_word_of_its_own():
    one, other = Program(), Program()
    assert one.word != other.word
    assert one.begin("").startswith("import Lean\n")
    assert "FDJAX" not in one.begin("")
    assert one.word in one.begin("")


def test_text_that_cannot_be_sent():
    def request(proof):
        return CheckRequest(name="t", header="", statement="theorem t", proof=proof)

    assert is_text(request("  rfl \U0001d538"))
    assert is_text(request(None))
    assert not is_text(request("  rfl \ud800"))
    assert not is_text(request(WholeFile("\udfff")))
    assert not is_text(RunRequest(source="\ud800"))


def test_only_the_nonce_makes_a_record():
    said = [{"severity": "info", "data": data} for data in ("n", "nn {}", "x n {}")]
    assert read_record({"messages": said}, "n" * 3) is None
    said.append({"severity": "info", "data": 'abc {"a": 1}'})
    assert read_record({"messages": said}, "abc") == {"a": 1}
    assert read_record({"env": 0}, "abc") is None
    assert read_record({"env": 0, "messages": None}, "abc") is None


def test_a_header_without_a_record_shows_what_lean_said():
    said = [
        {"severity": "warning", "data": "late"},
        {"severity": "error", "data": "unknown package 'A'"},
    ]
    record = without_program("import A", {"messages": said})
    assert "cannot import A, Lean (unknown package 'A')" in record["statement_error"]


def message(severity, line, text):
    return {
        "severity": severity,
        "line": line,
        "column": 0,
        "kind": "",
        "text": text,
    }


def test_messages_are_shown_in_source_order():
    # Errors come first in a record.
    messages = [
        message("error", 3, "abc"),
        message("warning", 1, "é"),
        message("information", 2, ""),
    ]
    report = report_of({**ACCEPTED, "messages": messages})
    shown = [(found.line, found.text) for found in report.messages]
    assert shown == [(1, "é"), (2, ""), (3, "abc")]
