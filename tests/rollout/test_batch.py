import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdjax.advantages import zscore
from fdjax.data.chat import proof_tokens
from fdjax.data.packing import pad_right
from fdjax.errors import DataError
from fdjax.feedback import Feedback
from fdjax.lean import Status, Verdict
from fdjax.rollout import (
    Rollout,
    distillation_batch,
    policy_batch,
    supervised_batch,
    verdict_rewards,
)
from fdjax.sampling import Completions, SamplingConfig
from tiny import PROBLEMS, TOKENIZER

PAD = TOKENIZER.pad_token_id
WIDTH = 24


def rollout(proofs, statuses, feedback, group_size=2):
    """A rollout of given proofs, as the engine would have collected it."""
    count = len(proofs)
    tokens, mask = pad_right(proof_tokens(TOKENIZER, proofs), width=WIDTH, pad=PAD)
    verdicts = tuple(Verdict(status=status) for status in statuses)
    rewards, known = verdict_rewards(verdicts)
    return Rollout(
        problems=tuple(PROBLEMS[index // group_size] for index in range(count)),
        group_size=group_size,
        prompts=np.zeros((count, 3), np.int32),
        prompt_valid=np.ones((count, 3), bool),
        completions=Completions(
            tokens=tokens,
            mask=mask,
            logprobs=np.full(mask.shape, -0.5, np.float32),
            behaviour_logprobs=np.full(mask.shape, -0.25, np.float32),
            entropy=np.ones(mask.shape, np.float32),
            finished=np.ones(count, bool),
            sampling=SamplingConfig(max_new_tokens=WIDTH, temperature=0.7, top_k=3),
        ),
        proofs=tuple(proofs),
        verdicts=verdicts,
        rewards=rewards,
        known=known,
        feedback=tuple(feedback),
    )


NOTE = Feedback(parts=("hint", "error"), offset=9)


def test_rewards():
    statuses = [
        Status.VERIFIED,
        Status.REJECTED,
        Status.UNSAFE,
        Status.TIMEOUT,
        Status.CRASHED,
    ]
    rewards, known = verdict_rewards([Verdict(status=status) for status in statuses])
    np.testing.assert_array_equal(rewards, [1, 0, 0, 0, 0])
    np.testing.assert_array_equal(known, [True, True, True, True, False])


def test_a_crash_leaves_statistics_loss_and_normalizer():
    given = rollout(
        ["  exact h1"] * 4,
        [Status.VERIFIED, Status.REJECTED, Status.VERIFIED, Status.CRASHED],
        [NOTE] * 4,
    )
    advantages, _ = zscore(
        jnp.asarray(given.rewards.reshape(2, 2)),
        jnp.asarray(given.known.reshape(2, 2)),
    )
    batch = policy_batch(given, jax.device_get(advantages))
    # Group 1: (1 - 0.5) / (0.5 + 1e-4). Group 2 knows one reward: nothing to compare.
    expected = 0.5 / 0.5001
    np.testing.assert_allclose(batch.advantages, [expected, -expected, 0, 0], rtol=1e-6)
    assert not batch.mask[3].any()
    assert batch.mask[:3].any(axis=1).all()


def test_batches_carry_the_policys_logprobs_and_how_was_sampled():
    given = rollout(["  exact h1"] * 2, [Status.REJECTED] * 2, [NOTE] * 2)
    policy = policy_batch(given, np.zeros(2))
    # Those of the distribution cut by top-k are -0.25 here.
    np.testing.assert_array_equal(policy.old_logprobs, -0.5)
    distillation, _ = distillation_batch(given, TOKENIZER, teacher_width=96)
    assert policy.sampling == distillation.sampling == given.completions.sampling


def test_teacher_reads_feedback_and_the_students_own_tokens():
    given = rollout(["  exact h1"] * 2, [Status.REJECTED] * 2, [NOTE] * 2)
    batch, metrics = distillation_batch(given, TOKENIZER, teacher_width=96)
    prompt = batch.teacher_prompts[0][batch.teacher_prompt_valid[0]]
    text = TOKENIZER.decode(prompt)
    assert text == f"<|user|>hint\nerror\n{PROBLEMS[0].statement} := by<|assistant|>"
    np.testing.assert_array_equal(batch.responses, given.completions.tokens)
    assert metrics["feedback/available"].value() == 1.0
    assert metrics["feedback/shortened"].value() == 0.0


def test_samples_without_feedback_are_not_scored():
    given = rollout(
        ["  exact h1"] * 2,
        [Status.REJECTED, Status.CRASHED],
        [NOTE, Feedback(error="no verdict")],
    )
    batch, metrics = distillation_batch(given, TOKENIZER, teacher_width=96)
    assert batch.mask[0].any()
    assert not batch.mask[1].any()
    assert metrics["feedback/available"].value() == 0.5


def test_long_feedback_loses_its_last_parts_and_is_counted():
    long = Feedback(parts=("hint", "error " * 40))
    given = rollout(["  exact h1"] * 2, [Status.REJECTED] * 2, [NOTE, long])
    batch, metrics = distillation_batch(given, TOKENIZER, teacher_width=64)
    text = TOKENIZER.decode(batch.teacher_prompts[1][batch.teacher_prompt_valid[1]])
    assert text.startswith("<|user|>hint\ntheorem")
    assert metrics["feedback/shortened"].value() == 0.5


def test_a_question_that_does_not_fit_is_an_error_not_a_cut():
    given = rollout(["  exact h1"] * 2, [Status.REJECTED] * 2, [NOTE] * 2)
    with pytest.raises(DataError, match="at most 8 tokens"):
        distillation_batch(given, TOKENIZER, teacher_width=8)


def test_scoring_ends_with_the_first_token_that_feedback_would_change():
    proof = "  exact h1\n  exact h2\n  exact h1"
    # The attempt leaves the reference at "h2" (19 characters before it) or at "h1".
    notes = [Feedback(parts=("x",), offset=20), NOTE]
    given = rollout([proof] * 2, [Status.REJECTED] * 2, notes)
    batch, _ = distillation_batch(
        given, TOKENIZER, teacher_width=96, score="to_divergence"
    )
    scored = [
        TOKENIZER.decode(batch.responses[row][batch.mask[row]]) for row in range(2)
    ]
    assert scored == ["  exact h1\n  exact h2", "  exact h1"]
    everything, _ = distillation_batch(given, TOKENIZER, teacher_width=96)
    np.testing.assert_array_equal(everything.mask, given.completions.mask)


def test_an_attempt_that_stops_too_early_is_scored_to_its_end_token():
    proof = "  exact h1"
    note = Feedback(parts=("x",), offset=len(proof))
    given = rollout([proof] * 2, [Status.REJECTED] * 2, [note] * 2)
    batch, _ = distillation_batch(
        given, TOKENIZER, teacher_width=96, score="to_divergence"
    )
    np.testing.assert_array_equal(batch.mask, given.completions.mask)


def test_supervised_rows():
    batch = supervised_batch(
        TOKENIZER,
        [(PROBLEMS[0], None, "  exact h1"), (PROBLEMS[1], "hint", "  exact h2")],
        prompt_width=64,
        response_width=WIDTH,
    )
    assert batch.prompts.shape == (2, 64)
    assert batch.responses.shape == (2, WIDTH)
    texts = [TOKENIZER.decode(row[m]) for row, m in zip(*batch[2:], strict=True)]
    assert texts == ["  exact h1<|end|>", "  exact h2<|end|>"]
