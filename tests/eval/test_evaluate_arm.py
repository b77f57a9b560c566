"""What an evaluation counts, by hand, with a sampler and a verifier told what to do."""

import math
from dataclasses import replace

import jax
import numpy as np
import pytest

import scripted
from fdjax.eval import evaluate_arm
from fdjax.feedback import CompilerFeedback
from fdjax.judge import LeanJudge
from fdjax.lean import FakeBackend, Verifier, WorkerDiedError
from fdjax.lean.backends.fake import accepted, rejected
from scripted import Scripted
from tiny import PROBLEMS

WRITTEN = [
    *("  trivial", "    trivial", "  skip"),
    *("  trivial\n  rfl", "  trivial", "  crash"),
    *("  skip", "  skip", "  skip"),
]
"""Three attempts at each theorem, two theorems in a batch."""


def judge(request):
    if "crash" in request.proof:
        raise WorkerDiedError("killed")
    return accepted() if "trivial" in request.proof else rejected()


class Certain(Scripted):
    """The first token of each proof has 2 nats, the others 0."""

    def __init__(self):
        super().__init__(WRITTEN)
        for each in self.samples:
            each.entropy[:] = 0
            each.entropy[0] = 2


@pytest.fixture
def evaluated():
    """The result, the sampler and the rollouts that were reported."""
    sampler, rollouts = Certain(), []
    with Verifier(lambda: FakeBackend(judge), workers=1) as verifier:
        pipeline = scripted.pipeline(
            sampler, LeanJudge(verifier=verifier), CompilerFeedback()
        )
        result = evaluate_arm(
            "fd",
            "weights",
            [*PROBLEMS[:2], replace(PROBLEMS[2], name="t0")],
            pipeline,
            jax.random.key(3),
            samples=3,
            problems_per_batch=2,
            on_rollout=rollouts.append,
        )
    return result, sampler, rollouts


def test_counts_of_each_theorem(evaluated):
    result, _, _ = evaluated
    assert (result.arm, result.samples) == ("fd", 3)
    assert result.successes == (2, 2, 0)
    assert result.missing == (0, 1, 0)
    # The first two proofs of the first theorem differ in white space alone.
    assert result.distinct_proofs == (1, 2, 0)
    assert result.distinct_sequences == (1, 2, 0)
    # Of nine attempts four are proofs and one has no verdict.
    assert result.statuses == {"verified": 4, "rejected": 4, "crashed": 1}


def test_theorems_of_one_name_are_told_apart_by_their_place(evaluated):
    assert evaluated[0].theorems == ("t0 1", "t1 2", "t0 3")


def test_entropies(evaluated):
    result, sampler, _ = evaluated
    lengths = np.array([len(each.tokens) for each in sampler.samples])
    # 2 nats in each of three rows, over the tokens that the theorem's rows have.
    tokens = lengths.reshape(3, 3).sum(axis=1)
    assert result.policy_entropy == pytest.approx([6 / n for n in tokens], rel=1e-6)
    # In the proofs: trivial four times, rfl once.
    expected = 4 / 5 * math.log(5 / 4) + 1 / 5 * math.log(5)
    assert result.tactic_entropy == pytest.approx(expected)


def test_batches_have_keys_of_their_own(evaluated):
    _, sampler, rollouts = evaluated
    key = jax.random.key(3)
    assert {params for params, _ in sampler.published} == {"weights"}
    assert [key for _, key in sampler.asked] == [
        jax.random.key_data(
            jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(key, n), row), 0)
        ).tolist()
        for n, rows in ((0, 6), (2, 3))
        for row in range(rows)
    ]
    names = [
        [each.problem.name for each in rollout.trajectories[::3]]
        for rollout in rollouts
    ]
    assert names == [["t0", "t1"], ["t0"]]
