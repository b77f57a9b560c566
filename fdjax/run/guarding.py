"""The guards of a run: its alarms, and canaries through its verifier."""

import logging
from dataclasses import asdict, dataclass
from functools import cached_property, reduce

import jax

from fdjax.encoding import decode, encode
from fdjax.judge import CanaryReport, LeanJudge, check_canaries
from fdjax.run.config import RunConfig
from fdjax.run.context import RunContext
from fdjax.run.task import Task
from fdjax.sharding import gather, wait_for_all
from fdjax.train.guards import Alarm, Beyond, Guards, make_alarms
from fdjax.train.guards.alarms import ADVICE
from fdjax.train.guards.watch import Finding

__all__ = ["Guarding"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Guarding:
    """What watches the arms of a run, as its settings say."""

    context: RunContext[RunConfig]
    task: Task

    @cached_property
    def guards(self) -> Guards:
        """Alarms on the rows, and files for what they find."""
        config = self.context.config
        return Guards(
            alarms=make_alarms(config.guards, config.policy.dtype),
            events=self.context.events,
            folder=self.context.folder if jax.process_index() == 0 else None,
            dumps=0 if "non_finite" in config.guards.off else config.guards.dumps,
        )

    def canaries(self, arm: str, done: int) -> None:
        """Puts known proofs to the verifier if they are due; before the first, too.

        Where the task's judge is no `LeanJudge`, no verdict is known beforehand.

        Args:
          arm: the phase.
          done: its iterations.

        Raises:
          AlarmError: a verdict was wrong, and that ends the run.
        """
        config = self.context.config.guards
        if "canaries" in config.off or done % config.canary_every:
            return
        report = self._report(done)
        if report.undecided:
            _log.warning(
                "%d of %d canaries got no verdict, among them %s",
                *(len(report.undecided), report.asked, report.undecided[0]),
            )
        error = self.guards.tell(arm, done, self._findings(report))
        if error is not None:
            raise error

    def _report(self, done: int) -> CanaryReport:
        """Of the verifiers of all processes; each puts its own to the test."""
        own = self.context.loop.run(self._own_report(done), meanwhile=wait_for_all)
        return reduce(CanaryReport.__add__, map(_decoded, gather(encode(asdict(own)))))

    async def _own_report(self, done: int) -> CanaryReport:
        judge = self.task.judge
        if not isinstance(judge, LeanJudge):
            return CanaryReport(asked=0)
        return await check_canaries(
            judge,
            salt=f"{self.context.run[:8]}_{done}_{jax.process_index()}",
            header=self.task.problems[0].header,
            deadline_s=self.context.config.attempts.judge_deadline_s,
        )

    def _findings(self, report: CanaryReport) -> list[Finding]:
        if not report.wrong:
            return []
        alarm = Alarm(
            guard="canaries",
            metric="canaries/wrong",
            above=0.0,
            stop="canaries" in self.context.config.guards.stop,
            advice=f"{'; '.join(report.wrong)}: {ADVICE['canaries']}",
        )
        return [Finding(alarm, Beyond(report.wrong_share, 0.0))]


def _decoded(fact: bytes) -> CanaryReport:
    said = decode(fact)
    return CanaryReport(
        asked=said["asked"],
        wrong=tuple(said["wrong"]),
        undecided=tuple(said["undecided"]),
    )
