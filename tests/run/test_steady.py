"""A run in its steady state compiles nothing and moves nothing unasked.

It takes two phases to show: about 20 seconds of processor time, most of it compiling.
"""

import logging
import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdjax.train.loop
from fdjax.feedback import ConstantFeedback
from fdjax.judge import Judgement
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

STEPS = 3


class Even:
    """Rewards an even number of characters."""

    async def judge(self, attempts):
        return [
            Judgement(reward=float(len(text) % 2 == 0), passed=len(text) % 2 == 0)
            for _, text in attempts
        ]


class Compilations(logging.Handler):
    """Programs that JAX compiles, by the phase and iteration under way."""

    def __init__(self):
        super().__init__()
        self.under_way = None
        self.seen = Counter()

    def emit(self, record):
        if found := re.match(r"Compiling (\S+)", record.getMessage()):
            self.seen[self.under_way, found.group(1)] += 1


def task(context):
    return Task(
        problems=PROBLEMS[:4],
        evaluation=PROBLEMS[4:6],
        judge=Even(),
        writer=ConstantFeedback(text="hint"),
    )


def arms(config):
    settings = {
        "steps": STEPS,
        "optimizer": OptimizerConfig(learning_rate=1e-2),
    }
    fd = PhaseConfig(name="fd", terms=(FD(),), teacher=EMATeacher(), **settings)
    grpo = PhaseConfig(name="grpo", terms=(GRPO(),), **settings)
    return (Arm(name="both", phases=(fd, grpo)),)


def test_after_its_first_iteration_a_phase_compiles_and_moves_nothing(policy, tmp_path):
    """Sampling, judging, step, row and checkpoint; transfers are disallowed."""
    config = RunConfig(
        runs=tmp_path,
        policy=PolicyConfig(source=str(policy), dtype="float32"),
        attempts=AttemptsConfig(
            problems=4, group_size=2, max_new_tokens=8, feedback_tokens=16
        ),
        evaluation=EvaluationConfig(samples=2, ks=(1,), teacher=False),
        checkpoints=CheckpointsConfig(every=1),
    )
    compiled = Compilations()
    iterate = fdjax.train.loop._Run.iterate

    def watched(self, *rest):
        compiled.under_way = (self._phase.name, self.at.done + 1)
        with jax.transfer_guard("disallow" if self.at.done else "allow"):
            iterate(self, *rest)
        compiled.under_way = None

    logger = logging.getLogger("jax")
    logger.addHandler(compiled)
    try:
        with pytest.MonkeyPatch.context() as patch, jax.log_compiles():
            patch.setattr(fdjax.train.loop._Run, "iterate", watched)
            assert experiment(config, task=task, arms=arms, arguments=[]) == 0
    finally:
        logger.removeHandler(compiled)
    when = {under_way for under_way, _ in compiled.seen if under_way is not None}
    assert when == {("fd", 1), ("grpo", 1)}, compiled.seen
    # Both steps are among the programs that were seen.
    assert compiled.seen[("fd", 1), "jit(step)"] == 1
    assert compiled.seen[("grpo", 1), "jit(step)"] == 1


def test_the_guard_sees_a_host_array_given_to_a_program():
    program = jax.jit(jnp.sin)
    program(np.ones(3, np.float32))
    with (
        jax.transfer_guard("disallow"),
        pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device"),
    ):
        program(np.ones(3, np.float32))
