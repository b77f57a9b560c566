"""Everything goes wrong at once: no verdict is lost, misplaced or wrong."""

import os
import random
import resource
import signal
import sys
import time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from fdjax.lean import Limits, Status, Verifier, WasmBackend
from lean.corpus import FAILURES, FALSE, GIVING_UP, THEOREMS, UNSAFE, problem
from lean.embedded.test_wasm import SLOW, SLOW_PROOF, worker_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]

PROOFS = 5000
VERDICTS_PER_ACT = 300
CACHE_BYTES = 300_000
LIMITS = Limits(wall_s=4.0, memory_mb=1024)
# A number of 8 GB.
HUNGRY = (problem("theorem bomb : (1 <<< (2 ^ 36)) % 2 = 1"), "  rfl")


def items():
    """Proofs with the status each must get, no two of them equal."""
    # Long proofs would use up their time where cores are shared with chaos.
    short = [item for item in THEOREMS if len(item[1]) < 400]
    kinds = [(item, Status.VERIFIED) for item in short]
    kinds += [(item, Status.REJECTED) for item in FAILURES]
    kinds += [((FALSE, proof), Status.REJECTED) for proof in GIVING_UP]
    kinds += [((FALSE, proof), Status.UNSAFE) for proof in UNSAFE[:-3]]
    bad = {
        1000: ((SLOW, SLOW_PROOF), Status.TIMEOUT),
        2000: (HUNGRY, Status.TIMEOUT),
        3000: ((SLOW, SLOW_PROOF), Status.TIMEOUT),
    }
    for number in range(PROOFS):
        (target, proof), status = kinds[number % len(kinds)]
        if number in bad:
            (target, proof), status = bad[number]
        yield (target, f"{proof}\n-- attempt {number}"), status


class Chaos:
    """Ends, stops and confuses a worker each time that so many verdicts have come."""

    def __init__(self, backends):
        self.backends = backends
        self.done = Counter()
        self.most_worker_mb = 0
        self.random = random.Random(0)

    def receive(self, verdicts):
        acts = [self.kill, self.stop, self.babble, self.kill_the_supervisor]
        number = self.done.total()
        # By progress and not by time: a slow machine would only restart workers.
        if verdicts < (number + 1) * VERDICTS_PER_ACT:
            return
        pid = self.random.choice(self.backends).pid
        # A worker that is just being replaced is left alone until the next verdict.
        with suppress(OSError, AssertionError, TypeError):
            self.most_worker_mb = max(self.most_worker_mb, rss_mb(worker_of(pid)))
            acts[number % len(acts)](pid)
            self.done[acts[number % len(acts)].__name__] += 1

    def kill(self, pid):
        os.kill(worker_of(pid), signal.SIGKILL)

    def kill_the_supervisor(self, pid):
        os.kill(pid, signal.SIGKILL)

    def stop(self, pid):
        os.killpg(pid, signal.SIGSTOP)

    def babble(self, pid):
        with open(f"/proc/{worker_of(pid)}/fd/1", "wb") as pipe:
            pipe.write(b'{"nonce": "guess", "target": {"is_theorem": tr\nverified!\n')


def rss_mb(pid):
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


@contextmanager
def full_disk():
    """No file of this process grows beyond a limit; the cache's soon wants to."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (CACHE_BYTES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_five_thousand_proofs_in_chaos(lean_folder, tmp_path, caplog, record_property):
    backends = []

    def factory():
        backends.append(WasmBackend(lean_folder))
        return backends[-1]

    batch = list(items())
    seen = []
    cache = tmp_path / "verdicts.sqlite"
    with Verifier(factory, workers=2, limits=LIMITS, cache_path=cache) as verifier:
        verifier.start()
        before_mb = rss_mb(os.getpid())
        chaos = Chaos(backends)

        def receive(verdicts):
            seen.append(verdicts)
            chaos.receive(verdicts)

        begin = time.monotonic()
        with full_disk():
            verdicts = verifier.verify([item for item, _ in batch], receive)
        seconds = time.monotonic() - begin
        statistics = verifier.statistics
    growth_mb = rss_mb(os.getpid()) - before_mb

    assert len(verdicts) == PROOFS
    assert seen == list(range(1, PROOFS + 1))
    wrong = [
        (item[0].name, item[1], expected, verdict.status, verdict.reason)
        for (item, expected), verdict in zip(batch, verdicts, strict=True)
        if verdict.status not in (expected, Status.CRASHED)
    ]
    assert wrong == []
    # A crash is honest, but two deaths during one proof are rare.
    assert statistics.crashed <= PROOFS // 100
    assert chaos.done == dict.fromkeys(
        ["kill", "stop", "babble", "kill_the_supervisor"], 4
    )
    assert "no longer written" in caplog.text
    assert growth_mb < 100
    assert chaos.most_worker_mb < LIMITS.memory_mb + 500
    figures = {
        "seconds": round(seconds),
        "restarts": statistics.restarts,
        "crashed": statistics.crashed,
        "acts": dict(chaos.done),
        "growth_mb": round(growth_mb),
        "most_worker_mb": round(chaos.most_worker_mb),
    }
    record_property("figures", figures)
    print(figures)
