"""Completions as chat provers write them; all of these were made up here."""

import asyncio
from textwrap import indent

import pytest

from fdjax.judge import fences
from fdjax.judge.answer import (
    NO_FENCE,
    UNFINISHED_FENCE,
    UNFINISHED_THINKING,
    AfterThinking,
    last_fence,
    up_to_fence,
    whole_text,
)
from fdjax.judge.lean import LeanJudge
from fdjax.lean import WholeFile
from fdjax.lean.facts.lexer import tokens
from fdjax.records import Problem

PROBLEM = Problem(name="t", statement="theorem t (p q : Prop) (h : p ∧ q) : q ∧ p")
FILE = "theorem t (p q : Prop) (h : p ∧ q) : q ∧ p := by\n  exact ⟨h.2, h.1⟩\n"
BLOCK = f"```lean4\n{FILE}```\n"


def text_of(submission):
    return submission.text if isinstance(submission, WholeFile) else submission


@pytest.mark.parametrize(
    "text",
    [
        BLOCK,
        BLOCK.strip(),
        f"Swap the two.\n\n```Lean title\n{FILE}```\nThis is all.",
        f"~~~ lean\n{FILE}~~~",
        f"```{{.lean4}}\n{FILE}```",
        f"```\n{FILE}```",
        f"```lean\nsorry\n```\nBetter:\n{BLOCK}",
        f"```lean\nsorry\n\n{BLOCK}",
        f"```text\nIt goes like this:\n{BLOCK}",
        f"{BLOCK}```text\nDone.\n```\n```\n1\n```",
        f"{BLOCK}```text\nDone.",
        f"{BLOCK}```lean4\n\n```",
        "1. The proof:\n\n" + indent(BLOCK, "      "),
        BLOCK.replace("\n", "\r\n"),
        f"<think>\n```lean\nsimp\n```\n</think>\n{BLOCK}",
        f"<think>\n```lean\nsimp\n</think>\n{BLOCK}",
        f"<think>simp?</think>{BLOCK}",
        f"Let me see. <think>simp?</think> Yes.\n<think>\nNo!\n</think>\n{BLOCK}",
        f"Simp?\n</think>\n\n{BLOCK}",
    ],
)
def test_the_last_block_of_lean_is_the_file(text):
    assert last_fence(PROBLEM, text).submission == WholeFile(FILE)


@pytest.mark.parametrize(
    "file",
    [
        f"-- <think> is a tag\n{FILE}",
        f"/-\n<think>\nswap\n</think>\n-/\n{FILE}",
        f"/-- As in\n```lean\nx\n``` -/\n{FILE}",
        f"/-\n```\nan example\n```\n/- nested -/\n~~~\n-/\n{FILE}",
        f"/-! ```lean4\nsimp\n```\n-/\n{FILE}",
        FILE.replace("theorem t ", "theorem other "),
        f"import Init\nopen Nat\n\nset_option maxRecDepth 1000\n{FILE}",
        f'def s := "{{```"\n{FILE}',
    ],
)
def test_what_looks_like_a_fence_or_a_tag_inside_of_a_file(file):
    answer = last_fence(PROBLEM, f"Here:\n```lean4\n{file}```\n")
    assert answer.submission == WholeFile(file)


def test_a_longer_fence_holds_shorter_ones():
    file = f"/-- As in\n```lean\nx\n```\n-/\n{FILE}"
    answer = last_fence(PROBLEM, f"````lean\n{file}````\n")
    assert answer.submission == WholeFile(file)


def test_a_comment_that_does_not_end_takes_no_later_block_with_it():
    text = f"```lean4\n/- like this?\n```\nNo:\n{BLOCK}"
    assert last_fence(PROBLEM, text).submission == WholeFile(FILE)


@pytest.mark.parametrize(
    ("block", "tactics"),
    [
        ("```lean4\nexact h.symm\n```", "exact h.symm\n"),
        ("```tactics\n  simp\n  omega\n```", "  simp\n  omega\n"),
        ("  ```lean\n  simp\n    [h]\n  ```", "simp\n  [h]\n"),
        ("\t~~~lean\n\tsimp\n  omega\n\t~~~", "simp\n  omega\n"),
        ("```lean\nopen Nat in\nsimp\n```", "open Nat in\nsimp\n"),
        ("```lean\nby\n  simp\n```", "  simp\n"),
        ("```lean\n:= by\r\n  simp\r\n```", "  simp\n"),
        ("```lean\n:=\n by simp\n    omega\n```", "    simp\n    omega\n"),
        ("```lean\n-- so\nby\n  simp\n```", "  simp\n"),
        ("```lean\nby simp\n   omega\n```", "   simp\n   omega\n"),
        ("```lean\nby_cases h\n```", "by_cases h\n"),
    ],
)
def test_a_block_of_tactics(block, tactics):
    assert last_fence(PROBLEM, f"So.\n{block}\nDone.").submission == tactics


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", NO_FENCE),
        ("The theorem is true.", NO_FENCE),
        ("  exact ⟨h.2, h.1⟩", NO_FENCE),
        ("Use `simp` or ```simp```.", NO_FENCE),
        ("```lean4\n```", NO_FENCE),
        ("```python\nprint()\n```", NO_FENCE),
        ("<think>\n```lean4\nsimp\n```\n</think>\nI do not know.", NO_FENCE),
        (f"{BLOCK}<think>Is it?</think>No.", NO_FENCE),
        ("<think>", UNFINISHED_THINKING),
        (f"Well.\n<think>\n{BLOCK}", UNFINISHED_THINKING),
        (f"<think>a</think>\n{BLOCK}<think>\nOr", UNFINISHED_THINKING),
        (f"```lean\n{FILE}", UNFINISHED_FENCE),
        (f"```lean\n{FILE}``", UNFINISHED_FENCE),
        (f"````lean\n{FILE}```", UNFINISHED_FENCE),
        (f"```lean\n{FILE}~~~", UNFINISHED_FENCE),
        (f"{BLOCK}Or shorter:\n```lean4\ntheorem t", UNFINISHED_FENCE),
        (f"{BLOCK}```lean4", UNFINISHED_FENCE),
        ("```lean4\n/- so\n", UNFINISHED_FENCE),
    ],
)
def test_no_answer_has_a_reason(text, reason):
    answer = last_fence(PROBLEM, text)
    assert (answer.submission, answer.start, answer.reason) == (None, 0, reason)


@pytest.mark.parametrize(
    ("extract", "text", "start"),
    [
        (whole_text, "  simp", 0),
        (last_fence, BLOCK, 9),
        (last_fence, f"Ω: <think>a</think>\n```lean\n{FILE}```", 28),
        (last_fence, "```lean\r\nby\r\n  simp\r\n```", 13),
        (last_fence, "  ```lean\n  :=\n  by\n    simp\n  ```", 20),
        (up_to_fence, "  simp\n```", 0),
        (AfterThinking(), "<think>a</think>\n\n  simp", 18),
        (AfterThinking(extract=last_fence, opened=True), f"a</think>{BLOCK}", 18),
    ],
)
def test_the_answer_begins_where_it_says(extract, text, start):
    answer = extract(PROBLEM, text)
    assert answer.start == start
    first_line = text[start:].splitlines()[0]
    assert text_of(answer.submission).splitlines()[0].strip() == first_line.strip()


def test_up_to_the_closing_fence():
    proof = "  -- ``` is no fence here\n  exact h.symm\n"
    text = f"{proof}```\n<think>\n```lean4\nsorry\n```"
    assert up_to_fence(PROBLEM, text).submission == proof
    assert up_to_fence(PROBLEM, f"{FILE}```").submission == WholeFile(FILE)
    assert up_to_fence(PROBLEM, proof).reason == UNFINISHED_FENCE


@pytest.mark.parametrize(
    ("text", "tactics"),
    [
        ("  simp", "  simp"),
        ("\n  simp", "\n  simp"),
        ("  simp -- <think>", "  simp -- <think>"),
        ("<think>\nsimp?\n</think>\n\n  simp\n", "  simp\n"),
        ("\n<think></think>\r\n \n  simp", "  simp"),
        ("<think>a</think><think>b</think> simp", " simp"),
    ],
)
def test_tactics_behind_thinking(text, tactics):
    assert AfterThinking()(PROBLEM, text).submission == tactics


def test_thinking_that_the_prompt_opens():
    extract = AfterThinking(extract=last_fence, opened=True)
    assert extract(PROBLEM, f"Hm.\n{BLOCK}").reason == UNFINISHED_THINKING
    assert extract(PROBLEM, f"<think>a</think>{BLOCK}").submission == WholeFile(FILE)
    assert extract(PROBLEM, f"```lean\n</think>\n{BLOCK}").submission == WholeFile(FILE)
    assert extract(PROBLEM, "a</think>b").reason == NO_FENCE


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("```lean4\n" * 5_000, UNFINISHED_FENCE),
        ("```lean4\n/-\n" + "```lean4\n" * 5_000 + "-/\n```", ""),
        ("```lean4\n/-\n" * 1_000, UNFINISHED_FENCE),
        ("<think></think>" * 5_000, NO_FENCE),
        ("</think>\n" * 5_000, NO_FENCE),
    ],
)
def test_a_model_that_repeats_itself_costs_little(monkeypatch, text, reason):
    read = []

    def counted(text):
        read.append(len(text))
        return tokens(text)

    monkeypatch.setattr(fences, "tokens", counted)
    assert last_fence(PROBLEM, text).reason == reason
    assert max(read, default=0) <= 10_000


# ---- with the embedded Lean

THINKING = "<think>\nh holds both, in the other order.\n</think>\n\n"
HEADER = "open Nat\nset_option maxRecDepth 1000 -- deep"


@pytest.mark.parametrize(
    ("extract", "text"),
    [
        (last_fence, f"Here is the proof.\n{BLOCK}"),
        (AfterThinking(), f"{THINKING}  exact ⟨h.2, h.1⟩"),
        (last_fence, "```lean4\n  exact ⟨h.2, h.1⟩\n```"),
        (last_fence, f"{THINKING}{BLOCK}"),
        (last_fence, "```lean4\nconstructor\n· exact h.2\n· exact h.1\n```"),
        (
            last_fence,
            "```lean4\n    constructor\n    · exact h.2\n    · exact h.1\n```",
        ),
        (last_fence, "- so:\n    ```lean4\n    exact\n      h.symm\n    ```"),
        (last_fence, "```lean4\nby constructor\n   · exact h.2\n   · exact h.1\n```"),
        (last_fence, f"```lean4\n{HEADER}\n\n/-- Swap. -/\n{FILE}```"),
        (last_fence, f"```lean4\n{HEADER}\n\n{FILE}```".replace("\n", "\r\n")),
        (last_fence, f"```lean4\ntheorem u : True := trivial\n\n{FILE}```"),
        (up_to_fence, "  exact ⟨h.2, h.1⟩\n```\nDone."),
        (whole_text, "  exact ⟨h.2, h.1⟩"),
    ],
)
def test_a_right_answer_is_worth_1(verifier, extract, text):
    problem = Problem(name="t", statement=PROBLEM.statement, header=HEADER)
    judge = LeanJudge(verifier=verifier, extract=extract)
    [judgement] = asyncio.run(judge.judge([(problem, text)]))
    assert judgement.reward == 1.0, judgement


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (FILE.replace("theorem t ", "theorem other "), "no constant has the theorem's"),
        (FILE.replace("q ∧ p :=", "q :=").replace("⟨h.2, h.1⟩", "h.2"), "another stat"),
        (FILE.replace("exact ⟨h.2, h.1⟩", "sorry"), "rests on sorry"),
    ],
)
def test_a_file_that_proves_something_else_is_refused(verifier, file, reason):
    judge = LeanJudge(verifier=verifier, extract=last_fence)
    [judgement] = asyncio.run(judge.judge([(PROBLEM, f"```lean4\n{file}```")]))
    assert judgement.reward == 0.0
    assert reason in judgement.reason


def test_the_reason_reaches_the_verdict(verifier):
    judge = LeanJudge(verifier=verifier, extract=last_fence)
    [judgement] = asyncio.run(judge.judge([(PROBLEM, "<think>\nHm")]))
    assert judgement.reward == 0.0
    assert judgement.verdict.reason == f"no answer: {UNFINISHED_THINKING}"
    assert judgement.answerless
