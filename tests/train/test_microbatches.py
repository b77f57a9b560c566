"""Microbatches as wide as their attempts: the same losses, gradients and metrics."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from fdjax.model import Model
from fdjax.rollout import Batch, TeacherPrompts
from fdjax.sharding import shard_batch
from fdjax.train import (
    FD,
    GRPO,
    GSPO,
    EMATeacher,
    OptimizerConfig,
    init_state,
    make_objective,
    make_optimizer,
    make_train_step,
)
from tiny import MODEL as TWO_LAYERS
from tiny import TOKENIZER, mesh_of

ROWS, PROMPT, TEACHER, RESPONSE = 16, 12, 20, 24
ONE, FOUR = (1, 1, 1), (1, 4, 1)
OPTIMIZER = make_optimizer(OptimizerConfig(learning_rate=1e-2))
TERMS = {
    "tokens": (
        FD(route="failed", question_weights="deviation", contrast=0.5, kl_clip=0.5),
        GRPO(aggregation="constant"),
    ),
    "sequences": (GSPO(), GRPO(aggregation="sequence", route="passed")),
}
MODEL = Model(dataclasses.replace(TWO_LAYERS.config, num_layers=1))


@functools.cache
def batch():
    """Attempts of all lengths, the longest and one of no token among them."""
    rng = np.random.default_rng(7)
    lengths = np.array([0, 24, 1, 6, 7, 12, 13, 18, 19, 3, 4, 5, 8, 2, 9, 10])
    valid = np.arange(RESPONSE) < lengths[:, None]

    def ids(width):
        return rng.integers(0, len(TOKENIZER), (ROWS, width), dtype=np.int32)

    def prompts(width, most):
        spare = width - rng.integers(1, most, ROWS)
        return ids(width), np.arange(width) >= spare[:, None]

    def informed():
        heard = valid & (rng.random(ROWS) < 0.8)[:, None]
        return TeacherPrompts(*prompts(TEACHER, 11), heard)

    student, student_valid = prompts(PROMPT, 7)
    # Long prompts make their microbatch wide, whatever follows.
    student_valid[3] = True
    return Batch(
        prompts=student,
        prompt_valid=student_valid,
        responses=ids(RESPONSE),
        response_valid=valid,
        written=valid & (rng.random(valid.shape) < 0.9),
        known=rng.random(ROWS) < 0.9,
        passed=rng.random(ROWS) < 0.5,
        pass_rate=rng.random(ROWS).astype(np.float32),
        advantages=rng.normal(0, 1, ROWS).astype(np.float32),
        old_logprobs=np.where(valid, -rng.gamma(4, 1, valid.shape), 0).astype("f4"),
        version=np.zeros(ROWS, np.int32),
        feedback=informed(),
        wrong_feedback=informed(),
    )


@functools.cache
def step_of(name, widths, axes):
    """The state after a step, and its metrics."""
    mesh = mesh_of(*axes)
    model = Model(MODEL.config, mesh)
    objective = make_objective(model, TERMS[name])
    teacher = EMATeacher(rate=0.25) if objective.reads_teacher else None
    state = init_state(model, OPTIMIZER, mesh, jax.random.key(0), teacher=teacher)
    step = make_train_step(
        model,
        objective,
        OPTIMIZER,
        mesh,
        teacher=teacher,
        microbatches=4,
        widths=widths,
    )
    after, metrics = step(state, shard_batch(batch(), mesh))
    return after, {key: mean.value() for key, mean in metrics.items()}


@pytest.mark.parametrize("name", TERMS)
def test_widths_change_nothing(name):
    """On one device at full width, and on four at the widths that are needed."""
    full, at_full = step_of(name, 1, ONE)
    narrow, at_narrow = step_of(name, 3, FOUR)
    assert at_full.keys() == at_narrow.keys()
    assert at_narrow["train/padding"] < at_full["train/padding"] - 0.1
    for key, value in at_narrow.items():
        if key == "train/padding":
            continue
        assert value == pytest.approx(at_full[key], rel=2e-5, abs=1e-6), key
    # Adam divides by the root of tiny squares: see test_step.
    for one, other in zip(
        jax.tree.leaves(full.params), jax.tree.leaves(narrow.params), strict=True
    ):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-2 * 0.02)


def test_padding_is_of_what_is_computed():
    data = batch()
    read = [data.prompt_valid, data.response_valid]
    for prompts in (data.feedback, data.wrong_feedback):
        read += [prompts.valid, data.response_valid]
    used = sum(each.sum() for each in read)
    _, metrics = step_of("tokens", 1, ONE)
    size = sum(each.size for each in read)
    assert metrics["train/padding"] == pytest.approx(1 - used / size, rel=1e-6)
    # Thirds: 4 prompts, 7 of the teacher and 8 of a response, or 8, 14 and 16, or all.
    thirds = [
        max(-(-_length(each[row]) * 3 // each.shape[1]) for each in _ends(data))
        for row in range(ROWS)
    ]
    columns = [0, *(4 * n + 2 * min(7 * n, TEACHER) + 3 * 8 * n for n in (1, 2, 3))]
    parts = np.sort(np.maximum(thirds, 1)).reshape(4, -1)
    size = sum(columns[part.max()] * part.size for part in parts)
    _, metrics = step_of("tokens", 3, FOUR)
    assert metrics["train/padding"] == pytest.approx(1 - used / size, rel=1e-6)


def _ends(data):
    yield data.prompt_valid[:, ::-1]
    yield data.response_valid
    for prompts in (data.feedback, data.wrong_feedback):
        yield prompts.valid[:, ::-1]


def _length(valid):
    return int(np.flatnonzero(valid)[-1]) + 1 if valid.any() else 0
