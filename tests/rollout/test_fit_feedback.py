"""How much of the feedback a prompt of some width holds."""

import pytest

from fdjax.feedback import Feedback
from fdjax.rollout import fit_feedback
from tiny import PROBLEMS, TOKENIZER

PARTS = ("first", "second", "third")


def width_of(text):
    """Tokens of the prompt with this feedback, as its template spells it."""
    prompt = f"<|user|>{text}\n{PROBLEMS[0].statement} := by<|assistant|>"
    return len(TOKENIZER(prompt, add_special_tokens=False)["input_ids"])


def fit(width, *notes):
    return fit_feedback(TOKENIZER, PROBLEMS[:1] * len(notes), notes, width=width)


@pytest.mark.parametrize("kept", [3, 2, 1])
def test_the_last_parts_go_first(kept):
    text = "\n".join(PARTS[:kept])
    width = width_of(text)
    assert fit(width, Feedback(parts=PARTS)) == [text]
    less = "\n".join(PARTS[: kept - 1]) or None
    assert fit(width - 1, Feedback(parts=PARTS)) == [less]


def test_each_row_is_fitted_alone():
    width = width_of("first\nsecond")
    short, long = Feedback(parts=("first",)), Feedback(parts=PARTS)
    missing = Feedback(parts=("first",), error="no answer")
    assert fit(width, long, missing, short, long) == [
        "first\nsecond",
        None,
        "first",
        "first\nsecond",
    ]


def test_an_important_part_that_does_not_fit_leaves_nothing():
    """Later parts do not take its place: they lean on it."""
    assert fit(width_of("first"), Feedback(parts=("word " * 40, "x"))) == [None]


@pytest.mark.parametrize(
    "note",
    [
        Feedback(),
        Feedback(parts=("",)),
        Feedback(parts=(" \n",)),
        Feedback(parts=("", "word " * 60)),
    ],
)
def test_blank_feedback_is_none(note):
    assert fit(96, note) == [None]


def test_no_rows():
    assert fit_feedback(TOKENIZER, [], [], width=1) == []
