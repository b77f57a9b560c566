import json

import pytest

from fdjax.data.pipeline import batches
from fdjax.errors import ConfigError


def test_epochs_are_permutations_in_different_orders():
    items = list("abcdefgh")
    stream = batches(items, batch_size=4, seed=3)
    epochs = [next(stream) + next(stream) for _ in range(3)]
    assert all(sorted(epoch) == items for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_batches_of_one():
    stream = batches("ab", batch_size=1, seed=0)
    assert sorted(next(stream) + next(stream)) == ["a", "b"]


def test_state_resumes_exactly_through_json():
    stream = batches(range(10), batch_size=3, seed=1)
    for _ in range(2):
        next(stream)
    state = json.loads(json.dumps(stream.get_state()))
    expected = [next(stream) for _ in range(5)]
    again = batches(range(10), batch_size=3, seed=1)
    again.set_state(state)
    assert [next(again) for _ in range(5)] == expected


def test_seed_decides_the_order():
    first, second = (next(batches(range(50), batch_size=9, seed=s)) for s in (0, 1))
    assert first != second


@pytest.mark.parametrize("size", [0, 11, 2.0])
def test_bad_batch_size(size):
    with pytest.raises(ConfigError, match=r"of 10 items to be an integer from 1 to 10"):
        batches(range(10), batch_size=size, seed=0)


def test_bad_seed():
    with pytest.raises(ConfigError, match="seed to be an integer from 0"):
        batches(range(10), batch_size=2, seed=-1)
