"""Stops that several processes decide together."""

import signal

import pytest

from fdjax.train import StoppedError, StopRequest, interrupt


def test_a_stop_that_comes_while_all_decide_is_for_the_next_time(monkeypatch):
    """Or this process would stop, and the other one go on: it was told of none."""
    stop = StopRequest()

    def gather(told):
        if not stop.requested:
            stop.ask(signal.SIGTERM)
        return [b"0 0", told]

    monkeypatch.setattr(interrupt, "gather", gather)
    stop.check()
    with pytest.raises(StoppedError) as stopped:
        stop.check()
    assert stopped.value.signal == signal.SIGTERM
