"""Leaks by hand: tokens are counted in the comments."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fdjax.feedback import (
    ConstantFeedback,
    Feedback,
    Kind,
    Leak,
    LeakGuard,
    LeakMeasure,
    feedback_metrics,
)
from feedback.attempts import failed, passed

# obtain ⟨ h2 , h3 ⟩ := h1 exact h3: 10 tokens.
PROOF = "  obtain ⟨h2, h3⟩ := h1\n  exact h3"


def measured(text, *, proof=PROOF, attempt="", **settings):
    return LeakMeasure(**settings)(text, proofs=[proof], attempt=attempt)


def test_prose_leaks_nothing():
    # They share a comma, and no word.
    found = measured("Take the conjunction apart, then use its second half.")
    assert found == Leak(share=0.0, new_share=0.0, longest_run=1)


def test_a_step_of_two():
    # The first 8 of 10 tokens, in one run.
    found = measured("Begin with `obtain ⟨h2, h3⟩ := h1`.")
    assert found == Leak(share=0.8, new_share=0.8, longest_run=8)


def test_line_breaks_and_blanks_do_not_count():
    found = measured("obtain  ⟨h2,h3⟩:=h1 exact   h3")
    assert found == Leak(share=1.0, new_share=1.0, longest_run=10)


def test_runs_shorter_than_the_shortest_do_not_count():
    # Runs: `⟨ h2 ,` of 3 tokens and `exact h3` of 2.
    text = "Split it as ⟨h2, _⟩; exact h3 closes it."
    assert measured(text) == Leak(longest_run=3)
    # With 3: 3 of 10 tokens. With 2: 3 + 2.
    assert measured(text, shortest_run=3).share == pytest.approx(0.3)
    assert measured(text, shortest_run=2).share == pytest.approx(0.5)


def test_what_the_attempt_has_is_nothing_new():
    # The text has all 10 tokens, the attempt the first 9: all but the last name.
    found = measured(PROOF, attempt="  obtain ⟨h2, h3⟩ := h1\n  exact h2")
    assert found.share == 1.0
    assert found.new_share == pytest.approx(0.1)


def test_a_short_proof_is_a_run_as_a_whole():
    assert measured("Try rfl here.", proof="  rfl").share == 1.0
    assert measured("Try simp here.", proof="  rfl").share == 0.0


def test_comments_and_quotes_hide_nothing():
    for text in (
        "Hint -- obtain ⟨h2, h3⟩ := h1",
        "/- obtain ⟨h2, h3⟩ := h1 -/",
        '"obtain ⟨h2, h3⟩ := h1"',
        "It isn't closed: \"obtain ⟨h2, h3⟩ := h1",
        "/-- never closed obtain ⟨h2, h3⟩ := h1",
        "«obtain ⟨h2, h3⟩ := h1",
    ):
        assert measured(text).longest_run == 8, text
    # A comment of the proof is no part of it.
    commented = "  -- take it apart\n" + PROOF
    assert measured(PROOF, proof=commented).share == 1.0


def test_the_proof_given_away_most_is_reported():
    proofs = ["  exact h1.2", PROOF, "  omega"]
    found = LeakMeasure()("obtain ⟨h2, h3⟩ := h1", proofs=proofs)
    assert found.share == pytest.approx(0.8)
    assert LeakMeasure()("text", proofs=[]) == Leak()
    assert LeakMeasure()("text", proofs=["", " -- nothing"]) == Leak()


def test_lines_that_tell():
    text = "Take it apart:\n  obtain ⟨h2, h3⟩ :=\n  h1\nand use the second half."
    assert LeakMeasure().lines(text, proofs=[PROOF]) == {1, 2}
    # Nothing of it is new to this attempt.
    own = "  obtain ⟨h2, h3⟩ := h1"
    assert LeakMeasure().lines(text, proofs=[PROOF], attempt=own) == frozenset()


TELLING = "Take it apart:\nobtain ⟨h2, h3⟩ := h1\nThen the second half closes it."


def guarded(attempt, text=TELLING, **settings):
    guard = LeakGuard(writer=ConstantFeedback(text=text), **settings)
    [note] = asyncio.run(guard.write([attempt]))
    return note


def test_telling_lines_are_left_out():
    note = guarded(failed("  simp"), action="strip")
    assert note.parts == ("Take it apart:", "Then the second half closes it.")
    assert note.leak.new_share == pytest.approx(0.8)
    assert note.stripped_lines == 1
    metrics = feedback_metrics([note, note])
    assert metrics["feedback/leak_new"].value() == pytest.approx(0.8)
    assert metrics["feedback/stripped_lines"].value() == 1.0


def test_lines_that_only_tell_side_by_side():
    # Without the second line the first and the third make a run of 4.
    text = "obtain ⟨\nobtain ⟨h2, h3⟩ := h1\nh2,"
    note = guarded(failed("  simp"), text, action="strip")
    assert note.kind is Kind.LEAK
    assert note.parts == ()


def test_telling_feedback_may_be_refused_or_only_measured():
    refused = guarded(failed("  simp"), action="refuse")
    assert refused.error == "leak: 80% of a known proof, more than 20%"
    assert not refused.available
    kept = guarded(failed("  simp"), action="measure")
    assert kept.text == TELLING
    assert kept.leak.longest_run == 8


def test_a_little_may_be_told():
    note = guarded(failed("  simp"), most=0.8)
    assert (note.text, note.stripped_lines) == (TELLING, 0)


def test_proofs_of_the_group_are_known_proofs():
    proof = "  exact h1.2"
    group = [failed("  simp"), passed(proof)]
    guard = LeakGuard(
        writer=ConstantFeedback(text="Say exact h1.2 now."), action="refuse"
    )
    first, second = asyncio.run(guard.write(group))
    assert first.kind is Kind.LEAK
    # Who wrote the proof may read it.
    assert second.text == "Say exact h1.2 now."


def test_what_is_no_text_is_left_alone():
    class Silent:
        async def write(self, group):
            return [Feedback.failed(Kind.SERVER, "500")] * len(group)

    [note] = asyncio.run(LeakGuard(writer=Silent()).write([failed("  x")]))
    assert note == Feedback.failed(Kind.SERVER, "500")


def shared_runs(tokens, others):
    """Every (start, size) of a run of `tokens` that `others` has, by comparing all."""
    return [
        (start, size)
        for start in range(len(tokens))
        for size in range(1, len(tokens) - start + 1)
        for place in range(len(others) - size + 1)
        if tokens[start : start + size] == others[place : place + size]
    ]


WORDS = st.lists(st.sampled_from("abc"), max_size=9)


@given(proof=WORDS, text=WORDS, attempt=WORDS, shortest=st.integers(1, 4))
def test_runs_are_those_that_comparing_everything_finds(proof, text, attempt, shortest):
    found = measured(
        " ".join(text),
        proof=" ".join(proof),
        attempt=" ".join(attempt),
        shortest_run=shortest,
    )
    shortest = min(shortest, len(proof))
    runs = shared_runs(proof, text)
    assert found.longest_run == max((size for _, size in runs), default=0)

    def covered(runs):
        return {
            place
            for start, size in runs
            if size >= shortest
            for place in range(start, start + size)
        }

    told, own = covered(runs), covered(shared_runs(proof, attempt))
    count = max(len(proof), 1)
    assert found.share == pytest.approx(len(told) / count)
    assert found.new_share == pytest.approx(len(told - own) / count)
