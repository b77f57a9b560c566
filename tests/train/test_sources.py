"""What each source hands to the steps, and where it goes on after a checkpoint."""

import json
import math
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scripted
from fdjax.data.pipeline import batches
from fdjax.feedback import Feedback
from fdjax.judge import LeanJudge
from fdjax.lean import FakeBackend, Verifier
from fdjax.metrics import StageTimer
from fdjax.records import Mean
from fdjax.train import (
    FD,
    GRPO,
    SFT,
    AlternatingSource,
    RolloutSource,
    Source,
    StepData,
    SupervisedSource,
    TrainState,
    needs_of,
)
from scripted import Scripted
from tiny import PROBLEMS, TOKENIZER

ROWS = [(problem, None, problem.references[0]) for problem in PROBLEMS]


def state(step=0):
    return TrainState(
        params="weights",
        opt_state=(),
        teacher=None,
        step=jnp.int32(step),
        key=jax.random.key(5),
    )


def supervised(rows=ROWS, **changes):
    settings = {"batch_size": 4, "seed": 0, "prompt_width": 64, "response_width": 24}
    return SupervisedSource(rows, TOKENIZER, **(settings | changes))


def texts(tokens, mask):
    return [TOKENIZER.decode(row[keep]) for row, keep in zip(tokens, mask, strict=True)]


def draw(source, count=1):
    """The next data, as what a step would see of it."""
    return [
        [leaf.tolist() for batch in data.batches for leaf in jax.tree.leaves(batch)]
        for data in (source.next(state(), StageTimer()) for _ in range(count))
    ]


def test_supervised_batches_hold_the_rows_in_the_order_of_the_seed():
    source, timer = supervised(seed=3), StageTimer()
    order = batches(ROWS, batch_size=4, seed=3)
    seen = []
    for _ in range(2):
        data, rows = source.next(state(), timer), next(order)
        (batch,) = data.batches
        assert texts(batch.responses, batch.written) == [
            f"{p}<|end|>" for _, _, p in rows
        ]
        prompts = texts(batch.prompts, batch.prompt_valid)
        assert prompts == [
            f"<|user|>{problem.statement} := by<|assistant|>" for problem, _, _ in rows
        ]
        assert data.rollout is None
        assert data.metrics == {"sft/overlong": Mean(0, 4)}
        seen += prompts
    # An epoch: each of the eight problems once.
    assert len(set(seen)) == 8
    assert list(timer.take()) == ["time/data_s"]


def test_rows_that_do_not_fit_are_counted_and_not_scored():
    # The longest proofs are "  exact ⟨h1, h2⟩" and its mirror: four rows of eight.
    fits = [len(row) for row in TOKENIZER([p for _, _, p in ROWS])["input_ids"]]
    assert [length == max(fits) for length in fits] == [False, False, True, True] * 2
    source = supervised(batch_size=8, response_width=max(fits))
    data = source.next(state(), StageTimer())
    assert data.metrics["sft/overlong"] == Mean(4, 8)
    assert data.batches[0].written.any(axis=1).sum() == 4


@pytest.mark.parametrize("before", [0, 1, 3])
def test_a_source_goes_on_where_its_state_was_taken(before):
    source = supervised()
    draw(source, before)
    saved = json.loads(json.dumps(source.get_state()))
    rest = draw(source, 4)
    again = supervised()
    again.set_state(saved)
    assert draw(again, 4) == rest
    # The batches differ, so that the wrong place would show.
    assert all(first != second for first, second in pairwise(rest))


def test_skipping_is_drawing_and_dropping():
    drawn, skipped = supervised(), supervised()
    draw(drawn, 3)
    skipped.skip(3)
    assert skipped.get_state() == drawn.get_state()
    assert draw(skipped) == draw(drawn)


class Named:
    """A source whose data are its name and how often it was asked."""

    def __init__(self, name):
        self.name, self.calls = name, 0

    def next(self, state, timer):
        self.calls += 1
        return StepData(batches=[(self.name, self.calls)], metrics={})

    def get_state(self):
        return {"calls": self.calls}

    def set_state(self, state):
        self.calls = state["calls"]


def turns(source, count):
    return "".join(
        source.next(state(), StageTimer()).batches[0][0] for _ in range(count)
    )


@pytest.mark.parametrize(
    ("share", "order"),
    [
        # The second has turn n where ⌊(n + 1) share⌋ exceeds ⌊n share⌋.
        (0.0, "aaaaaaaa"),
        (0.25, "aaabaaab"),
        (0.5, "abababab"),
        (0.75, "abbbabbb"),
        (1.0, "bbbbbbbb"),
    ],
)
def test_turns_follow_the_share(share, order):
    first, second = Named("a"), Named("b")
    assert turns(AlternatingSource(first, second, share=share), 8) == order
    assert (first.calls, second.calls) == (order.count("a"), order.count("b"))


def test_turns_go_on_after_a_checkpoint():
    source = AlternatingSource(Named("a"), Named("b"), share=0.25)
    assert turns(source, 2) == "aa"
    saved = json.loads(json.dumps(source.get_state()))
    first, second = Named("a"), Named("b")
    again = AlternatingSource(first, second, share=0.25)
    again.set_state(saved)
    assert first.calls == 2
    assert turns(again, 6) == "abaaab"
    assert (first.calls, second.calls) == (6, 2)


PROOFS = ("  trivial", "  skip", "  skip", "  run_cmd")
"""Of two problems, two attempts each; the verifier accepts the first."""


class Hints:
    """Feedback on what was rejected alone."""

    async def write(self, group):
        return [
            Feedback(error="a proof")
            if attempt.verdict.verified
            else Feedback(parts=(f"not {attempt.proof.strip()}",))
            for attempt in group
        ]


@pytest.fixture
def pipeline():
    with Verifier(FakeBackend, workers=1) as verifier:
        yield scripted.pipeline(Scripted(PROOFS), LeanJudge(verifier=verifier), Hints())


def names_asked(pipeline):
    """Of the problems of each rollout."""
    names = [TOKENIZER.decode(ids).split()[1] for ids, _ in pipeline.sampler.asked[::2]]
    return [names[start : start + 2] for start in range(0, len(names), 2)]


BUDGET = {
    "problems_per_step": 2,
    "group_size": 2,
    "updates_per_rollout": 2,
    "seed": 0,
}


def reinforced(pipeline, **changes):
    needs = needs_of((GRPO(advantage="centred"),))
    return RolloutSource(PROBLEMS, pipeline, needs=needs, **(BUDGET | changes))


def test_policy_batches_are_the_interleaved_attempts_with_their_advantages(pipeline):
    source = reinforced(pipeline)
    data = source.next(state(), StageTimer())
    # Rewards (1, 0) and (0, 0), means 1/2 and 0: A = (1/2, -1/2, 0, 0).
    even, odd = data.batches
    assert even.advantages.tolist() == [0.5, 0.0]
    assert odd.advantages.tolist() == [-0.5, 0.0]
    assert texts(even.responses, even.written) == ["  trivial<|end|>", "  skip<|end|>"]
    assert texts(odd.responses, odd.written) == ["  skip<|end|>", "  run_cmd<|end|>"]
    assert data.rollout is not None
    written = tuple(each.text for each in data.rollout.trajectories)
    assert written == PROOFS
    assert data.metrics["reward/mean"] == Mean(1.0, 4)
    assert data.metrics["rollout/live_groups"] == Mean(1, 2)
    assert data.metrics["advantages/live_groups"] == Mean(1, 2)
    assert data.metrics["advantages/known_rewards"] == Mean(4, 4)


def test_attempts_are_those_of_the_state_at_the_next_problems(pipeline):
    source = reinforced(pipeline)
    for step in (0, 7):
        source.next(state(step), StageTimer())
    order = batches(PROBLEMS, batch_size=2, seed=0)
    root = jax.random.key(5)
    assert pipeline.sampler.published == [("weights", 0), ("weights", 7)]
    # Before each step the devices are the trainer's.
    assert pipeline.sampler.rests == [4, 8]
    assert names_asked(pipeline) == [
        [problem.name for problem in next(order)] for _ in range(2)
    ]
    keys = [
        # Of rollout, attempt, turn.
        jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(root, step), row), 0)
        for step in (0, 7)
        for row in range(4)
    ]
    assert [key for _, key in pipeline.sampler.asked] == [
        jax.random.key_data(key).tolist() for key in keys
    ]


def test_distillation_scores_what_has_feedback(pipeline):
    needs = needs_of((FD(),))
    source = RolloutSource(PROBLEMS, pipeline, needs=needs, teacher_width=96, **BUDGET)
    timer = StageTimer()
    data = source.next(state(), timer)
    even, odd = data.batches
    # The first attempt is a proof and has none.
    assert even.feedback.mask.any(axis=1).tolist() == [False, True]
    assert odd.feedback.mask.any(axis=1).tolist() == [True, True]
    taught = texts(odd.feedback.prompts, odd.feedback.valid)
    assert [text.split("\n")[0] for text in taught] == [
        "<|user|>not skip",
        "<|user|>not run_cmd",
    ]
    assert data.metrics["feedback/available"] == Mean(3, 4)
    assert data.metrics["feedback/dropped"] == Mean(0, 4)
    assert data.metrics["reward/mean"] == Mean(1.0, 4)
    assert set(timer.take()) == {
        f"time/{stage}_s" for stage in ("sample", "verify", "feedback", "data")
    }


def test_a_batch_has_what_is_read_and_no_more(pipeline):
    terms = {
        "imitation": SFT(),
        "policy": GRPO(),
        "fresh": FD(importance_cap=None),
        "control": FD(reads="nothing"),
        "contrast": FD(contrast=1.0),
    }
    made = {}
    for name, term in terms.items():
        source = RolloutSource(
            PROBLEMS, pipeline, needs=needs_of((term,)), teacher_width=96, **BUDGET
        )
        batch = source.next(state(3), StageTimer()).batches[0]
        optional = ("advantages", "old_logprobs", "feedback", "wrong_feedback")
        made[name] = {part for part in optional if getattr(batch, part) is not None}
    assert made == {
        "imitation": set(),
        "policy": {"advantages", "old_logprobs"},
        "fresh": {"feedback"},
        "control": {"old_logprobs"},
        "contrast": {"old_logprobs", "feedback", "wrong_feedback"},
    }
    assert batch.version.tolist() == [3, 3]


def test_rollout_metrics_by_hand(pipeline):
    source = reinforced(pipeline)
    data = source.next(state(), StageTimer())
    assert data.rollout is not None
    written = int(data.rollout.responses.mask.sum())
    values = {
        name: mean
        for name, mean in data.metrics.items()
        if name.startswith(("rollout/", "verdict/"))
    }
    assert values == {
        "rollout/staleness": Mean(0, 4),
        # `sample` says 1 nat of each token, and that each row ended.
        "rollout/entropy": Mean(float(written), written),
        "rollout/length": Mean(written, 4),
        "rollout/turns": Mean(4, 4),
        "rollout/calls": Mean(0, 4),
        "rollout/finished": Mean(4, 4),
        "rollout/answerless": Mean(0, 4),
        "rollout/live_groups": Mean(1, 2),
        "rollout/overlong_prompts": Mean(0, 4),
        "rollout/broken_statements": Mean(0, 4),
        "verdict/verified": Mean(1, 4),
        "verdict/rejected": Mean(2, 4),
        # The scan of the text refuses `run_cmd`.
        "verdict/unsafe": Mean(1, 4),
        "verdict/timeout": Mean(0, 4),
        "verdict/crashed": Mean(0, 4),
    }
    assert math.isclose(values["rollout/entropy"].value(), 1.0)


def test_sampling_sources_go_on_at_the_next_problems(pipeline):
    source = reinforced(pipeline)
    source.next(state(), StageTimer())
    saved = json.loads(json.dumps(source.get_state()))
    source.next(state(), StageTimer())
    again = reinforced(pipeline)
    again.set_state(saved)
    again.next(state(), StageTimer())
    first, second, resumed = names_asked(pipeline)
    assert resumed == second != first
    assert isinstance(again, Source)


def test_updates_take_equal_shares_of_every_group(pipeline):
    """Four updates of one attempt each; together they are the whole rollout."""
    source = reinforced(pipeline, updates_per_rollout=4)
    data = source.next(state(), StageTimer())
    assert data.rollout is not None
    assert [batch.written.shape[0] for batch in data.batches] == [1] * 4
    np.testing.assert_array_equal(
        np.concatenate([batch.responses for batch in data.batches]),
        data.rollout.responses.tokens,
    )
