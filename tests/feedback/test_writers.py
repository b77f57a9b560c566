"""Writers made of other writers, those that need none, and the watch over all."""

import asyncio
import math
from collections import Counter
from dataclasses import dataclass

import pytest

from fdjax.errors import ConfigError, DataError, FeedbackError
from fdjax.feedback import (
    CompilerFeedback,
    ConstantFeedback,
    Feedback,
    Joined,
    Kind,
    Mixture,
    ReferenceHint,
    Usage,
    Watched,
    Writer,
    feedback_metrics,
)
from fdjax.feedback.writing import write_in_time
from feedback.attempts import MISMATCH, failed, passed

GROUP = [failed(f"  step {number}\n  exact h2", MISMATCH) for number in range(400)]
A, B, C = (ConstantFeedback(text=text) for text in "ABC")


def write(writer, group):
    return asyncio.run(writer.write(group))


@dataclass
class Saying:
    """A writer that says what it is told to, and then is closed."""

    notes: list
    closed: bool = False

    async def write(self, group):
        await asyncio.sleep(0)
        return self.notes

    async def aclose(self):
        self.closed = True


def test_constant_feedback_is_the_same_for_all():
    notes = write(ConstantFeedback(text="Answer in French."), [GROUP[0], passed("x")])
    assert [note.text for note in notes] == ["Answer in French."] * 2
    with pytest.raises(ConfigError, match=r"FD\(reads='nothing'\)"):
        ConstantFeedback(text=" ")


def test_all_are_writers():
    for writer in (A, Mixture(writers=(A,), weights=(1.0,)), Watched(A)):
        assert isinstance(writer, Writer)


def test_weights_are_shares():
    mixture = Mixture(writers=(A, B, C), weights=(1.0, 3.0, 0.0))
    counts = Counter(note.text for note in write(mixture, GROUP))
    assert counts["C"] == 0
    # Four standard deviations of 400 draws with p = 1/4: 4 · √(400 · 3/16) = 35.
    assert abs(counts["A"] - 100) < 4 * math.sqrt(400 * 3 / 16)


def test_the_choice_is_the_contents():
    mixture = Mixture(writers=(A, B), weights=(1.0, 1.0))
    whole = [note.text for note in write(mixture, GROUP)]
    assert whole == [write(mixture, [each])[0].text for each in GROUP]
    turned = [note.text for note in write(mixture, GROUP[::-1])]
    assert turned == whole[::-1]
    other = Mixture(writers=(A, B), weights=(1.0, 1.0), seed=1)
    assert [note.text for note in write(other, GROUP)] != whole


def test_a_group_may_go_to_one_writer():
    mixture = Mixture(writers=(A, B), weights=(1.0, 1.0), unit="group")
    groups = [GROUP[start : start + 4] for start in range(0, 200, 4)]
    texts = [{note.text for note in write(mixture, group)} for group in groups]
    assert all(len(text) == 1 for text in texts)
    assert set.union(*texts) == {"A", "B"}


@pytest.mark.parametrize("weights", [(1.0,), (0.0, 0.0), (1.0, -1.0), (1.0, math.nan)])
def test_weights_that_are_none(weights):
    with pytest.raises(ConfigError, match="weight"):
        Mixture(writers=(A, B), weights=weights)


def test_joined_parts_stand_one_after_the_other():
    first = Saying([Feedback(parts=("a", ""), offset=9, usage=Usage(requests=1))])
    second = Saying([Feedback(parts=("b",), offset=3, usage=Usage(requests=2))])
    joined = Joined(writers=(first, second))
    [note] = write(joined, GROUP[:1])
    assert note == Feedback(parts=("a", "", "b"), offset=3, usage=Usage(requests=3))
    asyncio.run(joined.aclose())
    assert first.closed
    assert second.closed


def test_the_same_words_are_said_once():
    [note] = write(
        Joined(writers=(CompilerFeedback(), CompilerFeedback(), A)), GROUP[:1]
    )
    assert note.parts == ("error at line 2: Type mismatch", "A")


def test_a_writer_that_fails_leaves_no_other_kind_of_feedback():
    failing = Saying([Feedback.failed(Kind.SERVER, "500", usage=Usage(requests=3))])
    [note] = write(Joined(writers=(A, failing)), GROUP[:1])
    assert (note.error, note.parts) == ("server: 500", ())
    assert note.usage.requests == 3
    [kept] = write(Joined(writers=(A, failing), partial=True), GROUP[:1])
    assert (kept.text, kept.usage.requests) == ("A", 3)
    [none] = write(Joined(writers=(failing,), partial=True), GROUP[:1])
    assert none.kind is Kind.SERVER


@pytest.mark.parametrize(
    ("notes", "said"),
    [
        ([], "got 0 of"),
        (["text"], "got 1 of ['str']"),
        (None, "NoneType"),
    ],
)
def test_what_a_writer_may_not_answer_is_data(notes, said):
    for writer in (Watched(Saying(notes)), Joined(writers=(Saying(notes),))):
        [note] = write(writer, GROUP[:1])
        assert note.kind is Kind.FAILED
        assert said in note.error


def outage(count, kind=Kind.SERVER):
    return [Feedback.failed(kind, "500")] * count


def watch(share, *groups, **settings):
    """What a watched writer makes of groups, one after the other."""
    saying = Saying([])
    watched = Watched(saying, max_missing_share=share, window=8, **settings)
    for notes in groups:
        saying.notes = notes
        write(watched, GROUP[: len(notes)])


GOOD = Feedback(parts=("fine",))


def test_too_much_missing_ends_the_run():
    # 4 of the last 8 are missing, no more than half; then 6 of 8.
    watch(0.5, outage(4), [GOOD] * 4)
    said = r"none on 6 of the last 8 \(server 6\); the newest: server: 500"
    with pytest.raises(FeedbackError, match=said):
        watch(0.5, outage(4), [GOOD] * 2, outage(2))


def test_before_the_window_is_full_nothing_is_too_much():
    watch(0.0, outage(7))
    with pytest.raises(FeedbackError, match="none on 8 of the last 8"):
        watch(0.0, outage(7), outage(1))


def test_old_failures_are_forgotten():
    watch(0.5, outage(4), [GOOD] * 8, outage(4))


def test_a_share_of_one_is_never_too_much():
    watch(1.0, outage(8), outage(8))


class Never:
    """A writer that is still at work when all are gone."""

    async def write(self, group):
        await asyncio.Event().wait()


def cut_off(writer, size):
    return asyncio.run(write_in_time(writer, GROUP[:size], 0.001))


@pytest.mark.parametrize(
    "around",
    [
        lambda watched: watched,
        lambda watched: Joined(writers=(A, watched)),
        lambda watched: Mixture(writers=(watched,), weights=(1.0,)),
        lambda watched: ReferenceHint(base=watched),
    ],
)
def test_what_is_cut_off_at_the_deadline_is_missing(around):
    writer = around(Watched(Never(), window=8))
    notes = cut_off(writer, 4)
    assert [note.kind for note in notes] == [Kind.DEADLINE] * 4
    assert notes[0].error == "deadline: no feedback came within 0.001 s"
    with pytest.raises(FeedbackError, match=r"none on 8 of the last 8 \(deadline 8\)"):
        cut_off(writer, 4)


def test_what_nobody_wants_any_more_is_not_missing():
    watched = Watched(Never(), max_missing_share=0.0, window=8)

    async def give_up():
        asked = asyncio.create_task(write_in_time(watched, GROUP[:8], 60.0))
        await asyncio.sleep(0)
        asked.cancel()
        await asyncio.wait([asked])

    asyncio.run(give_up())
    cut_off(watched, 7)
    with pytest.raises(FeedbackError):
        cut_off(watched, 1)


def test_a_spent_budget_is_no_outage(caplog):
    watch(0.0, *[outage(8, Kind.BUDGET)] * 3)
    assert caplog.text.count("No more feedback is asked for") == 1
    with pytest.raises(FeedbackError, match="raise it and resume"):
        watch(0.0, outage(1, Kind.BUDGET), at_budget="stop")


def test_kinds_of_failures():
    assert Feedback(error="an error without a kind").kind is Kind.FAILED
    # Words of a message mean nothing.
    assert Feedback(error="timeout: no answer in 3 s").kind is Kind.FAILED
    named = Feedback.failed(Kind.TIMEOUT, "no answer in 3 s")
    assert (named.kind, named.error) == (Kind.TIMEOUT, "timeout: no answer in 3 s")
    assert Feedback().kind is Feedback(parts=(" ",)).kind is Kind.EMPTY
    assert GOOD.kind is None
    with pytest.raises(DataError, match="feedback or a kind of failure, got both"):
        Feedback(parts=("x",), kind=Kind.LEAK)


def test_metrics_are_means_over_attempts():
    usage = Usage(requests=3, retries=2, input_tokens=90, cost_usd=0.5)
    notes = [
        Feedback(parts=("x",), usage=usage),
        Feedback(parts=("y",), usage=Usage(recorded=1, cut_characters=40)),
        Feedback.failed(Kind.REFUSAL, "no", usage=Usage(requests=1)),
        Feedback.failed(Kind.BUDGET, "spent"),
    ]
    values = {name: mean.value() for name, mean in feedback_metrics(notes).items()}
    assert values == {
        "feedback/requests": 1.0,
        "feedback/retries": 0.5,
        "feedback/input_tokens": 22.5,
        "feedback/output_tokens": 0.0,
        "feedback/cost_usd": 0.125,
        "feedback/estimated": 0.0,
        "feedback/recorded": 0.25,
        "feedback/cut_characters": 10.0,
        "feedback/stripped_lines": 0.0,
        "feedback/missing": 0.5,
        "feedback/missing_refusal": 0.25,
        "feedback/missing_budget": 0.25,
    }
