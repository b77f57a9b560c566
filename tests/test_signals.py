import os
import signal

import pytest

from fdjax.signals import first_stop_signal


@pytest.fixture
def others():
    """Signals that reach the handlers from before."""
    got = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {
        number: signal.signal(number, lambda number, _: got.append(number))
        for number in numbers
    }
    yield got
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_the_first_is_answered_and_a_second_acts_at_once(others, first, second):
    answered = []
    with first_stop_signal(answered.append):
        os.kill(os.getpid(), first)
        assert (answered, others) == ([first], [])
        os.kill(os.getpid(), second)
    assert (answered, others) == ([first], [second])


def test_afterwards_signals_go_where_they_went_before(others):
    answered = []
    with pytest.raises(KeyError), first_stop_signal(answered.append):
        {}["absent"]
    os.kill(os.getpid(), signal.SIGTERM)
    assert (answered, others) == ([], [signal.SIGTERM])
