from dataclasses import replace

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

import judging
from fdjax.advantages import zscore
from fdjax.data.chat import proof_tokens
from fdjax.errors import ConfigError, DataError
from fdjax.feedback import Feedback
from fdjax.lean import Status, Verdict
from fdjax.rollout import rollout_batch, supervised_batch
from fdjax.train import FD, GRPO
from scripted import sample
from small_tokenizers import sentencepiece
from tiny import PROBLEMS, TOKENIZER

WIDTH = 24


def rollout(proofs, statuses, feedback, group_size=2):
    verdicts = [Verdict(status=status) for status in statuses]
    return judging.rollout(
        proofs, verdicts, feedback, group_size=group_size, width=WIDTH
    )


NOTE = Feedback(parts=("hint", "error"), offset=9)


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
    batch, _ = rollout_batch(given, TOKENIZER, advantages=jax.device_get(advantages))
    # Group 1: (1 - 0.5) / (0.5 + 1e-4). Group 2 knows one reward: nothing to compare.
    expected = 0.5 / 0.5001
    np.testing.assert_allclose(batch.advantages, [expected, -expected, 0, 0], rtol=1e-6)
    assert batch.known.tolist() == [True, True, True, False]
    assert batch.passed.tolist() == [True, False, True, False]
    # One of two, and one of the one that is known.
    assert batch.pass_rate.tolist() == [0.5, 0.5, 1.0, 1.0]
    for term in (GRPO(), GRPO(route="all"), FD(reads="nothing")):
        mask = np.asarray(term.mask(batch))
        np.testing.assert_array_equal(mask[:3], batch.written[:3])
        assert not mask[3].any()


def test_batches_carry_the_policys_logprobs_and_how_was_sampled():
    given = rollout(["  exact h1"] * 2, [Status.REJECTED] * 2, [NOTE] * 2)
    batch, _ = rollout_batch(given, TOKENIZER, old_logprobs=True)
    # Those of the distribution cut by top-k are -0.25 here.
    np.testing.assert_array_equal(batch.old_logprobs[batch.response_valid], -0.5)
    assert batch.sampling == given.sampling


def test_teacher_reads_feedback_and_the_students_own_tokens():
    given = rollout(["  exact h1"] * 2, [Status.REJECTED] * 2, [NOTE] * 2)
    batch, metrics = rollout_batch(given, TOKENIZER, teacher_width=96)
    prompt = batch.feedback.prompts[0][batch.feedback.valid[0]]
    text = TOKENIZER.decode(prompt)
    assert text == f"<|user|>hint\nerror\n{PROBLEMS[0].statement} := by<|assistant|>"
    np.testing.assert_array_equal(batch.responses, given.responses.tokens)
    assert metrics["feedback/available"].value() == 1.0
    assert metrics["feedback/shortened"].value() == 0.0


def test_samples_without_feedback_are_not_scored():
    given = rollout(
        ["  exact h1"] * 2,
        [Status.REJECTED, Status.CRASHED],
        [NOTE, Feedback(error="no verdict")],
    )
    batch, metrics = rollout_batch(given, TOKENIZER, teacher_width=96)
    assert batch.feedback.mask[0].any()
    assert not batch.feedback.mask[1].any()
    assert metrics["feedback/available"].value() == 0.5


def test_long_feedback_loses_its_last_parts_and_is_counted():
    long = Feedback(parts=("hint", "error " * 40))
    given = rollout(["  exact h1"] * 2, [Status.REJECTED] * 2, [NOTE, long])
    batch, metrics = rollout_batch(given, TOKENIZER, teacher_width=64)
    text = TOKENIZER.decode(batch.feedback.prompts[1][batch.feedback.valid[1]])
    assert text.startswith("<|user|>hint\ntheorem")
    assert metrics["feedback/shortened"].value() == 0.5


def test_a_teacher_that_reads_nothing_teaches_nothing():
    """Feedback of one part, as a language model writes it, that does not fit."""
    notes = [
        Feedback(parts=("error " * 40,)),
        Feedback(parts=("", "error " * 40)),  # a blank is left of it
        Feedback(parts=("hint",)),
        Feedback(error="no verdict"),
    ]
    given = rollout(["  exact h1"] * 4, [Status.REJECTED] * 4, notes)
    batch, metrics = rollout_batch(given, TOKENIZER, teacher_width=64)
    assert batch.feedback.mask.any(axis=1).tolist() == [False, False, True, False]
    values = {name: mean.value() for name, mean in metrics.items()}
    assert values == {
        "feedback/available": 0.25,
        "feedback/shortened": 0.0,
        "feedback/dropped": 0.5,
    }


def test_a_question_too_long_for_the_teacher_is_masked_and_counted():
    given = rollout(["  exact h1"] * 2, [Status.REJECTED] * 2, [NOTE] * 2)
    batch, metrics = rollout_batch(given, TOKENIZER, teacher_width=8)
    assert batch.feedback.prompts.shape == (2, 8)
    assert not batch.feedback.mask.any()
    assert metrics["feedback/dropped"].value() == 1.0
    assert metrics["feedback/available"].value() == 0.0


@pytest.mark.parametrize(
    ("advantages", "message"),
    [
        ([0.5, float("nan")], "finite advantages .*, got 1"),
        ([0.5, -0.5, 0.0], "advantages for 2 attempts, got 3"),
    ],
)
def test_advantages_must_be_numbers_one_for_each_attempt(advantages, message):
    given = rollout(["  exact h1"] * 2, [Status.VERIFIED, Status.REJECTED], [NOTE] * 2)
    with pytest.raises(DataError, match=message):
        rollout_batch(given, TOKENIZER, advantages=np.array(advantages))


@pytest.mark.parametrize("group_size", [0, -1, 3])
def test_groups_are_whole(group_size):
    given = rollout(["  exact h1"] * 2, [Status.REJECTED] * 2, [NOTE] * 2)
    with pytest.raises(DataError, match="group_size"):
        replace(given, group_size=group_size)


def test_there_is_no_such_score(monkeypatch):
    # The library's own check is under test, so the type checker of the tests is off.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    given = rollout(["  exact h1"] * 2, [Status.REJECTED] * 2, [NOTE] * 2)
    with pytest.raises(ConfigError, match="expected score to be one of all, to_div"):
        rollout_batch(
            given,
            TOKENIZER,
            teacher_width=96,
            score="to_divergense",  # type: ignore[arg-type]
        )


def test_scoring_ends_with_the_first_token_that_feedback_would_change():
    proof = "  exact h1\n  exact h2\n  exact h1"
    # The attempt leaves the reference at "h2" (19 characters before it) or at "h1".
    notes = [Feedback(parts=("x",), offset=20), NOTE]
    given = rollout([proof] * 2, [Status.REJECTED] * 2, notes)
    batch, _ = rollout_batch(given, TOKENIZER, teacher_width=96, score="to_divergence")
    scored = [
        TOKENIZER.decode(batch.responses[row][batch.feedback.mask[row]])
        for row in range(2)
    ]
    assert scored == ["  exact h1\n  exact h2", "  exact h1"]
    everything, _ = rollout_batch(given, TOKENIZER, teacher_width=96)
    np.testing.assert_array_equal(everything.feedback.mask, given.responses.mask)


def test_characters_are_counted_as_the_proof_has_them():
    """SentencePiece: a first blank lost here would score a token less."""
    tokenizer = sentencepiece("prepend")
    proof = "  ex\n  ab"
    (ids,) = proof_tokens(tokenizer, [proof])
    assert tokenizer.convert_ids_to_tokens(ids[:-1]) == [
        *("▁▁", "ex", "<0x0A>", "▁▁", "a", "b")
    ]
    given = judging.rollout(
        [proof],
        [Verdict(status=Status.REJECTED)],
        [Feedback(parts=("x",), offset=proof.index("a"))],
        group_size=1,
        width=len(ids),
        sampled=[sample(ids)],
    )
    batch, _ = rollout_batch(given, tokenizer, teacher_width=160, score="to_divergence")
    assert batch.feedback.mask[0].tolist() == [True] * 5 + [False] * 2


def test_an_attempt_that_stops_too_early_is_scored_to_its_end_token():
    proof = "  exact h1"
    note = Feedback(parts=("x",), offset=len(proof))
    given = rollout([proof] * 2, [Status.REJECTED] * 2, [note] * 2)
    batch, _ = rollout_batch(given, TOKENIZER, teacher_width=96, score="to_divergence")
    np.testing.assert_array_equal(batch.feedback.mask, given.responses.mask)


def test_a_wrong_hint_is_one_for_the_next_problem_that_has_some():
    """Four problems, two attempts each; of the second problem nobody wrote."""
    notes = [Feedback(parts=(f"hint {row}",)) for row in range(8)]
    notes[2] = notes[3] = Feedback(error="the writer failed")
    given = rollout(["  exact h1"] * 8, [Status.REJECTED] * 8, notes)
    batch, metrics = rollout_batch(
        given, TOKENIZER, teacher_width=96, wrong_feedback=True
    )
    wrong = batch.wrong_feedback
    texts = [
        TOKENIZER.decode(row[keep])
        for row, keep in zip(wrong.prompts, wrong.valid, strict=True)
    ]
    hints = [text.removeprefix("<|user|>").split("\n")[0] for text in texts]
    assert hints == [f"hint {row}" for row in (4, 5, 4, 5, 6, 7, 0, 1)]
    # The question is one's own.
    assert all(
        f"{PROBLEMS[row // 2].statement} := by" in text
        for row, text in enumerate(texts)
    )
    # Without a right hint there is nothing to contrast.
    scored = np.asarray(FD(contrast=1.0).mask(batch)).any(axis=1)
    assert scored.tolist() == [True, True, False, False, True, True, True, True]
    assert metrics["feedback/contrasted"] == (6, 8)


def test_without_another_problem_nothing_is_contrasted():
    given = rollout(["  exact h1"] * 2, [Status.REJECTED] * 2, [NOTE] * 2)
    batch, metrics = rollout_batch(
        given, TOKENIZER, teacher_width=96, wrong_feedback=True
    )
    assert batch.feedback.mask.any()
    assert not batch.wrong_feedback.mask.any()
    assert metrics["feedback/contrasted"] == (0, 2)


def test_supervised_rows():
    batch, metrics = supervised_batch(
        TOKENIZER,
        [(PROBLEMS[0], None, "  exact h1"), (PROBLEMS[1], "hint", "  exact h2")],
        prompt_width=64,
        response_width=WIDTH,
    )
    assert batch.prompts.shape == (2, 64)
    assert batch.responses.shape == (2, WIDTH)
    texts = [
        TOKENIZER.decode(row[m])
        for row, m in zip(batch.responses, batch.written, strict=True)
    ]
    assert texts == ["  exact h1<|end|>", "  exact h2<|end|>"]
    assert metrics["sft/overlong"] == (0, 2)


def test_supervised_rows_that_are_too_long_are_not_scored():
    batch, metrics = supervised_batch(
        TOKENIZER,
        [
            (PROBLEMS[0], None, "  exact h1"),
            (PROBLEMS[0], "hint " * 40, "  exact h1"),
            (PROBLEMS[0], None, "  exact h1" * 20),
        ],
        prompt_width=64,
        response_width=WIDTH,
    )
    assert batch.written.any(axis=1).tolist() == [True, False, False]
    assert metrics["sft/overlong"] == (2, 3)


def test_no_rows_are_an_error():
    with pytest.raises(DataError, match="expected rows"):
        supervised_batch(TOKENIZER, [], prompt_width=8, response_width=8)
