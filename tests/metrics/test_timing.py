import threading

import pytest

from fdjax.metrics import StageTimer


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_stages_add_up_and_start_afresh():
    clock = Clock()
    timer = StageTimer(clock)
    for seconds in (1.0, 2.5):
        with timer.stage("verify"):
            clock.now += seconds
    with timer.stage("step"):
        clock.now += 4.0
        with timer.stage("save"):
            clock.now += 0.5
    assert timer.take() == {
        "time/verify_s": 3.5,
        "time/step_s": 4.5,
        "time/save_s": 0.5,
    }
    assert timer.take() == {}


def test_a_stage_that_fails_is_timed():
    clock = Clock()
    timer = StageTimer(clock)

    def fail():
        with timer.stage("sample"):
            clock.now += 3.0
            raise ValueError("lost")

    with pytest.raises(ValueError, match="lost"):
        fail()
    assert timer.take() == {"time/sample_s": 3.0}


def test_threads_share_a_stage():
    timer = StageTimer(iter(range(1000)).__next__)

    def work():
        for _ in range(50):
            with timer.stage("verify"):
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Each of the 200 entries spans at least one tick of the counting clock.
    assert timer.take()["time/verify_s"] >= 200
