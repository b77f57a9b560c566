"""What an evaluation counts, by hand, with a sampler and a verifier told what to do."""

import math
from dataclasses import replace

import jax
import numpy as np
import pytest

from fdjax.eval import evaluate_arm
from fdjax.feedback import CompilerFeedback
from fdjax.judge import LeanJudge
from fdjax.lean import FakeBackend, Verifier, WorkerDiedError
from fdjax.lean.backends.fake import accepted, rejected
from fdjax.rollout import Pipeline
from tiny import PROBLEMS, TOKENIZER, completions

WRITTEN = [
    *("  trivial", "    trivial", "  skip"),
    *("  trivial\n  rfl", "  trivial", "  crash"),
    *("  skip", "  skip", "  skip"),
    # The last batch is filled up to two theorems; these count for nobody.
    *("  trivial", "  trivial", "  trivial"),
]
"""Three attempts at each theorem, two theorems in a batch."""


def judge(request):
    if "crash" in request.proof:
        raise WorkerDiedError("killed")
    return accepted() if "trivial" in request.proof else rejected()


class Sampler:
    """Writes the next six proofs; the first token of each has 2 nats, the others 0."""

    def __init__(self):
        self.asked = []
        self.made = []

    def __call__(self, params, prompts, prompt_valid, key, *, samples_per_prompt):
        start = 6 * len(self.made)
        rows = completions(WRITTEN[start : start + 6])
        entropy = np.zeros(rows.mask.shape, np.float32)
        entropy[:, 0] = 2.0
        self.asked.append((params, prompts.shape, jax.random.key_data(key).tolist()))
        self.made.append(rows._replace(entropy=entropy))
        return self.made[-1]


@pytest.fixture
def evaluated():
    """The result, the sampler and the rollouts that were reported."""
    sampler, rollouts = Sampler(), []
    with Verifier(lambda: FakeBackend(judge), workers=1) as verifier:
        pipeline = Pipeline(
            generate=sampler,
            tokenizer=TOKENIZER,
            judge=LeanJudge(verifier=verifier),
            writer=CompilerFeedback(),
            prompt_width=64,
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
    # Filled rows left out: of nine attempts four are proofs and one has no verdict.
    assert result.statuses == {"verified": 4, "rejected": 4, "crashed": 1}


def test_theorems_of_one_name_are_told_apart_by_their_place(evaluated):
    assert evaluated[0].theorems == ("t0 1", "t1 2", "t0 3")


def test_entropies(evaluated):
    result, sampler, _ = evaluated
    first, second = (rows.mask.sum(axis=1) for rows in sampler.made)
    # 2 nats in each of three rows, over the tokens that the theorem's rows have.
    tokens = [first[:3].sum(), first[3:].sum(), second[:3].sum()]
    assert result.policy_entropy == pytest.approx([6 / n for n in tokens], rel=1e-6)
    # In the proofs: trivial four times, rfl once.
    expected = 4 / 5 * math.log(5 / 4) + 1 / 5 * math.log(5)
    assert result.tactic_entropy == pytest.approx(expected)


def test_batches_have_one_shape_and_keys_of_their_own(evaluated):
    _, sampler, rollouts = evaluated
    key = jax.random.key(3)
    assert sampler.asked == [
        ("weights", (2, 64), jax.random.key_data(jax.random.fold_in(key, n)).tolist())
        for n in (0, 2)
    ]
    names = [
        [each.problem.name for each in rollout.trajectories[::3]]
        for rollout in rollouts
    ]
    assert names == [["t0", "t1"], ["t0", "t0"]]
