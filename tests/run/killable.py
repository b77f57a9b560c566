"""A run of all parts, small enough to be killed and resumed many times.

`python killable.py NAME POLICY SERVER FLAGS…`: FD, then GRPO, verdicts of the embedded
Lean, reviews by a server that speaks OpenAI's API, probes between iterations.
"""

import sys
from dataclasses import dataclass, replace

from fdjax.feedback import ModelFeedback, OpenAIEndpoint
from fdjax.judge import LeanJudge
from fdjax.lean import Limits, Verifier
from fdjax.objects import lease, place
from fdjax.run import (
    Arm,
    AttemptsConfig,
    EvaluationConfig,
    PolicyConfig,
    RunConfig,
    Task,
    experiment,
)
from fdjax.train import (
    FD,
    GRPO,
    CheckpointsConfig,
    EMATeacher,
    OptimizerConfig,
    PhaseConfig,
)
from tiny import PROBLEMS

PHASES = {"fd": 5, "grpo": 4}
"""Iterations of each phase."""


@dataclass(frozen=True)
class Lengths:
    """Rewards by length, beside Lean's verdicts: an untrained policy proves nothing."""

    lean: LeanJudge

    async def judge(self, attempts):
        judged = await self.lean.judge(attempts)
        return [
            replace(one, reward=float(len(text) % 2), passed=len(text) % 2 == 1)
            for one, (_, text) in zip(judged, attempts, strict=True)
        ]


def config(folder, policy):
    return RunConfig(
        name=folder.name,
        runs=folder.parent,
        policy=PolicyConfig(source=policy, dtype="float32"),
        attempts=AttemptsConfig(
            problems=4, group_size=2, updates=2, max_new_tokens=6, feedback_tokens=24
        ),
        evaluation=EvaluationConfig(every=2, samples=1, ks=(1,)),
        checkpoints=CheckpointsConfig(every=2),
    )


def task(context, server):
    verifier = context.resources.enter_context(
        # A busy machine decides nothing.
        Verifier(workers=1, limits=Limits(wall_s=600))
    )
    feedback = ModelFeedback(
        endpoint=OpenAIEndpoint(model="m", base_url=f"{server}/v1", key_env="")
    )
    return Task(
        problems=PROBLEMS[:6],
        evaluation=PROBLEMS[6:8],
        judge=Lengths(LeanJudge(verifier=verifier)),
        writer=feedback.make(),
    )


def arms(config):
    """Rows and checkpoints at different paces, so that rows are half full."""
    optimizer = OptimizerConfig(learning_rate=1e-2)
    paces = {"optimizer": optimizer, "log_every": 3}
    fd = PhaseConfig(
        name="fd", terms=(FD(),), steps=PHASES["fd"], teacher=EMATeacher(), **paces
    )
    grpo = PhaseConfig(name="grpo", terms=(GRPO(),), steps=PHASES["grpo"], **paces)
    return (Arm(name="both", phases=(fd, grpo)),)


if __name__ == "__main__":
    path, policy, server, *flags = sys.argv[1:]
    # Whoever is killed is missed soon.
    lease.BEAT_S, lease.STALE_S = 0.5, 3.0
    sys.exit(
        experiment(
            config(place(path), policy),
            task=lambda context: task(context, server),
            arms=arms,
            arguments=flags,
        )
    )
