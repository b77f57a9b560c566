"""Ablations of Feedback Distillation in the miniature: teacher, divergence, guards.

Claim under test: a teacher that follows its student too fast forgets how to read
feedback, and the student then loses what it knew. The instrument is the teacher itself:
its pass@1 with feedback on the student's attempts, over training.
Source: FD is of arXiv:2605.30861, whose author's code has a frozen teacher; the moving
average is of arXiv:2601.20802. The claim is ours (docs/log.md, "Which teacher?").

Command, after `python -m experiments.quickstart --seeds 0 1 2 --data.seed 0`:
`python -m experiments.ablations --seeds 0 1 2`; with `--only frozen ema_0.05` these two
arms alone.
Hardware: two CPU cores; the embedded Lean.
Cost: each arm learns from 9,216 attempts.
Expected figure, three seeds (docs/log.md): the teacher's pass@1 with feedback, 0.31 at
the start, ends at 0.31 frozen, 0.22 by an EMA of 0.05 and 0.06 live; the student's,
0.22 at the start, at 0.22, 0.16 and 0.02.
"""

import functools
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from experiments.miniature.dataset import DatasetConfig, make_splits
from fdjax.eval import Claim, seeds_claim
from fdjax.feedback import CompilerFeedback, ReferenceHint
from fdjax.judge import LeanJudge
from fdjax.lean import Limits, Verifier, WasmBackend
from fdjax.lean.engine.verifier import WORKERS
from fdjax.lean.facts.backend import WALL_S
from fdjax.objects import local_folder
from fdjax.ops import forward_kl, generalized_jsd, reverse_kl
from fdjax.ranges import Whole, require_fields
from fdjax.run import (
    Arm,
    AttemptsConfig,
    EvaluationConfig,
    PolicyConfig,
    RunConfig,
    RunContext,
    SeedProbes,
    Task,
    experiment,
)
from fdjax.train import (
    FD,
    GRPO,
    BaseTeacher,
    CheckpointsConfig,
    EMATeacher,
    LiveTeacher,
    OptimizerConfig,
    PhaseConfig,
    SyncedTeacher,
    Teacher,
)

__all__ = ["CONFIG", "AblationsConfig", "main"]


@dataclass(frozen=True, kw_only=True)
class AblationsConfig(RunConfig):
    """Settings of the experiment."""

    data: DatasetConfig = field(default_factory=lambda: DatasetConfig(seed=0))
    """Theorems: those of the run that the policy comes from."""
    plan: int = 3
    """Tactics that the hint names after the one it spells out."""
    steps: int = 36
    """Iterations of each arm."""
    handover: int = 12
    """Iterations of FD in FD→GRPO."""
    teacher: Teacher = field(default_factory=BaseTeacher)
    """Of the arms that are not about teachers."""
    learning_rate: float = 5e-4
    """Of FD, before it decays to a twentieth."""
    lean_workers: int = 2
    """Lean processes."""
    lean_timeout_s: float = 5.0
    """Wall time that one proof may use."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_fields(
            self,
            plan=Whole(0),
            steps=Whole(2),
            handover=Whole(1, self.steps - 1),
            lean_workers=WORKERS,
            lean_timeout_s=WALL_S,
        )


CONFIG = AblationsConfig(
    name="ablations",
    policy=PolicyConfig(
        source="runs/quickstart/seed{seed}/checkpoints/sft",
        dtype="float32",
        remat="none",
    ),
    attempts=AttemptsConfig(
        problems=64, group_size=4, updates=2, max_new_tokens=40, feedback_tokens=40
    ),
    evaluation=EvaluationConfig(every=12, samples=64, ks=(1, 4, 16, 64)),
    checkpoints=CheckpointsConfig(every=12),
)

TEACHERS: dict[str, Teacher] = {
    "frozen": BaseTeacher(),
    "ema_0.001": EMATeacher(rate=0.001),
    "ema_0.005": EMATeacher(rate=0.005),
    "ema_0.01": EMATeacher(rate=0.01),
    "ema_0.05": EMATeacher(rate=0.05),
    "synced_24": SyncedTeacher(every=24),
    "live": LiveTeacher(),
}


def task(context: RunContext[AblationsConfig]) -> Task:
    """Learn on the pool, be measured on the validation theorems; hints from proofs."""
    config = context.config
    splits = make_splits(config.data)
    verifier = context.resources.enter_context(
        Verifier(
            WasmBackend,
            workers=config.lean_workers,
            limits=Limits(wall_s=config.lean_timeout_s),
            cache_path=local_folder(config.runs) / "verdicts.sqlite",
        )
    )
    return Task(
        problems=splits["pool"],
        evaluation=splits["validation"],
        judge=LeanJudge(verifier=verifier),
        writer=ReferenceHint(base=CompilerFeedback(), plan=config.plan),
    )


def arms(config: AblationsConfig) -> Iterator[Arm]:
    """Each differs in one thing from FD by the reverse KL with `config.teacher`."""
    # As in the quickstart, second updates are stale and not weighed for it.
    term = FD(divergence=reverse_kl, score="to_divergence", importance_cap=None)
    optimizer = OptimizerConfig(
        learning_rate=config.learning_rate,
        decay_steps=config.attempts.updates * config.handover * 2,
        final_fraction=0.05,
    )
    fd = PhaseConfig(
        name="fd",
        terms=(term,),
        steps=config.steps,
        optimizer=optimizer,
        teacher=config.teacher,
    )

    def arm(name: str, phase: PhaseConfig) -> Arm:
        return Arm(name=name, phases=(replace(phase, name=name),))

    for name, teacher in TEACHERS.items():
        yield arm(name, replace(fd, teacher=teacher))
    terms = {
        "forward_kl": replace(term, divergence=forward_kl),
        "jsd": replace(term, divergence=functools.partial(generalized_jsd, alpha=0.5)),
        "kl_clip_1": replace(term, kl_clip=1.0),
        "failed_only": replace(term, route="failed"),
        "weights_deviation": replace(term, question_weights="deviation"),
        "weights_variance": replace(term, question_weights="variance"),
        "score_all": replace(term, score="all"),
    }
    for name, changed in terms.items():
        yield arm(name, replace(fd, terms=(changed,)))
    for rate in (2e-4, 1e-3):
        changed = replace(optimizer, learning_rate=rate)
        yield arm(f"rate_{rate:g}", replace(fd, optimizer=changed))
    for rate in (5e-5, 1e-4, 2e-4):
        grpo = PhaseConfig(
            name=f"grpo_{rate:g}",
            terms=(GRPO(),),
            steps=config.steps,
            optimizer=OptimizerConfig(learning_rate=rate),
        )
        yield arm(grpo.name, grpo)
        first = replace(fd, name=f"fd_before_{rate:g}", steps=config.handover)
        then = replace(
            grpo,
            name=f"grpo_after_{rate:g}",
            steps=config.steps - config.handover,
        )
        yield Arm(name=f"fd_then_grpo_{rate:g}", phases=(first, then))


def claims(probes: SeedProbes) -> list[Claim]:
    """Of each arm, whether its pass@1 ends above that of FD with a frozen teacher."""
    others = sorted(probes.policies - {"frozen"})
    if len(others) == len(probes.policies):
        return []
    frozen = probes.of_problems("rewards", "frozen")
    return [
        seeds_claim(
            f"{name}_above_frozen",
            f"pass@1 of {name} is above that of FD with a frozen teacher",
            probes.of_problems("rewards", name) - frozen,
        )
        for name in others
    ]


def main(arguments: list[str] | None = None) -> int:
    """Command line; exit code 0 done, 2 bad input, 130 interrupted."""
    return experiment(CONFIG, task=task, arms=arms, claims=claims, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
