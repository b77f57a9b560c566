import pytest

import judging
from fdjax.errors import DataError
from fdjax.feedback import Caps, CompilerFeedback, Feedback, ReferenceHint
from fdjax.feedback.prompt import excerpt
from fdjax.lean import Diagnostic, Status, Verdict, Verifier, install
from fdjax.records import Problem

PROBLEM = Problem(
    name="t",
    statement="theorem t (p q : Prop) (h1 : p ∧ q) : q",
    references=(
        "  obtain ⟨h2, h3⟩ := h1\n  exact h3",
        "  cases h1\n  rename_i h2 h3\n  exact h3",
    ),
)
MISMATCH = "Type mismatch\n  h2\nhas type\n  p\nbut is expected to have type\n  q"


def attempt(proof, status=Status.REJECTED, diagnostics=(), reason="refused"):
    verdict = Verdict(status=status, diagnostics=diagnostics, reason=reason)
    return judging.attempt(PROBLEM, proof, verdict)


def error(text, line=1, in_proof=True):
    return Diagnostic(
        severity="error", line=line, column=2, text=text, in_proof=in_proof
    )


def write(writer, given) -> Feedback:
    (feedback,) = judging.written(writer, [given])
    return feedback


def test_first_error_with_its_line():
    given = attempt(
        "  obtain ⟨h2, h3⟩ := h1\n  exact h2",
        diagnostics=(
            Diagnostic(severity="warning", line=1, column=0, text="unused"),
            error(MISMATCH, line=2),
            error("later", line=2),
        ),
    )
    feedback = write(CompilerFeedback(), given)
    assert feedback.parts == ("error at line 2: Type mismatch",)
    assert feedback.offset == len(given.proof)
    two = write(CompilerFeedback(max_errors=2), given)
    assert two.parts[1] == "error at line 2: later"


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ({"line": 1, "column": 0}, 2),  # the `by` that opens the proof
        ({"line": 1, "column": 2}, 1),  # a nested block on the first line
        ({"line": 3, "column": 2, "in_proof": False}, 2),  # inside the statement
    ],
)
def test_open_goals_at_the_end_are_about_the_last_line(place, line):
    message = Diagnostic(
        severity="error",
        kind="Tactic.unsolvedGoals",
        text="unsolved goals\np : Prop\n⊢ q",
        **place,
    )
    feedback = write(
        CompilerFeedback(), attempt("  skip\n  skip", diagnostics=(message,))
    )
    assert feedback.parts == (f"error at line {line}: unsolved goals",)
    # Two lines of six characters with a line break between them.
    assert feedback.offset == {1: 6, 2: 13}[line]


def test_an_unfinished_proof_is_told_about_its_last_line():
    """The same on a real verdict."""
    install()
    problem = Problem(name="t", statement="theorem t (p q : Prop) (h1 : p) : p ∧ p")
    proof = "  constructor\n  exact h1"
    wrong = "  skip\n  exact h1.1\n  done"
    with Verifier(workers=1) as verifier:
        verdict, mismatch = verifier.verify([(problem, proof), (PROBLEM, wrong)])
    given = judging.attempt(problem, proof, verdict)
    feedback = write(CompilerFeedback(), given)
    assert feedback.parts == ("error at line 2: unsolved goals",)
    [message] = excerpt(given, Caps()).messages
    assert message.place == "at the end of the proof"
    # A model is shown the code that Lean points at.
    [message] = excerpt(judging.attempt(PROBLEM, wrong, mismatch), Caps()).messages
    assert message.text.startswith("Type mismatch\n  h1.left\nhas type\n  p")
    _, code, marks, _ = message.code.split("\n")
    pointed = [c for c, mark in zip(code, marks, strict=True) if mark == "^"]
    assert "".join(pointed) == "exact h1.1"


def test_long_messages_end_after_a_whole_word():
    text = "one two three four"
    given = attempt("  x", diagnostics=(error(text),))
    feedback = write(CompilerFeedback(max_message_characters=9), given)
    assert feedback.parts == ("error at line 1: one two",)


def test_identifiers_with_dots_are_not_sentence_ends():
    given = attempt("  x", diagnostics=(error("Unknown constant `Nat.foo`"),))
    feedback = write(CompilerFeedback(), given)
    assert feedback.parts == ("error at line 1: Unknown constant `Nat.foo`",)


@pytest.mark.parametrize("writer", [CompilerFeedback(), ReferenceHint()])
def test_crash_is_unavailable_not_a_mistake(writer):
    feedback = write(writer, attempt("  x", status=Status.CRASHED))
    assert not feedback.available
    assert feedback.parts == ()


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (Status.UNSAFE, "error: not allowed: refused"),
        (Status.TIMEOUT, "error: time limit exceeded"),
        (Status.REJECTED, "error: refused"),
    ],
)
def test_a_verdict_without_messages_still_gets_feedback(status, text):
    feedback = write(CompilerFeedback(), attempt("  x", status=status))
    assert feedback.parts == (text,)
    hinted = write(ReferenceHint(), attempt("  x", status=status))
    assert hinted.parts[1:] == (text,)
    assert hinted.offset == 2  # the first step is already another


@pytest.mark.parametrize("writer", [CompilerFeedback(), ReferenceHint()])
def test_a_broken_statement_is_no_mistake_of_the_attempt(writer):
    verdict = Verdict(status=Status.REJECTED, broken_statement=True)
    given = judging.attempt(PROBLEM, "  x", verdict)
    assert not write(writer, given).available


@pytest.mark.parametrize("parts", [(), ("",), (" ", "\n")])
def test_feedback_that_says_nothing_is_unavailable(parts):
    assert not Feedback(parts=parts).available


@pytest.mark.parametrize("parts", ["text", (None,), ("\udc00",)])
def test_parts_are_texts(parts):
    with pytest.raises(DataError, match="expected parts of feedback"):
        Feedback(parts=parts)


@pytest.mark.parametrize("writer", [CompilerFeedback(), ReferenceHint()])
def test_success_says_so(writer):
    feedback = write(writer, attempt("  exact h1.2", status=Status.VERIFIED))
    assert feedback.parts == ("verified: this proof is complete",)
    assert feedback.offset is None


def test_hint_follows_the_reference_that_the_attempt_shares_most_with():
    given = attempt(
        "  cases h1\n  exact h1", diagnostics=(error("Unknown `h1`", line=2),)
    )
    feedback = write(ReferenceHint(), given)
    assert feedback.parts[0] == "hint at line 2: rename_i h2 h3"
    assert given.proof[: feedback.offset] == "  cases h1\n  "


def test_feedback_speaks_against_what_follows_the_first_divergence():
    given = attempt(
        "  exfalso\n  exact h1", diagnostics=(error("Type mismatch", line=2),)
    )
    feedback = write(ReferenceHint(), given)
    assert feedback.parts == (
        "hint at line 1: obtain ⟨h2, h3⟩ := h1",
        "error at line 2: Type mismatch",
    )
    assert given.proof[: feedback.offset] == "  "


def test_divergence_inside_a_line():
    given = attempt(
        "  obtain ⟨h2, h3⟩ := h1\n  exact h2", diagnostics=(error("e", line=2),)
    )
    feedback = write(ReferenceHint(), given)
    assert given.proof[: feedback.offset] == "  obtain ⟨h2, h3⟩ := h1\n  exact h"


def test_an_error_before_the_divergence_counts():
    given = attempt(
        "  obtain ⟨h2, h3⟩ := h1\n  exact h2", diagnostics=(error("e", line=1),)
    )
    feedback = write(ReferenceHint(), given)
    assert given.proof[: feedback.offset] == "  obtain ⟨h2, h3⟩ := h1"


def test_an_attempt_that_stops_too_early():
    given = attempt("  obtain ⟨h2, h3⟩ := h1", diagnostics=(error("e", line=1),))
    assert write(ReferenceHint(), given).offset == len(given.proof)


def test_hint_after_a_complete_reference():
    given = attempt(
        "  obtain ⟨h2, h3⟩ := h1\n  exact h3\n  exact h3",
        diagnostics=(error("No goals to be solved", line=3),),
    )
    assert write(ReferenceHint(), given).parts[0] == "hint: stop after line 2"


def test_plan_names_tactics_without_arguments():
    given = attempt("  skip", diagnostics=(error("e"),))
    feedback = write(ReferenceHint(plan=2), given)
    assert feedback.parts[-1] == "then: exact"


def test_no_reference_no_hint():
    bare = judging.attempt(
        Problem(name="t", statement="theorem t : True"),
        "  x",
        Verdict(status=Status.REJECTED, diagnostics=(error("e"),)),
    )
    assert write(ReferenceHint(), bare).parts == ("error at line 1: e",)
