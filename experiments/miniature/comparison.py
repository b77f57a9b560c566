"""FD, GRPO, FD→GRPO and the control on one warm start, budget and test split."""

from experiments.miniature.arms import Trainer
from experiments.miniature.config import ComparisonConfig
from experiments.miniature.materials import Materials, prepare
from experiments.miniature.measurement import (
    check_teacher,
    measure_arm,
    measure_minif2f,
    read_minif2f,
)
from fdjax.eval import Evaluation, evaluate_claims, save_evaluation
from fdjax.lean import Verifier
from fdjax.run.context import RunContext

__all__ = ["compare"]


def compare(context: RunContext[ComparisonConfig], verifier: Verifier) -> Evaluation:
    """All stages in order; returns what `eval.json` holds.

    Each stage leaves its result in the run's folder and is skipped when it is there.
    """
    # Read first: a bad file must not cost the training before it.
    minif2f = read_minif2f(context, verifier)
    made = prepare(context, verifier, minif2f)
    # This builds all phases: what is wrong with the last is refused before the first.
    trainer = Trainer(materials=made)
    warm = trainer.warm_start()
    teacher = check_teacher(made, warm)
    policies = {"sft": warm, **trainer.arms(warm)}
    arms = [measure_arm(made, arm, params) for arm, params in policies.items()]
    ks = context.config.evaluation.ks
    evaluation = Evaluation(
        ks=ks,
        arms=tuple(arms),
        claims=evaluate_claims(arms, ks),
        teacher=teacher,
        about=_about(made),
    )
    save_evaluation(context.folder / "eval.json", evaluation)
    if minif2f:
        measure_minif2f(made, minif2f, policies)
    return evaluation


def _about(made: Materials) -> dict[str, str | int | float]:
    config, seconds = made.context.config, made.context.seconds
    return {
        "seed": config.seed,
        "split": config.evaluation.split,
        "theorems": len(made.splits[config.evaluation.split]),
        "samples": config.evaluation.samples,
        "iterations": config.rollout.steps,
        "attempts per iteration": config.rollout.attempts,
        **{f"{name} seconds": round(value, 1) for name, value in seconds.items()},
    }
