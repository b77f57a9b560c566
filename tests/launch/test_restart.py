"""One rule says after which ends a run goes on, wherever it was launched."""

import signal

import pytest

from fdjax.run.command import RESTART
from tpu.restart import AGAIN, exit_code, starts_again


def test_what_a_run_itself_calls_lost_starts_again():
    assert RESTART in AGAIN
    assert starts_again(RESTART)


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGABRT", "SIGSEGV"])
def test_signals_that_take_a_process_away_start_it_again(name):
    number = signal.Signals[name]
    assert exit_code(-number) == 128 + number
    assert starts_again(-number)
    # As a shell, Kubernetes and SkyPilot report it.
    assert starts_again(128 + number)


@pytest.mark.parametrize("code", [0, 1, 2, 126, 127, 128 + signal.SIGINT])
def test_what_people_must_see_does_not(code):
    assert exit_code(code) == code
    assert not starts_again(code)
