"""Order, retries and failures of the pool, without Lean."""

import threading
import time
from concurrent.futures import CancelledError
from dataclasses import replace

import pytest

from fdjax.errors import BackendError
from fdjax.lean import Cancellation, CheckRequest, FakeBackend, WorkerDiedError
from fdjax.lean.backends.fake import accepted, rejected
from fdjax.lean.engine.pool import WorkerPool

REQUEST = CheckRequest(name="t", header="", statement="theorem t : True", proof="")


def requests(count):
    return [replace(REQUEST, proof=str(number)) for number in range(count)]


@pytest.fixture
def make_pool():
    pools = []

    def make(factory, workers=2):
        pools.append(WorkerPool(factory, workers))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def test_answers_keep_the_order_of_the_requests(make_pool):
    def answer(request):
        # Later requests are answered first.
        time.sleep(0.02 if request.proof == "0" else 0.0)
        return replace(accepted(), seconds=float(request.proof))

    received = []
    answers = make_pool(lambda: FakeBackend(answer)).run(
        requests(20), lambda index, _: received.append(index)
    )
    assert [answer.seconds for answer in answers] == list(range(20))
    assert sorted(received) == list(range(20))


@pytest.mark.parametrize(("deaths", "dies_for_good"), [(1, False), (2, True)])
def test_one_death_is_retried_and_two_are_a_crash(make_pool, deaths, dies_for_good):
    left = [deaths]

    def answer(request):
        if request.proof == "3" and left[0]:
            left[0] -= 1
            raise WorkerDiedError("killed")
        return rejected()

    pool = make_pool(lambda: FakeBackend(answer), workers=1)
    answers = pool.run(requests(6))
    crashed = [isinstance(answer, WorkerDiedError) for answer in answers]
    assert crashed == [False, False, False, dies_for_good, False, False]
    assert pool.deaths == deaths


@pytest.mark.parametrize(
    ("exhausted", "memory"), [((True, True), True), ((False, True), False)]
)
def test_lean_that_says_twice_that_its_memory_is_used_up(make_pool, exhausted, memory):
    left = list(exhausted)

    def die(request):
        raise WorkerDiedError("gone", exhausted=left.pop(0))

    [answer] = make_pool(lambda: FakeBackend(die), workers=1).run(requests(1))
    assert getattr(answer, "out_of_memory", False) is memory


def test_a_worker_that_cannot_start_fails_the_batch_only(make_pool):
    class Unwilling(FakeBackend):
        willing = False

        def check(self, request):
            if not self.willing:
                raise BackendError("no memory")
            return super().check(request)

    pool = make_pool(Unwilling)
    with pytest.raises(BackendError, match="no memory"):
        pool.run(requests(5))
    Unwilling.willing = True
    assert len(pool.run(requests(5))) == 5


def test_an_interrupted_batch_leaves_the_pool_usable(make_pool):
    asked = []

    def answer(request):
        asked.append(request.proof)
        time.sleep(0.005)
        return accepted()

    def interrupt(index, _):
        raise KeyboardInterrupt

    pool = make_pool(lambda: FakeBackend(answer))
    with pytest.raises(KeyboardInterrupt):
        pool.run(requests(200), interrupt)
    assert len(pool.run(requests(3))) == 3
    assert len(asked) < 30


def test_two_threads_share_a_pool(make_pool):
    pool = make_pool(
        lambda: FakeBackend(lambda r: replace(accepted(), seconds=float(r.proof)))
    )
    results = {}

    def run(name, count):
        results[name] = [answer.seconds for answer in pool.run(requests(count))]

    threads = [threading.Thread(target=run, args=(n, 50 + n)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: list(range(50 + n)) for n in range(3)}


def test_a_closed_pool_says_so_and_its_backends_are_closed():
    backends = []

    def factory():
        backends.append(FakeBackend())
        return backends[-1]

    pool = WorkerPool(factory, 2)
    pool.start()
    assert [backend.running for backend in backends] == [True, True]
    pool.close()
    assert [backend.running for backend in backends] == [False, False]
    with pytest.raises(BackendError, match="closed"):
        pool.run(requests(1))


def test_closing_answers_what_was_still_waiting():
    begun = threading.Event()

    def answer(request):
        begun.set()
        time.sleep(0.05)
        return accepted()

    pool = WorkerPool(lambda: FakeBackend(answer), 1)
    answers = []
    thread = threading.Thread(target=lambda: answers.extend(pool.run(requests(50))))
    thread.start()
    begun.wait()
    pool.close()
    thread.join(5)
    assert not thread.is_alive()
    assert len(answers) == 50
    assert isinstance(answers[-1], WorkerDiedError)


def test_a_cancelled_call_ends_at_once_and_drops_what_has_not_begun(make_pool):
    begun, go_on = [], threading.Event()

    def answer(request):
        begun.append(request.proof)
        go_on.wait(10)
        return accepted()

    pool = make_pool(lambda: FakeBackend(answer), workers=1)
    cancellation = Cancellation()
    threading.Timer(0.1, cancellation.cancel).start()
    with pytest.raises(CancelledError):
        pool.run(requests(5), cancellation=cancellation)
    with pytest.raises(CancelledError):
        pool.run(requests(1), cancellation=cancellation)
    go_on.set()
    # The worker is free for others, and never saw the rest.
    assert pool.run([replace(REQUEST, proof="other")]) == [accepted()]
    assert begun == ["0", "other"]


def test_a_worker_is_not_started_while_it_checks(make_pool):
    class Watchful(FakeBackend):
        checking = False

        def start(self):
            assert not self.checking
            super().start()

        def check(self, request):
            self.checking = True
            time.sleep(0.2)
            self.checking = False
            return super().check(request)

    pool = make_pool(Watchful)
    thread = threading.Thread(target=pool.run, args=(requests(2),))
    thread.start()
    time.sleep(0.05)
    pool.start()
    thread.join()
