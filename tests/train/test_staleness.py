"""Sampling that runs ahead: by which weights, beside what, and what is kept of it."""

import asyncio
import copy
import gc
import json
import os
import signal
import threading
import weakref
from concurrent.futures import CancelledError, Future

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scripted
from fdjax.errors import ConfigError, DataError
from fdjax.feedback import Feedback
from fdjax.judge import Judgement
from fdjax.metrics import StageTimer
from fdjax.records import Mean
from fdjax.rollout import Pending
from fdjax.train import (
    FD,
    RolloutSource,
    StoppedError,
    StopRequest,
    TrainState,
    needs_of,
    stop_on_signal,
)
from fdjax.train.deferred import settled
from scripted import Scripted
from tiny import PROBLEMS


class Slow:
    """Judges problems once they are let through, and counts how often."""

    def __init__(self):
        self.judged = []
        self.waiting = threading.Semaphore(0)
        self.open = threading.Event()

    async def judge(self, attempts):
        self.waiting.release()
        while not self.open.is_set():
            await asyncio.sleep(0.002)
        name = attempts[0][0].name
        self.judged.append(name)
        return [
            Judgement(reward=float(member), passed=bool(member))
            for member, _ in enumerate(attempts)
        ]


class Saying:
    def __init__(self):
        self.asked = []

    async def write(self, group):
        self.asked.append(group[0].problem.name)
        return [Feedback(parts=(f"hint {self.asked[-1]}",)) for _ in group]


def parts():
    judge, writer = Slow(), Saying()
    pipeline = scripted.pipeline(Scripted(["  skip", "  trivial"]), judge, writer)
    return pipeline, judge, writer


def source(pipeline, staleness=1, **changes):
    settings = {"problems_per_step": 2, "group_size": 2, "seed": 0} | changes
    return RolloutSource(
        PROBLEMS,
        pipeline,
        needs=needs_of((FD(),)),
        updates_per_rollout=1,
        teacher_width=96,
        staleness=staleness,
        **settings,
    )


def state(step):
    return TrainState(
        params=f"weights {step}",
        opt_state=(),
        teacher=None,
        step=jnp.int32(step),
        key=jax.random.key(5),
    )


def iterations(given, steps):
    """What each trains on, as far as it must not depend on time."""
    found = []
    for step in steps:
        data = given.next(state(step), StageTimer())
        [batch] = data.batches
        found.append(
            {
                "problems": [group[0].problem.name for group in data.rollout.groups],
                "versions": [e.episode.version for e in data.rollout.trajectories],
                "staleness": data.metrics["rollout/staleness"],
                "arrays": [
                    np.asarray(leaf).tolist() for leaf in jax.tree.leaves(batch)
                ],
            }
        )
    return found


@pytest.mark.parametrize("staleness", [0, 1, 2])
def test_an_iteration_has_the_weights_of_k_iterations_before(staleness):
    pipeline, judge, _ = parts()
    judge.open.set()
    fresh = iterations(source(pipeline, 0), range(6))
    found = iterations(source(pipeline, staleness, iterations=6), range(6))
    for step, (one, of_fresh) in enumerate(zip(found, fresh, strict=True)):
        version = max(0, step - staleness)
        assert one["versions"] == [version] * 4
        assert one["staleness"] == Mean(4 * (step - version), 4)
        # The order of the problems is the same.
        assert one["problems"] == of_fresh["problems"]
    # Beyond the last iteration nothing is sampled.
    assert len(judge.judged) == 2 * 2 * 6


def test_the_devices_go_on_while_judges_are_at_work():
    pipeline, judge, _ = parts()
    given = source(pipeline)
    timer = StageTimer()
    taken = Future()
    thread = threading.Thread(
        target=lambda: taken.set_result(given.next(state(0), timer))
    )
    thread.start()
    # The groups of both rollouts are with the judge, who has answered for none.
    for _ in range(4):
        assert judge.waiting.acquire(timeout=20)
    assert len(pipeline.sampler.published) == 2
    assert not taken.done()
    judge.open.set()
    data = taken.result(timeout=20)
    thread.join()
    judged = {group[0].problem.name for group in data.rollout.groups}
    assert judged < set(judge.judged)
    assert {"time/sample_s", "time/wait_s"} <= timer.take().keys()


@pytest.mark.parametrize("staleness", [1, 2])
def test_a_position_holds_what_is_ahead_and_nobody_is_asked_twice(staleness):
    pipeline, judge, _ = parts()
    judge.open.set()
    whole = iterations(source(pipeline, staleness, iterations=7), range(7))
    pipeline, judge, writer = parts()
    judge.open.set()
    first = source(pipeline, staleness, iterations=7)
    begin = iterations(first, range(3))
    # Whatever is ahead has been judged by now.
    for pending in first.get_state()["ahead"]["flights"]:
        pending.result()
    position = json.loads(json.dumps(settled(copy.deepcopy(first.get_state()))))
    asked, judged = len(writer.asked), len(judge.judged)
    again = source(pipeline, staleness, iterations=7)
    again.set_state(position)
    assert begin + iterations(again, range(3, 7)) == whole
    new = 2 * (7 - 3 - staleness)
    assert (len(writer.asked) - asked, len(judge.judged) - judged) == (new, new)


def test_a_position_waits_for_nobody_and_what_was_left_is_judged_then():
    pipeline, judge, _ = parts()
    judge.open.set()
    whole = iterations(source(pipeline), range(3))
    pipeline, judge, _ = parts()
    judge.open.set()
    given = source(pipeline)
    begin = iterations(given, range(1))
    for pending in given.get_state()["ahead"]["flights"]:
        pending.result()
    judge.open.clear()
    # A second one begins, whose judge does not answer.
    thread = threading.Thread(target=given.next, args=(state(1), StageTimer()))
    thread.start()
    for _ in range(6):
        assert judge.waiting.acquire(timeout=20)
    thread.join(timeout=20)
    [pending] = given.get_state()["ahead"]["flights"]
    assert pending.unfinished == 2
    position = json.loads(json.dumps(settled(given.get_state())))
    given.drop()
    judge.open.set()
    again = source(pipeline)
    again.set_state(position)
    assert [*begin, whole[1], *iterations(again, [2])] == whole


def test_positions_of_other_problems_or_staleness_are_refused():
    pipeline, judge, _ = parts()
    judge.open.set()
    given = source(pipeline)
    iterations(given, range(1))
    position = settled(given.get_state())
    with pytest.raises(ValueError, match="staleness was 1, now 2"):
        source(pipeline, 2).set_state(position)
    for flight in position["ahead"]["flights"]:
        flight["problems"][0] = "0" * 16
    with pytest.raises(DataError, match="1 of other problems"):
        source(pipeline).set_state(position)
    with pytest.raises(ConfigError, match="staleness"):
        source(pipeline, -1)


def test_no_more_than_k_and_one_rollouts_are_held():
    """The bound of memory, whatever judges do."""
    pipeline, judge, _ = parts()
    judge.open.set()
    given, alive = source(pipeline, 2), []
    for step in range(6):
        data = given.next(state(step), StageTimer())
        alive += [
            weakref.ref(pending) for pending in given.get_state()["ahead"]["flights"]
        ]
        del data
        gc.collect()
        held = {id(ref()) for ref in alive if ref() is not None}
        assert len(held) <= 2


@pytest.mark.parametrize("staleness", [0, 1])
def test_a_stop_does_not_wait_for_judges(staleness):
    pipeline, judge, _ = parts()
    stop = StopRequest()
    given = source(scripted.replace(pipeline, watch=stop.watch), staleness)

    def ask():
        for _ in range(2 + 2 * staleness):
            judge.waiting.acquire()
        stop.ask(signal.SIGTERM)

    threading.Thread(target=ask).start()
    with pytest.raises(StoppedError) as stopped:
        given.next(state(0), StageTimer())
    assert stopped.value.signal == signal.SIGTERM
    assert not judge.judged


def test_a_signal_may_come_while_its_thread_holds_a_lock_of_the_work():
    """What cancels would wait for the lock, and its holder for the handler."""
    work, lock, taken = Future(), threading.Lock(), []
    work.add_done_callback(lambda _: taken.append(lock.acquire(timeout=10)))

    def waits():
        with stop_on_signal() as stop, stop.watch(work):
            with lock:
                os.kill(os.getpid(), signal.SIGTERM)
            work.result(timeout=20)

    with pytest.raises(StoppedError) as stopped:
        waits()
    assert stopped.value.signal == signal.SIGTERM
    assert taken == [True]


def test_nothing_is_exchanged_for_a_gap_that_nobody_measures(monkeypatch):
    """On several processes that would be all groups, sent to all."""
    pipeline, judge, _ = parts()
    judge.open.set()
    monkeypatch.delattr(Pending, "sampled")
    assert "rollout/logprob_gap" not in iterations(source(pipeline), [0])[0]


def test_work_that_is_cancelled_otherwise_is_no_stop():
    def cancelled(work):
        with StopRequest().watch(work):
            work.cancel()
            work.result()

    with pytest.raises(CancelledError):
        cancelled(Future())
