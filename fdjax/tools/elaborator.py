"""Lean for tools: the verifier's own workers, waited for on an event loop."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from fdjax.lean import Cancellation, Elaboration, Limits, Verifier

__all__ = ["Elaborator"]


@dataclass(frozen=True, kw_only=True)
class Elaborator:
    """Has files elaborated by a verifier: its scan, its sandbox, its workers."""

    verifier: Verifier
    limits: Limits
    """What each file may use."""

    async def elaborate(self, sources: Sequence[str]) -> list[Elaboration]:
        """What Lean says of each file, in order; nothing is decided about any.

        When the task is cancelled, files that no worker has begun are dropped.

        Raises:
          BackendError, InstallError: Lean cannot be started.
        """
        cancellation = Cancellation()
        # Not the loop's own executor: its threads are as few as the cores.
        executor = ThreadPoolExecutor(1, thread_name_prefix="tools")
        try:
            return await asyncio.get_running_loop().run_in_executor(
                executor,
                lambda: self.verifier.elaborate(
                    sources, limits=self.limits, cancellation=cancellation
                ),
            )
        finally:
            cancellation.cancel()
            executor.shutdown(wait=False)
