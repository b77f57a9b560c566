"""A process that runs a checker of ours and speaks JSON lines."""

import json
import math
import secrets
import time
from typing import Any

from fdjax.lean.facts.backend import RawReport, Request, WorkerDiedError
from fdjax.lean.facts.record import fields_of, report_of
from fdjax.lean.sandbox.confinement import Confinement
from fdjax.lean.sandbox.process import LeanProcess, in_own_time, read_object

__all__ = ["CheckerProcess"]

TRUSTED_S = 190.0
"""Longest wait for a header and a statement: the checker gives each a minute, and
importing a large library takes time, too."""
LINE_BYTES = 1 << 20
LINE_FACTOR = 256
"""Longest line that a checker may print: so much, and so much more for each byte of
output that it may show, since a message of one byte has a position and a kind."""
RENDER_S = 0.15
"""What the checker may take to print messages after the proof's own time."""


class CheckerProcess(LeanProcess):
    """A backend whose process checks by itself: it is asked once for each request.

    It says when it is ready, when a proof's own time begins, and what came out. What
    it says about a request carries a nonce that no submission can know.
    """

    def __init__(
        self,
        *,
        grace_s: float,
        start_timeout_s: float,
        confinement: Confinement | None = None,
        most_memory_mb: int | None = None,
        most_heap: float = math.inf,
        most_answers: float = math.inf,
    ) -> None:
        """Prepare; `start` does the work.

        Args:
          grace_s: time between Lean's own cancellation and a hard kill, seconds.
          start_timeout_s: longest wait for the process to become ready, seconds.
          confinement: kind of sandbox; the strongest that works here by default.
          most_memory_mb: what it can use of the memory that a request allows, in MiB.
          most_heap: a process whose heap has grown past this part of its memory is
            replaced.
          most_answers: requests after which a process is replaced.
        """
        super().__init__(confinement=confinement, most_memory_mb=most_memory_mb)
        self._grace_s = grace_s
        self._start_timeout_s = start_timeout_s
        self._most_heap = most_heap
        self._most_answers = most_answers
        self._answers = 0

    def _make_ready(self) -> None:
        assert self._child is not None
        self._answers = 0
        deadline = time.monotonic() + self._start_timeout_s
        answer = read_object(self._child, b"\n", deadline, LINE_BYTES)
        if not answer.get("ready"):
            raise self._child.lost(f"answered {str(answer)[:1000]}", "ended")

    def _elaborate(self, request: Request) -> RawReport:
        assert self._child is not None
        child = self._child
        nonce = secrets.token_hex(8)
        limits = request.limits
        longest = LINE_BYTES + LINE_FACTOR * limits.output_bytes

        def answer_by(deadline: float) -> dict[str, Any]:
            """The next line that carries our nonce."""
            while True:
                answer = read_object(child, b"\n", deadline, longest)
                if nonce in (answer.get("nonce"), answer.get("started")):
                    return answer

        line = json.dumps({"nonce": nonce, **fields_of(request)}).encode() + b"\n"
        child.write(line, time.monotonic() + TRUSTED_S)
        answer = answer_by(time.monotonic() + TRUSTED_S)
        begin = time.monotonic()
        in_proof = "started" in answer
        if in_proof:
            answer = in_own_time(answer_by, limits.wall_s, self._grace_s + RENDER_S)
        if isinstance(answer, RawReport):
            return answer
        if "crash" in answer:
            self.close()
            if in_proof and answer["out_of_memory"]:
                seconds = time.monotonic() - begin
                return RawReport(out_of_memory=True, seconds=seconds)
            raise WorkerDiedError(f"Lean failed: {answer['crash']}")
        self._answers += 1
        heap = answer.get("heap_mb", 0) / self._memory_mb
        if heap > self._most_heap or self._answers >= self._most_answers:
            self.close()
        return report_of(answer)
