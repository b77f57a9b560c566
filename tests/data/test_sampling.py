import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fdjax.data.pipeline import BatchStream
from fdjax.data.sampling import PassRateSampling, PassRateStream, SampleCounts
from fdjax.errors import CheckpointError, ConfigError

NEVER = PassRateSampling(least_attempts=8, recent_attempts=8, retry_share=0)


def stream(items="abcdefgh", batch_size=4, seed=3, sampling=NEVER):
    return PassRateStream(items, batch_size=batch_size, seed=seed, sampling=sampling)


def tell(drawn, passed, items, judged=8):
    for item in items:
        drawn.observe(item, passed=passed, judged=judged)


def test_epochs_are_permutations_in_different_orders_while_nothing_is_known():
    drawn = stream()
    epochs = [next(drawn) + next(drawn) for _ in range(4)]
    assert all(sorted(epoch) == list("abcdefgh") for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert next(stream(seed=4)) != epochs[0][:4]


def test_always_and_never_solved_problems_are_left_out():
    drawn = stream()
    tell(drawn, 0, "ab")
    tell(drawn, 8, "cd")
    tell(drawn, 1, "e")
    tell(drawn, 7, "f")
    assert drawn.counts == SampleCounts(
        problems=8, solved=2, unsolved=2, retried=0, filled=0
    )
    assert [sorted(next(drawn)) for _ in range(3)] == [list("efgh")] * 3
    # A success brings back what was never solved, a failure what always was.
    tell(drawn, 1, "a")
    tell(drawn, 7, "c")
    assert set("aefghc") == {item for _ in range(3) for item in next(drawn)}


def test_recent_groups_decide_by_hand():
    """Thresholds .25 and .75, 12 attempts at least, the latest groups that hold 20."""
    sampling = PassRateSampling(
        lowest=0.25, highest=0.75, least_attempts=12, recent_attempts=20, retry_share=0
    )
    drawn = stream(sampling=sampling)
    record = []
    for passed, judged in [
        (0, 8),  # 0 of 8: too few
        (0, 0),  # says nothing
        (3, 4),  # 3 of 12, at most .25
        (1, 2),  # 4 of 14
        (8, 8),  # 12 of 22; without the first group, 12 of 14 would be too few to count
        (6, 8),  # 18 of 22 without the first group (8 + 8 + 2 + 4), at least .75
        (2, 4),  # 17 of 22 without the second (4 + 8 + 8 + 2)
        (1, 4),  # 17 of 24 without the third (4 + 4 + 8 + 8)
    ]:
        drawn.observe("a", passed=passed, judged=judged)
        record.append((drawn.counts.unsolved, drawn.counts.solved))
    assert record == [*[(0, 0), (0, 0), (1, 0), (0, 0), (0, 0), (0, 1), (0, 1), (0, 0)]]
    assert drawn.get_state()["recent"] == {"0": [[8, 8], [6, 8], [2, 4], [1, 4]]}


def test_problems_left_out_are_retried_in_turn():
    """A quarter of a batch of four is one place, its first.

    An epoch of all takes two batches: that long none is retried again.
    """
    sampling = PassRateSampling(least_attempts=8, recent_attempts=8, retry_share=0.25)
    drawn = stream(sampling=sampling)
    tell(drawn, 0, "abc")
    batches = [next(drawn) for _ in range(7)]
    assert [batch[0] for batch in batches] == list("abcabca")
    assert all(set(batch[1:]) < set("defgh") for batch in batches)
    tell(drawn, 0, "defgh")
    assert drawn.counts.retried == 7
    last = {item: number for number, batch in enumerate(batches) for item in batch}
    assert next(drawn)[0] == min(last, key=lambda item: (last[item], item))


def test_retries_take_their_share_and_no_more():
    sampling = PassRateSampling(least_attempts=8, recent_attempts=8, retry_share=0.1)
    drawn = stream(range(100), batch_size=5, sampling=sampling)
    tell(drawn, 8, range(60))
    batches = [next(drawn) for _ in range(120)]
    times = Counter(item for batch in batches for item in batch if item < 60)
    # .1 × 5 × 120 places are 60: each of the sixty once.
    assert times == dict.fromkeys(range(60), 1)
    assert drawn.counts.retried == 60
    # One alone is out: it comes once in 20 batches, which an epoch of all would take.
    drawn = stream(range(100), batch_size=5, sampling=sampling)
    tell(drawn, 0, [7])
    found = [number for number in range(1, 101) if 7 in next(drawn)]
    # A place is there in every second batch.
    assert found == [2, 22, 42, 62, 82]
    assert drawn.counts.retried == 5


def test_a_batch_is_filled_uniformly_where_too_few_are_left():
    drawn = stream(range(40), batch_size=4)
    tell(drawn, 0, range(20))
    tell(drawn, 8, range(20, 40))
    times = Counter()
    for number in range(1, 501):
        batch = next(drawn)
        assert len(set(batch)) == 4
        times.update(batch)
        assert drawn.counts.filled == 4 * number
    # 2,000 places for 40: 50 each, with a standard deviation below 7.
    assert len(times) == 40
    assert all(abs(count - 50) < 35 for count in times.values())
    tell(drawn, 4, [0, 30])
    batches = [next(drawn) for _ in range(10)]
    assert all({0, 30} <= set(batch) and len(set(batch)) == 4 for batch in batches)
    assert drawn.counts.filled == 2_000 + 20


def test_the_middle_is_preferred_on_demand():
    """31 of 64 against 1 of 64: 4p(1-p) is 1.00 (32/66) against .118 (2/66)."""
    sampling = PassRateSampling(prefer_middle=True)
    drawn = stream(range(200), batch_size=5, sampling=sampling)
    tell(drawn, 31, range(100), judged=64)
    tell(drawn, 1, range(100, 200), judged=64)
    times = Counter(item < 100 for _ in range(400) for item in next(drawn))
    # About 240 of 2,000 at .118 : 1; four standard deviations are below 60.
    assert abs(times[False] / times[True] - 0.118) < 0.03
    assert drawn.counts.filled == 0
    plain = stream(range(200), batch_size=5)
    tell(plain, 1, range(100, 200), judged=64)
    times = Counter(item < 100 for _ in range(400) for item in next(plain))
    assert times[True] == times[False] == 1_000


def test_a_batch_of_rare_problems_is_full_all_the_same():
    sampling = PassRateSampling(prefer_middle=True, lowest=0.0, recent_attempts=4_096)
    drawn = stream(range(6), batch_size=6, sampling=sampling)
    tell(drawn, 1, range(6), judged=4_096)
    assert [sorted(next(drawn)) for _ in range(3)] == [list(range(6))] * 3
    assert drawn.counts.filled == 0


class Prover:
    """Solves item i with probability i / 19, and learns."""

    def __init__(self, seed):
        self._rng = np.random.default_rng(seed)

    def attempt(self, item, batch):
        return int(self._rng.binomial(8, min(item / 19 + batch / 200, 1.0)))


@settings(max_examples=20, deadline=None)
@given(
    stop=st.integers(0, 30),
    late=st.integers(0, 3),
    share=st.sampled_from([0.0, 0.1, 0.3]),
    middle=st.booleans(),
)
def test_state_resumes_exactly_through_json(stop, late, share, middle):
    """Results come `late` batches behind, as they do where sampling runs ahead."""
    sampling = PassRateSampling(
        least_attempts=16, recent_attempts=24, retry_share=share, prefer_middle=middle
    )
    prover = Prover(stop)
    drawn = stream(range(20), batch_size=3, sampling=sampling)
    batches, results, state = [], [], None
    for number in range(60):
        if number == stop:
            state = json.loads(json.dumps(drawn.get_state()))
        batches.append(next(drawn))
        results.append([prover.attempt(item, number) for item in batches[-1]])
        if number >= late:
            report(drawn, batches[number - late], results[number - late])
    again = stream(range(20), batch_size=3, sampling=sampling)
    next(again)
    tell(again, 0, range(20))  # nothing of this may stay
    again.set_state(state)
    for number in range(stop, 60):
        assert next(again) == batches[number]
        if number >= late:
            report(again, batches[number - late], results[number - late])
    assert again.counts == drawn.counts
    assert again.get_state() == drawn.get_state()


def report(drawn, batch, results):
    for item, passed in zip(batch, results, strict=True):
        drawn.observe(item, passed=passed, judged=8)


def test_the_state_of_another_stream_is_refused():
    state = stream().get_state()
    for other in (
        stream("abcdefg"),
        stream(batch_size=3),
        stream(seed=4),
        stream(sampling=PassRateSampling()),
    ):
        with pytest.raises(CheckpointError, match=r"state of a stream of .*'seed': "):
            other.set_state(state)


def test_settings_of_numpy_are_saved_as_json():
    drawn = stream(
        batch_size=np.int64(2),
        seed=np.int64(1),
        sampling=PassRateSampling(lowest=np.float32(0.5)),
    )
    tell(drawn, np.int64(1), "a", judged=np.int64(2))
    assert json.loads(json.dumps(drawn.get_state())) == drawn.get_state()


def test_it_is_a_stream_of_batches():
    drawn: BatchStream[str] = stream()
    assert iter(drawn) is drawn


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"lowest": -0.1}, "lowest to be a finite number at least 0"),
        ({"highest": 1.5}, "highest to be a finite number"),
        ({"lowest": 0.5, "highest": 0.5}, "lowest to be below highest"),
        ({"least_attempts": 0}, "least_attempts to be an integer"),
        ({"recent_attempts": 31}, "at least least_attempts = 32, got 31"),
        ({"retry_share": 2}, "retry_share to be a finite number"),
        ({"prefer_middle": 1}, "prefer_middle to be one of True, False"),
    ],
)
def test_bad_sampling(bad, message):
    with pytest.raises(ConfigError, match=message):
        PassRateSampling(**bad)


def test_bad_streams_and_results():
    with pytest.raises(ConfigError, match="of 8 items to be an integer from 1 to 8"):
        stream(batch_size=9)
    with pytest.raises(ConfigError, match="seed to be an integer from 0"):
        stream(seed=-1)
    with pytest.raises(ConfigError, match="items that differ, got 3 of which 2 do"):
        stream("aba", batch_size=1)
    drawn = stream()
    with pytest.raises(ConfigError, match="an item of this stream, got 'z'"):
        tell(drawn, 0, "z")
    with pytest.raises(ConfigError, match="passed to be an integer from 0 to 8"):
        tell(drawn, 9, "a")
    with pytest.raises(ConfigError, match="judged to be an integer of at least 0"):
        tell(drawn, 0, "a", judged=-1)
