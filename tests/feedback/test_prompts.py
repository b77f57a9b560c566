"""What a model is told: excerpts, caps, and every template as the document shows it."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from fdjax.errors import ConfigError, DataError
from fdjax.feedback import (
    Caps,
    Critique,
    CritiqueSettings,
    GroupCritique,
    Template,
)
from fdjax.feedback.chat import Reply
from fdjax.feedback.prompt import Message, excerpt, theorem_of
from fdjax.feedback.prompt.excerpt import fence
from fdjax.judge import Judgement
from fdjax.lean import Diagnostic, Status, Verdict
from fdjax.lean.facts.source import goals_of
from feedback.attempts import MISMATCH, attempt, failed, passed
from feedback.attempts import PROBLEM as BARE

DOCUMENT = Path(__file__).parents[2] / "docs" / "feedback.md"
PROBLEM = replace(BARE, informal="If p and q hold, then q holds.")
PROOF = "  obtain ⟨h2, h3⟩ := h1\n  exact h2\n  done"
FAILED = failed(PROOF, MISMATCH, problem=PROBLEM)
UNSOLVED = Diagnostic(
    severity="error",
    line=1,
    column=0,
    kind="Tactic.unsolvedGoals",
    text="unsolved goals\np q : Prop\nh1 : p ∧ q\n⊢ q",
)
OPEN = failed("  have h := h1", UNSOLVED)


class Unasked:
    """A model for tests of questions alone."""


def question(given=FAILED, group=(), **settings):
    writer = Critique(chat=Unasked(), settings=CritiqueSettings(**settings))
    return writer.question(given, group or [given])


def rendered(question):
    return f"System:\n\n{question.system}\n\nUser:\n\n{question.user}"


def test_the_document_shows_every_template():
    group = [FAILED, OPEN, passed("  exact h1.2")]
    one, _ = question(FAILED, group, references=1)
    writer = GroupCritique(chat=Unasked(), settings=CritiqueSettings(peers=1))
    shown = [excerpt(each, Caps()) for each in group[:2]]
    many, headings, _ = writer.question(shown, group)
    assert headings[0] in many.user
    document = DOCUMENT.read_text()
    for asked in (one, many):
        name = asked.template
        text = f"### `{name}`\n\n````text\n{rendered(asked)}\n````\n"
        assert text in document, text
    folder = Path(__file__).parents[2] / "fdjax/feedback/prompt/templates"
    names = {path.name.removesuffix(".jinja") for path in folder.iterdir()}
    assert names == {one.template, many.template}


@pytest.mark.parametrize(
    ("name", "digest"),
    [("critique@1", "379e98c4a6caec72"), ("group_critique@1", "b3b6bb4cf97f688e")],
)
def test_a_changed_template_is_another_version(name, digest):
    # The beginning of sha256sum of the file; who changes it makes a file @2.
    assert Template.packaged(name).digest == digest


def test_an_attempt_with_its_message():
    shown = excerpt(FAILED, Caps())
    assert shown.code == (
        "   1 |   obtain ⟨h2, h3⟩ := h1\n   2 |   exact h2\n   3 |   done"
    )
    assert shown.outcome == "Lean rejects it."
    [message] = shown.messages
    assert message == Message(
        place="line 2",
        text=MISMATCH.text,
        code=(
            "     1 |   obtain ⟨h2, h3⟩ := h1\n"
            ">    2 |   exact h2\n"
            "                 ^^\n"
            "     3 |   done"
        ),
    )
    assert shown.cut_characters == 0


def test_messages_about_other_places():
    outside = Diagnostic(
        severity="error", line=7, column=0, text="unknown `x`", in_proof=False
    )
    beyond = Diagnostic(severity="error", line=9, column=0, text="unexpected end")
    shown = excerpt(failed("  a\n  b", UNSOLVED, outside, beyond), Caps())
    assert [(m.place, m.code) for m in shown.messages] == [
        ("at the end of the proof", ""),
        ("in the statement, not in the proof", ""),
        ("line 9", ""),
    ]


def test_a_long_span_is_shown_from_its_beginning():
    block = Diagnostic(severity="error", line=3, column=2, end_line=9, text="oh")
    lines = "\n".join(f"  l{number}" for number in range(1, 11))
    [message] = excerpt(failed(lines, block), Caps(context_lines=1)).messages
    assert message.code == (
        "     2 |   l2\n>    3 |   l3\n>    4 |   l4\n     5 |   l5"
    )


def test_what_is_cut_is_said_and_counted():
    # Three lines of four characters; two are kept. A line break and a line are left.
    caps = Caps(attempt_lines=2, message_characters=10, messages=1)
    long = replace(MISMATCH, line=1, column=0, end_line=1, end_column=1)
    shown = excerpt(failed("  a1\n  a2\n  a3", long, UNSOLVED), caps)
    assert shown.code == "   1 |   a1\n   2 |   a2\n[… 1 more line left out]"
    [message] = shown.messages
    left = len(MISMATCH.text) - 10
    assert message.text == f"Type misma\n[… {left} more characters left out]"
    assert shown.more_messages == 1
    # "> " and "   1 |   a1" are 13 characters, a mark under the code 10, "^" included,
    # then two lines of 13; with three line breaks 52, of which 10 are kept.
    cut_code = 52 - 10
    assert message.code.endswith(f"[… {cut_code} more characters left out]")
    assert shown.cut_characters == 5 + left + cut_code + len(UNSOLVED.text)


def test_a_long_line_is_cut_at_its_end():
    shown = excerpt(failed("  " + "x" * 20), Caps(attempt_characters=10))
    assert shown.code == "   1 |   xxxxxxxx\n[… 12 more characters left out]"
    assert shown.cut_characters == 12


def test_a_theorem_is_cut_at_its_end():
    problem = replace(PROBLEM, informal="A conjunction has a right side.")
    theorem, informal, cut = theorem_of(problem, Caps(theorem_characters=13))
    assert theorem.startswith("import Mathlib"[:13] + "\n[… ")
    assert informal == "A conjunction\n[… 18 more characters left out]"
    assert cut == len("import Mathlib\n\n" + PROBLEM.statement) - 13 + 18


def test_goals_that_a_cut_has_taken_away():
    verdict = Verdict(
        status=Status.REJECTED,
        diagnostics=(UNSOLVED,),
        goals=goals_of((UNSOLVED,)),
    )
    given = attempt("  skip", verdict)
    assert excerpt(given, Caps()).goals == ()
    goal = "p q : Prop\nh1 : p ∧ q\n⊢ q"
    assert excerpt(given, Caps(message_characters=20)).goals == (goal,)
    none = excerpt(given, Caps(messages=0, goals=0))
    assert (none.goals, none.more_goals, none.more_messages) == ((), 1, 1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            attempt("x", Verdict(status=Status.UNSAFE, reason="`#eval` is a command")),
            "It was not run, because its text is not allowed. `#eval` is a command",
        ),
        (
            attempt("x", Verdict(status=Status.TIMEOUT)),
            "Lean ran out of time or memory on it.",
        ),
        (failed("x"), "Lean rejects it. it has errors"),
        (
            replace(failed("x"), judgement=Judgement(reward=0.1, reason="0.1 French")),
            "It did not pass. 0.1 French",
        ),
    ],
)
def test_what_was_decided(given, said):
    assert excerpt(given, Caps()).outcome == said


def test_without_a_proof_the_whole_text_is_shown():
    verdict = Verdict(status=Status.REJECTED, reason="no answer: no fence")
    shown = excerpt(attempt("", verdict, text="I think\nso"), Caps())
    assert shown.code == "   1 | I think\n   2 | so"


def test_no_text_can_end_its_fence():
    assert fence("no ticks") == "```"
    assert fence("four ````") == "`````"
    asked, _ = question(failed("  exact h2 -- ```\n  done"))
    assert asked.user.count("````lean") == 2  # theorem and attempt
    assert "````\n\nLean rejects it." in asked.user


def test_an_attempt_is_no_template():
    asked, _ = question(failed("  {{ 7 * 7 }} {% raw %}"))
    assert "{{ 7 * 7 }} {% raw %}" in asked.user


def test_proofs_are_shown_only_when_asked_for():
    group = [FAILED, passed("  exact h1.right"), passed("  exact h1.2")]
    asked, _ = question(FAILED, group)
    assert "h1.2" not in asked.user
    assert PROBLEM.references[0] not in asked.user
    asked, _ = question(FAILED, group, peers=1, references=1)
    # The shortest of the two.
    assert "  exact h1.2\n" in asked.user
    assert "h1.right" not in asked.user
    assert PROBLEM.references[0] in asked.user


def test_text_that_is_no_unicode_is_replaced():
    asked, _ = question(failed("  exact \ud800"))
    assert "  exact ?" in asked.user


def test_templates_of_your_own(tmp_path):
    path = tmp_path / "short@3.jinja"
    path.write_text(
        "{% block system %}Be brief.{% endblock %}"
        "{% block user %}{{ attempt.outcome }}{% endblock %}"
    )
    writer = Critique(chat=Unasked(), template=Template.read(path))
    asked, _ = writer.question(FAILED, [FAILED])
    assert (asked.system, asked.user) == ("Be brief.", "Lean rejects it.")
    assert asked.template == "short@3"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("short.jinja", "", "called name@version"),
        ("short@1.jinja", "{% block user %}{% endblock %}", "got no system"),
        ("short@1.jinja", "{% block system %}", "expected a Jinja template"),
    ],
)
def test_templates_that_are_none(tmp_path, name, text, said):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        Template.read(path)


@pytest.mark.parametrize(
    "text", ["{{ nothing }}", "{{ attempt.__class__.__mro__ }}", "{{ attempt.x }}"]
)
def test_a_template_that_goes_wrong_says_so(text):
    source = (
        f"{{% block system %}}{{% endblock %}}{{% block user %}}{text}{{% endblock %}}"
    )
    template = Template(name="wrong@1", source=source)
    with pytest.raises(ConfigError, match="template wrong@1, block user"):
        Critique(chat=Unasked(), template=template)
    with pytest.raises(ConfigError, match="template wrong@1, block user"):
        GroupCritique(chat=Unasked(), template=template)


def test_unknown_templates_are_named(tmp_path):
    with pytest.raises(ConfigError, match="critique@1, group_critique@1, got 'no@1'"):
        Template.packaged("no@1")
    with pytest.raises(DataError, match="expected a template in UTF-8"):
        Template.read(tmp_path / "gone@1.jinja")


def test_cut_characters_are_counted():
    class Fine(Unasked):
        async def ask(self, questions):
            return [Reply(text="fine")] * len(questions)

    settings = CritiqueSettings(caps=Caps(theorem_characters=5))
    writer = Critique(chat=Fine(), settings=settings)
    [note] = asyncio.run(writer.write([FAILED]))
    theorem, informal, _ = theorem_of(PROBLEM, Caps())
    # Five characters are kept of each.
    assert note.usage.cut_characters == len(theorem) + len(informal) - 10
