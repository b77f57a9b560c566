"""Lean as the judge: extract the answer, have it checked, give 1 or 0."""

from collections.abc import Sequence
from dataclasses import dataclass

from fdjax.errors import BackendError
from fdjax.judge.answer import Answer, Extract, whole_text
from fdjax.judge.judgement import Judgement
from fdjax.lean import Status, Verdict, Verifier, WholeFile
from fdjax.records import Problem

__all__ = ["LeanJudge"]


@dataclass(frozen=True, kw_only=True)
class LeanJudge:
    """Rewards 1 for a verified proof, 0 for one that Lean decided against.

    Where the checker failed or the statement itself is broken, the reward is missing. A
    completion without an answer is rejected; Lean never sees it.
    """

    verifier: Verifier
    extract: Extract = whole_text
    """Finds the answer in a completion, as the prompt's format has it."""

    async def judge(self, attempts: Sequence[tuple[Problem, str]]) -> list[Judgement]:
        """One judgement for each (problem, completion), in order (`Judge`).

        Raises:
          InstallError: Lean is not installed; no later attempt would do better.
        """
        problems = [problem for problem, _ in attempts]
        answers = [self.extract(problem, text) for problem, text in attempts]
        verdicts = await self._verdicts(problems, answers)
        faults = {
            (problem.header, problem.statement): verdict
            for problem, verdict in zip(problems, verdicts, strict=True)
            if verdict.broken_statement
        }
        # Lean saw neither unsafe attempts nor missing answers, and so not that their
        # statement is broken.
        return [
            _judgement(answer, faults.get((problem.header, problem.statement), verdict))
            for problem, answer, verdict in zip(
                problems, answers, verdicts, strict=True
            )
        ]

    async def _verdicts(
        self, problems: Sequence[Problem], answers: Sequence[Answer]
    ) -> list[Verdict]:
        """One verdict for each answer, in order.

        An outage leaves verdicts missing, not wrong: attempts that were not decided
        before it are CRASHED, and all are where Lean decided none of them.
        """
        asked = [
            (row, (problem, answer.submission))
            for row, (problem, answer) in enumerate(zip(problems, answers, strict=True))
            if answer.submission is not None
        ]
        told: dict[int, Verdict] = {}
        outage = ""
        try:
            if asked:
                await self.verifier.averify(
                    [item for _, item in asked],
                    decided=lambda place, verdict: told.update(
                        {asked[place][0]: verdict}
                    ),
                    broken_statements="reject",
                )
        except BackendError as error:
            outage = f"the verifier failed: {error}"
        missing = Verdict(status=Status.CRASHED, reason=outage)
        if outage and not any(map(_by_lean, told.values())):
            # Unsafe texts, missing answers and known proofs alone are no sample of what
            # was attempted.
            return [missing] * len(answers)
        return [
            told.get(row, missing)
            if answer.submission is not None
            else Verdict(status=Status.REJECTED, reason=f"no answer: {answer.reason}")
            for row, answer in enumerate(answers)
        ]


def _judgement(answer: Answer, verdict: Verdict) -> Judgement:
    submission = answer.submission
    text = submission.text if isinstance(submission, WholeFile) else submission
    return Judgement.by_lean(
        verdict, text or "", start=answer.start, answerless=submission is None
    )


def _by_lean(verdict: Verdict) -> bool:
    """Whether Lean has just decided: not the scan of the text, nor the cache."""
    return not (verdict.missing or verdict.cached or verdict.status is Status.UNSAFE)
