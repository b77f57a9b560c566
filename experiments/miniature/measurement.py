"""What a run measures: the teacher before FD, each arm afterwards, miniF2F if given."""

import math
from pathlib import Path
from typing import Any

from rich.markup import escape

from experiments.miniature.config import ComparisonConfig
from experiments.miniature.materials import Materials
from experiments.miniature.minif2f import core_problems
from fdjax.checkpoint import bit_sums
from fdjax.data.pipeline import fingerprint
from fdjax.errors import BackendError, DataError
from fdjax.eval import (
    ArmResult,
    Evaluation,
    TeacherResult,
    evaluate_arm,
    evaluate_teacher,
    load_evaluation,
    save_evaluation,
)
from fdjax.lean import Verifier
from fdjax.records import Problem
from fdjax.rollout import Rollout
from fdjax.run.context import RunContext
from fdjax.train import check_origin

__all__ = ["check_teacher", "measure_arm", "measure_minif2f", "read_minif2f"]


def check_teacher(made: Materials, params: Any) -> TeacherResult:
    """Pass@1 with feedback against without, before any FD."""
    context = made.context
    with context.timed("evaluation"):
        result = evaluate_teacher(
            params,
            made.splits["validation"],
            made.pipeline(made.prompt_width),
            made.pipeline(made.teacher_width),
            context.key(3),
            samples=4,
        )
    with_, without = result.with_feedback.value, result.without_feedback.value
    if math.isnan(with_) or math.isnan(without):
        remark = " [bold red](not measured: no verdicts, or no feedback)[/]"
    else:
        remark = "" if with_ > without else " [bold red](feedback does not help)[/]"
    context.display.say(
        f"Teacher on validation theorems: pass@1 {without:.3f} without feedback, "
        f"{with_:.3f} with feedback on its own attempt{remark}"
    )
    return result


def measure_arm(made: Materials, arm: str, params: Any) -> ArmResult:
    """Counts on the held-out theorems; kept in the run's folder.

    A result of other weights or of other settings, one with attempts on which the
    checker failed, and a damaged one are measured anew.

    Raises:
      BackendError: there is no verdict on any attempt; nothing is kept.
      CheckpointError: the result there is of another run.
    """
    context, config = made.context, made.context.config.evaluation
    path = context.folder / "eval" / f"{arm}.json"
    about = {
        "run": context.run,
        "weights": fingerprint([bit_sums(params)]),
        "split": config.split,
        "samples": config.samples,
    }
    if (before := _kept(context, path)) is not None:
        check_origin(before.about, {"run": context.run}, str(path))
        (kept,) = before.arms
        if before.about == about and not kept.crashed:
            return kept
    problems = made.splits[config.split]
    total = len(problems) * config.samples
    with (
        context.timed("evaluation"),
        context.task(f"Test {arm}", total) as progress,
    ):
        done = 0

        def on_rollout(rollout: Rollout) -> None:
            nonlocal done
            done = min(done + len(rollout.trajectories), total)
            progress(done, f"verified {rollout.rewards.mean():.3f}")

        result = evaluate_arm(
            arm,
            params,
            problems,
            made.pipeline(made.prompt_width),
            context.key(2),
            samples=config.samples,
            on_rollout=on_rollout,
        )
    _require_verdicts(result)
    path.parent.mkdir(exist_ok=True)
    save_evaluation(path, Evaluation(ks=config.ks, arms=(result,), about=about))
    return result


def _kept(context: RunContext[ComparisonConfig], path: Path) -> Evaluation | None:
    """The result that is there, if it can be read."""
    if not path.exists():
        return None
    try:
        return load_evaluation(path)
    except DataError as error:
        context.display.say(f"[yellow]Measuring anew:[/] {escape(str(error))}")
        return None


def _require_verdicts(result: ArmResult) -> None:
    if not result.judged().any():
        raise BackendError(
            f"Expected verdicts on the attempts of {result.arm}, got none on "
            f"{result.samples * len(result.theorems)}: the verifier failed on all. See "
            "that it answers; what was trained is kept, and --resume measures again."
        )


def read_minif2f(
    context: RunContext[ComparisonConfig], verifier: Verifier
) -> list[Problem]:
    """Statements of the user's miniF2F file that need no Mathlib."""
    if context.config.minif2f is None:
        return []
    with context.timed("miniF2F"):
        problems, others = core_problems(context.config.minif2f, verifier)
    total = len(problems) + len(others)
    first = f"; Lean on the first other: {others[0].splitlines()[0]}" if others else ""
    context.display.say(
        f"miniF2F: {len(problems)} of {total} statements need no Mathlib{first}"
    )
    return problems


def measure_minif2f(
    made: Materials, problems: list[Problem], policies: dict[str, Any]
) -> None:
    """The arms on real miniF2F statements, as a table and `minif2f.json`."""
    context, samples = made.context, 8
    total = len(problems) * samples
    with context.timed("miniF2F"):
        pipeline = made.pipeline(made.minif2f_width)
        arms = []
        for arm, params in policies.items():
            with context.task(f"miniF2F {arm}", total) as progress:
                arms.append(
                    evaluate_arm(
                        arm, params, problems, pipeline, context.key(4), samples=samples
                    )
                )
                _require_verdicts(arms[-1])
                progress(total, "")
    about = {"seed": context.config.seed, "file": str(context.config.minif2f)}
    evaluation = Evaluation(ks=(1, samples), arms=tuple(arms), about=about)
    save_evaluation(context.folder / "minif2f.json", evaluation)
    context.display.summary("miniF2F statements without Mathlib", evaluation)
