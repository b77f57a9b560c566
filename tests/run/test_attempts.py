"""What the report shows of an FD iteration: scored tokens compared, in chunks."""

import re
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import judging
from fdjax.feedback import Feedback
from fdjax.lean import Status, Verdict
from fdjax.run import attempts
from fdjax.run.attempts import AttemptLog
from fdjax.train import StepData, TrainState, response_hidden, teacher_hidden
from scripted import sample
from tiny import MODEL, TOKENIZER, distillation_data

ROWS, LENGTH, TEMPERATURE = 40, 24, 0.5


@pytest.fixture(scope="module")
def state():
    params, teacher = (MODEL.init(jax.random.key(seed)) for seed in (0, 1))
    return TrainState(params, (), teacher, jnp.int32(0), jax.random.key(2))


@pytest.fixture(scope="module")
def batch():
    return distillation_data(rows=ROWS, length=LENGTH)


def written(state, batch, done=0, files=()):
    """The log, and its rows; of `files` a file was judged."""
    rows = []
    log = AttemptLog(
        model=MODEL,
        tokenizer=TOKENIZER,
        samples=SimpleNamespace(write=rows.append),
        temperature=TEMPERATURE,
    )
    rollout = judging.rollout(
        ["  rfl"] * ROWS,
        [Verdict(status=Status.REJECTED)] * ROWS,
        [Feedback(parts=("no",))] * ROWS,
        group_size=ROWS,
        width=LENGTH,
        sampled=[
            sample(tokens[valid])
            for tokens, valid in zip(batch.responses, batch.response_valid, strict=True)
        ],
    )
    attempts = list(rollout.trajectories)
    for row in files:
        episode = replace(attempts[row].episode, from_file=True)
        attempts[row] = replace(attempts[row], episode=episode)
    rollout = replace(rollout, trajectories=tuple(attempts))
    data = StepData(batches=[batch], metrics={}, rollout=rollout)
    log.write("fd", done, state, data)
    return log, rows


def expected(state, batch):
    """KL(q‖p), and log q − log p of the tokens, at the temperature, by NumPy."""
    hidden = (
        response_hidden(MODEL, state.params, *batch[:4]),
        teacher_hidden(MODEL, state.teacher, batch, "feedback"),
    )
    log_p, log_q = (
        np.asarray(
            jax.nn.log_softmax(MODEL.head(params, states) / TEMPERATURE), np.float64
        )
        for params, states in zip((state.params, state.teacher), hidden, strict=True)
    )
    ratio = log_q - log_p
    chosen = np.take_along_axis(ratio, np.asarray(batch.responses)[..., None], axis=-1)
    return {"kl": np.sum(np.exp(log_q) * ratio, axis=-1), "log_ratio": chosen[..., 0]}


def test_a_file_is_not_shown_with_the_kl_of_other_words(state, batch):
    _, rows = written(state, batch, files=(1,))
    for key in ("tokens", "kl", "log_ratio"):
        assert [row[key] is None for row in rows[:3]] == [False, True, False]


@pytest.mark.parametrize("key", ["kl", "log_ratio"])
def test_scored_tokens_at_the_temperature_of_sampling(state, batch, key):
    _, rows = written(state, batch)
    found = [row[key] for row in rows]
    assert [row is None for row in found] == [False] * 32 + [True] * 8
    values = expected(state, jax.tree.map(jnp.asarray, batch))[key]
    for index, row in enumerate(found[:32]):
        valid = batch.response_valid[index]
        scored = batch.feedback.mask[index][valid]
        assert [value is not None for value in row] == scored.tolist()
        np.testing.assert_allclose(
            [value for value in row if value is not None],
            values[index][valid][scored],
            atol=1e-4,
        )


def test_the_log_ratio_has_both_signs(state, batch):
    _, rows = written(state, batch)
    values = [value for row in rows for value in row["log_ratio"] or () if value]
    assert min(values) < 0 < max(values)


@pytest.mark.parametrize(("done", "kept"), [(0, 32), (1, 0), (9, 0), (10, 32)])
def test_every_tenth_iteration_has_it(state, batch, done, kept):
    _, rows = written(state, batch, done)
    assert sum(row["kl"] is not None for row in rows) == kept


def test_rows_are_bounded_by_tokens(state, batch, monkeypatch):
    # The teacher's prompt has 9 tokens: 33 a row.
    monkeypatch.setattr(attempts, "_HEAT_TOKENS", 5 * 33)
    _, rows = written(state, batch)
    assert [row["kl"] is None for row in rows] == [False] * 5 + [True] * 35


def test_logits_exist_for_a_chunk_only(state, batch):
    log, _ = written(state, batch)
    part = jax.tree.map(lambda column: column[:32], batch)
    lowered = log._compared.lower(state.params, state.teacher, part).as_text()
    shapes = re.findall(r"tensor<([0-9x]+)x304xf32>", lowered)
    sizes = [np.prod([int(n) for n in shape.split("x")]) for shape in shapes]
    # 768 tokens, in chunks of at most 384.
    assert 1 < max(sizes) <= 384
