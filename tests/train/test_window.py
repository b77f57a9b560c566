"""Sums of metrics go through a checkpoint without losing a bit."""

import json

import numpy as np
import pytest

from fdjax.records import Mean
from fdjax.train import IdleError
from fdjax.train.window import Window


def taken(value, *, skipped=0.0, empty=0.0):
    """Metrics of a step, float32 as a device has them."""
    one = np.float32(1)
    return {
        "train/loss": Mean(np.float32(value), one),
        "train/skipped": Mean(np.float32(skipped), one),
        "train/empty": Mean(np.float32(empty), one),
    }


def means(cut=None):
    """Of five iterations, with a checkpoint before one of them."""
    window = Window()
    for index in range(5):
        if index == cut:
            window = Window.from_state(json.loads(json.dumps(window.get_state())))
        host = {"reward/mean": Mean(index, 3), "test/nothing": Mean(float("nan"), 1)}
        window = window.add(host, [taken(0.1 * index), taken(0.7)])
    assert window.emptied().means() == {}
    return window.means()


@pytest.mark.parametrize("cut", range(5))
def test_means_do_not_depend_on_where_a_checkpoint_was(cut):
    assert json.dumps(means(cut)) == json.dumps(means())


def test_means_are_summed_in_float64():
    found = means()
    assert found["reward/mean"] == 20 / 30
    values = [float(np.float32(0.1 * i)) + float(np.float32(0.7)) for i in range(5)]
    assert found["train/loss"] == pytest.approx(sum(values) / 10, rel=1e-15)
    assert np.isnan(found["test/nothing"])


def test_an_iteration_is_idle_if_none_of_its_steps_was_taken():
    window = Window()
    for steps in (
        [taken(1.0), taken(0.0, skipped=1.0)],
        [taken(0.0, skipped=1.0), taken(0.0, empty=1.0)],
        [taken(0.0, skipped=1.0)],
    ):
        window = window.add({}, steps)
    window = window.emptied()
    window.check(3)
    with pytest.raises(
        IdleError, match=r"none in 2 iterations.*in 2 steps loss.*in 1 steps nothing"
    ):
        window.check(2)
    window.add({}, [taken(1.0)]).settled().check(1)


def test_an_iteration_without_batches_is_idle():
    with pytest.raises(IdleError, match="there were no batches"):
        Window().add({}, []).settled().check(1)
