"""What every backend must do, and what the verifier adds around it."""

import asyncio
import math
import threading
import time

import pytest

from fdjax.errors import ConfigError, DataError, InstallError
from fdjax.lean import FakeBackend, Status, Verifier, WorkerDiedError
from fdjax.lean.backends.fake import accepted
from lean.corpus import problem

TRIVIAL = problem("theorem easy : True")
BROKEN = problem("theorem bad : broken")


@pytest.fixture(params=["fake", "wasm"])
def any_verifier(request):
    """The contract holds for the real Lean and for the fake."""
    if request.param == "wasm":
        yield request.getfixturevalue("verifier")
    else:
        with Verifier(FakeBackend, workers=2) as verifier:
            yield verifier


def test_statuses_and_order(any_verifier):
    proofs = ["  trivial", "  exact 1", "  sorry", "  native_decide", "  trivial"]
    verdicts = any_verifier.verify([(TRIVIAL, proof) for proof in proofs])
    assert [verdict.status for verdict in verdicts] == [
        Status.VERIFIED,
        Status.REJECTED,
        Status.REJECTED,
        Status.UNSAFE,
        Status.VERIFIED,
    ]
    assert verdicts[0].verified
    assert verdicts[1].errors
    assert verdicts[1].errors[0].in_proof
    assert verdicts[2].axioms == ("sorryAx",)
    assert verdicts[3].seconds == 0.0
    assert all(verdict.reason for verdict in verdicts[1:4])


def test_empty_batch(any_verifier):
    assert any_verifier.verify([]) == []


def test_broken_statements_are_told_from_failed_proofs(any_verifier):
    good, bad = any_verifier.check_statements([TRIVIAL, BROKEN])
    assert good.ok
    assert good.reason == ""
    assert not bad.ok
    assert "does not elaborate" in bad.reason
    with pytest.raises(DataError, match="bad: the statement does not elaborate"):
        any_verifier.verify([(BROKEN, "  trivial"), (TRIVIAL, "  trivial")])
    for _ in range(2):
        masked, counted = any_verifier.verify(
            [(BROKEN, "  trivial"), (TRIVIAL, "  simp_")], broken_statements="reject"
        )
        assert (masked.broken_statement, masked.missing) == (True, True)
        assert "does not elaborate" in masked.reason
        assert not masked.cached
        assert (counted.broken_statement, counted.missing) == (False, False)


def test_equal_items_are_elaborated_once():
    backends = []

    def factory():
        backends.append(FakeBackend())
        return backends[-1]

    finished = []
    with Verifier(factory, workers=2) as verifier:
        items = [(TRIVIAL, "  trivial"), (TRIVIAL, "  simp")] * 10
        verdicts = verifier.verify(items, finished.append)
        assert sum(len(backend.requests) for backend in backends) == 2
        assert [verdict.verified for verdict in verdicts] == [True, False] * 10
        assert finished == [10, 20]
        assert verifier.statistics.checked == 2
        again = verifier.verify(items, finished.append)
        assert all(verdict.cached for verdict in again)
        assert finished[-1] == 20
        assert verifier.statistics.cached == 20
        assert verifier.statistics.seconds > 0


def test_each_item_is_told_once_as_it_is_decided():
    items = [(TRIVIAL, "  trivial"), (TRIVIAL, "  unsafe"), (BROKEN, "  trivial")] * 2
    with Verifier(FakeBackend, workers=2) as verifier:
        for _ in range(2):
            told = []
            verdicts = verifier.verify(
                items,
                decided=lambda *item, told=told: told.append(item),
                broken_statements="reject",
            )
            assert sorted(index for index, _ in told) == list(range(6))
            assert all(verdicts[index] is verdict for index, verdict in told)
        # Two items in each of two calls.
        assert verifier.statistics.broken_statements == 4


def test_the_cache_file_outlives_the_verifier(tmp_path):
    path = tmp_path / "verdicts.sqlite"
    items = [(TRIVIAL, "  trivial"), (TRIVIAL, "  simp"), (TRIVIAL, "  native_decide")]
    with Verifier(FakeBackend, cache_path=path) as verifier:
        first = verifier.verify(items)

    def fail(request):
        raise AssertionError("asked although the answer is known")

    with Verifier(lambda: FakeBackend(fail), cache_path=path) as verifier:
        second = verifier.verify(items)
    assert [verdict.cached for verdict in first] == [False] * 3
    assert [verdict.cached for verdict in second] == [True] * 3
    assert [v.status for v in second] == [v.status for v in first]
    assert [v.diagnostics for v in second] == [v.diagnostics for v in first]


def test_crashes_are_counted_not_cached():
    dying = [True]

    def answer(request):
        if dying[0]:
            raise WorkerDiedError("gone")
        return FakeBackend().check(request)

    with Verifier(lambda: FakeBackend(answer), workers=1) as verifier:
        [verdict] = verifier.verify([(TRIVIAL, "  trivial")])
        assert verdict.status is Status.CRASHED
        assert verifier.statistics.crashed == 1
        assert verifier.statistics.restarts == 2
        dying[0] = False
        [verdict] = verifier.verify([(TRIVIAL, "  trivial")])
        assert verdict.verified


@pytest.mark.parametrize("workers", [0, -1, 2.5, math.nan, True, 10**9, "2"])
def test_impossible_workers_are_refused(workers):
    with pytest.raises(ConfigError, match=r"Verifier\.workers to be an integer from 1"):
        Verifier(FakeBackend, workers=workers)


def test_many_tasks_wait_for_verdicts_at_once():
    """More than the event loop's own executor has threads."""
    together = threading.Barrier(40)

    def answer(request):
        together.wait(10)
        return accepted()

    async def main(verifier):
        return await asyncio.gather(
            *(verifier.averify([(TRIVIAL, f"  exact {n}")]) for n in range(40))
        )

    with Verifier(lambda: FakeBackend(answer), workers=40) as verifier:
        verdicts = asyncio.run(main(verifier))
    assert [verdict.verified for [verdict] in verdicts] == [True] * 40


def test_a_cancelled_task_drops_what_has_not_begun():
    asked = []

    def answer(request):
        asked.append(request.proof)
        time.sleep(0.1)
        return accepted()

    async def main(verifier):
        told = []
        items = [(TRIVIAL, f"  exact {n}") for n in range(100)]
        task = verifier.averify(items, decided=lambda i, verdict: told.append(i))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(task, 0.35)
        return told

    with Verifier(lambda: FakeBackend(answer), workers=1) as verifier:
        begin = time.monotonic()
        told = asyncio.run(main(verifier))
        assert time.monotonic() - begin < 5
        assert verifier.verify([(TRIVIAL, "  exact 0")])[0].cached
    assert 1 <= len(told) <= len(asked) < 10


def test_a_verifier_that_cannot_be_made_leaves_no_threads():
    class Nameless(FakeBackend):
        @property
        def identity(self):
            raise InstallError("no Lean")

    before = threading.active_count()
    with pytest.raises(InstallError, match="no Lean"):
        Verifier(Nameless, workers=4)
    assert threading.active_count() == before
