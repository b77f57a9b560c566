"""The prover, with something wrong on one of its processes, or on all."""

import asyncio
import os
import signal
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from experiments import prover
from fdjax.errors import DataError
from fdjax.judge import Judge, Judgement
from fdjax.lean import Status, Verdict, Verifier
from fdjax.objects import lease

FAULT, PROCESS = os.environ.get("FAULT"), os.environ.get("PROCESS")


@dataclass(frozen=True)
class Late:
    """Says of every attempt that time was up, after some."""

    judge_of_others: Judge
    here: bool = field(repr=False)
    """Whether it is on this process; all have the same judge by its settings."""
    after_s: float = 2.0

    async def judge(self, attempts):
        if not self.here:
            return await self.judge_of_others.judge(attempts)
        await asyncio.sleep(self.after_s)
        verdict = Verdict(status=Status.TIMEOUT, reason="late")
        return [Judgement(reward=0.0, verdict=verdict)] * len(attempts)


@dataclass(frozen=True)
class Broken:
    """Fails for good."""

    judge_of_others: Judge
    here: bool = field(repr=False)
    """As of `Late`."""

    async def judge(self, attempts):
        if not self.here:
            return await self.judge_of_others.judge(attempts)
        raise DataError("this host has no problems")


def kill_children(end):
    """Whatever Lean this process starts is gone at once."""
    children = Path(f"/proc/{os.getpid()}/task")
    while not end.wait(0.01):
        for task in children.glob("*/children"):
            # Threads and children may end meanwhile.
            with suppress(FileNotFoundError, ProcessLookupError):
                for child in task.read_text().split():
                    os.kill(int(child), signal.SIGKILL)


def verifier_of_its_own(*given, **more):
    """Never answers with what another process has verified."""
    return Verifier(*given, **{**more, "cache_path": None})


def task(context, of_prover=prover.task):
    if FAULT == "lean":
        prover.Verifier = verifier_of_its_own
    given = of_prover(context)
    here = str(context.config.processes.index) == PROCESS
    kinds = {"late": Late, "slow": partial(Late, after_s=90.0), "broken": Broken}
    if FAULT in kinds:
        return replace(given, judge=kinds[FAULT](given.judge, here))
    if FAULT == "lean" and here:
        threading.Thread(
            target=kill_children, args=(threading.Event(),), daemon=True
        ).start()
    return given


if __name__ == "__main__":
    if FAULT == "killed":
        # Whoever is killed is missed soon.
        lease.BEAT_S, lease.STALE_S = 0.5, 3.0
    prover.task = task
    sys.exit(prover.main())
