"""Theorems cut from a traced file; Lean itself says that the cuts are right.

`traced/Shapes.trace.xml` was written by lean-dojo 4.20.0 from trees of Lean 4.28's
parser, brought to the shape of Lean 4.20 where the two differ.
"""

import logging
import shutil
from pathlib import Path

import pytest

from fdjax.data.traced import read_trace, traced_problems
from fdjax.errors import DataError

TRACED = Path(__file__).with_name("traced")


@pytest.fixture
def repository(tmp_path):
    """The files where LeanDojo leaves them."""
    build = tmp_path / ".lake" / "build" / "ir"
    build.mkdir(parents=True)
    shutil.copy(TRACED / "Shapes.trace.xml", build)
    shutil.copy(TRACED / "Shapes.lean", tmp_path)
    return tmp_path


def test_lean_accepts_every_cut(repository, verifier):
    problems = traced_problems(repository)
    assert all(report.ok for report in verifier.check_statements(problems))
    proved = [problem for problem in problems if problem.references]
    assert len(proved) == 11
    verdicts = verifier.verify([(p, p.references[0]) for p in proved])
    assert all(verdict.verified for verdict in verdicts), verdicts
    # The statements are the theorems' own: another's proof does not fit.
    wrong = verifier.verify([(proved[0], proved[1].references[0])])
    assert not wrong[0].verified


def test_statement_header_and_proof(repository):
    found = {t.full_name: t for t in read_trace(repository).theorems}
    hidden = found["Shapes.hidden"]
    assert hidden.problem.statement == (
        "theorem hidden (a b : Nat) (h : a ≤ b) :\n    a ≤ b + 1"
    )
    assert hidden.problem.header.startswith("import Init.Data.List.Basic\n")
    assert hidden.problem.header.endswith("  g (f x)\n\n")
    assert hidden.problem.references[0].startswith("  have step : b ≤ b + 1 := ")
    assert hidden.problem.family == hidden.file == "Shapes.lean"
    assert hidden.line == 24
    assert hidden.premises == ("Nat.le_succ", "Nat.le_trans")
    assert found["Shapes.one_line"].problem.references == ("  exact ⟨h.2, h.1⟩",)
    assert found["Shapes.term"].problem.references == ("  exact Nat.zero_add n",)
    assert found["Shapes.with_where"].problem.references == ()


def test_commands_before_in_become_part_of_the_header(repository):
    found = {t.full_name: t.problem for t in read_trace(repository).theorems}
    problem = found["Shapes.in_command"]
    assert problem.header.endswith("open List\nset_option maxRecDepth 2000\n")
    assert problem.statement.startswith("theorem in_command")
    assert found["Shapes.Nat.succ_pos"].statement.startswith("nonrec theorem")


def test_names_are_spelled_as_the_file_spells_them(repository):
    names = [theorem.problem.name for theorem in read_trace(repository).theorems]
    assert {"«two words»", "_root_.outside"} <= set(names)


def test_what_cannot_be_cut_is_counted(repository, caplog):
    skipped = read_trace(repository).skipped
    assert [(s.line, s.reason) for s in skipped] == [
        (41, "no proof after `:=`"),
        (45, "no proof after `:=`"),
        (54, "inside another command"),
    ]
    with caplog.at_level(logging.WARNING):
        assert len(traced_problems(repository)) == 12
    assert "3 theorems left out" in caplog.text


def test_a_folder_without_a_trace(tmp_path):
    with pytest.raises(DataError, match=r"run lean_dojo\.trace"):
        read_trace(tmp_path)


def test_a_file_that_changed_after_it_was_traced(repository):
    with (repository / "Shapes.lean").open("a") as file:
        file.write("-- new\n")
    with pytest.raises(DataError, match="trace it again"):
        read_trace(repository)
    (repository / "Shapes.lean").unlink()
    with pytest.raises(DataError, match="missing"):
        read_trace(repository)


@pytest.mark.parametrize("text", ["<TracedFile", "<Other/>"])
def test_damaged_xml(repository, text):
    (repository / ".lake/build/ir/Shapes.trace.xml").write_text(text)
    with pytest.raises(DataError, match="trace the file again"):
        read_trace(repository)
