"""Episodes of several turns as rows of a batch, and through the pipeline."""

from contextlib import nullcontext
from dataclasses import replace

import jax
import numpy as np
import pytest

import judging
import scripted
from episodes.scripted import ECHO, call_text, echo_box
from fdjax.data.formats import PLAIN
from fdjax.data.tokenizer import continuation_tokens, end_token
from fdjax.episodes import Budget, Episodes, Fenced, Turn
from fdjax.errors import ConfigError
from fdjax.feedback import Feedback
from fdjax.judge import Judgement
from fdjax.lean import Status, Verdict
from fdjax.rollout import Pipeline, rollout_batch
from fdjax.train.rollout_source import rollout_metrics
from scripted import sample
from tiny import PROBLEMS, TOKENIZER

WRONG = "  exact h1"
NOTE = Feedback(parts=("h1 is the wrong side",), offset=WRONG.index("h1"))


def said(text):
    [ids] = continuation_tokens(TOKENIZER, [text])
    return sample([*ids, end_token(TOKENIZER)], version=4)


def between(count):
    return Turn(role="tool", tokens=np.full(count, 7, np.int32))


def rollout(**changes):
    """Two attempts: of three turns, and a whole proof."""
    first, last = said("  skip"), said(WRONG)
    turns = [judging.turn(first), between(5), judging.turn(replace(last, version=6))]
    made = judging.rollout(
        [WRONG, WRONG],
        [Verdict(status=Status.REJECTED)] * 2,
        [NOTE, NOTE],
        width=40,
        sampled=[turns, last],
    )
    if changes:
        episode = replace(made.trajectories[0].episode, **changes)
        trajectories = (
            replace(made.trajectories[0], episode=episode),
            *made.trajectories[1:],
        )
        made = replace(made, trajectories=trajectories)
    return made, len(first.tokens), len(last.tokens)


def test_a_row_is_read_whole_and_trained_on_where_it_is_the_policys():
    given, first, last = rollout()
    batch, metrics = rollout_batch(
        given, TOKENIZER, old_logprobs=True, teacher_width=120
    )
    own = [True] * first + [False] * 5 + [True] * last
    length = len(own)
    assert batch.response_valid[0].tolist() == [True] * length + [False] * (40 - length)
    assert batch.written[0, :length].tolist() == own
    assert not batch.written[0, length:].any()
    assert batch.responses[0, first : first + 5].tolist() == [7] * 5
    np.testing.assert_array_equal(batch.feedback.mask, batch.written)
    np.testing.assert_array_equal(batch.old_logprobs, np.where(batch.written, -0.5, 0))
    # Of the oldest weights that wrote in it.
    assert batch.version.tolist() == [4, 4]
    assert metrics["feedback/available"].value() == 1
    counted = rollout_metrics(given)
    assert counted["rollout/turns"] == (2 + 1, 2)
    assert counted["rollout/length"] == (first + 2 * last, 2)


def test_up_to_the_divergence_counts_in_the_last_turn():
    given, first, last = rollout()
    batch, _ = rollout_batch(given, TOKENIZER, teacher_width=120, score="to_divergence")
    scored = batch.feedback.mask
    whole = scored[1, :last]
    assert 0 < whole.sum() < last
    assert scored[0, :first].all()
    assert scored[0, first + 5 : first + 5 + last].tolist() == whole.tolist()


def test_a_file_that_a_tool_was_given_has_no_divergence():
    given, _, _ = rollout(from_file=True)
    batch, _ = rollout_batch(given, TOKENIZER, teacher_width=120, score="to_divergence")
    np.testing.assert_array_equal(batch.feedback.mask[0], batch.written[0])


class Opens:
    def open(self):
        return nullcontext(echo_box())


class Reads:
    """Judges by what is in the text, and comments with it."""

    async def judge(self, attempts):
        return [
            Judgement(reward=float("exact" in text), answer=text)
            for _, text in attempts
        ]

    async def write(self, group):
        return [Feedback(parts=(attempt.text.strip(),)) for attempt in group]


def calling(turns, **changes):
    sampler = scripted.Scripted(["  rfl"])
    sampler.samples = [said(turn) for turn in turns]
    given = {
        "episodes": Episodes(
            tokenizer=TOKENIZER,
            format=PLAIN,
            calls=Fenced(specs=(ECHO,), place="user"),
            budget=Budget(tokens=400, prompt_tokens=400),
        ),
        "tools": Opens(),
    }
    return Pipeline(sampler=sampler, judge=Reads(), writer=Reads(), **(given | changes))


def fenced_call(text):
    inner = call_text(text).split("\n")[1]
    return f"```tool\n{inner}\n```"


def test_attempts_with_tools_go_through_judge_and_writer():
    pipeline = calling([fenced_call("again"), "  exact h1"])
    collected = pipeline.collect(None, PROBLEMS[:1], jax.random.key(0), group_size=1)
    [attempt] = collected.trajectories
    assert [turn.role for turn in attempt.episode.turns] == [
        *("user", "assistant", "tool", "assistant")
    ]
    assert attempt.text == "  exact h1"
    assert attempt.judgement.reward == 1
    assert attempt.feedback.text == "exact h1"
    assert attempt.episode.observations[0].text == "again"
    batch, _ = rollout_batch(
        collected, TOKENIZER, teacher_width=500, format=pipeline.format
    )
    own = np.concatenate([each.tokens for each in pipeline.sampler.samples])
    np.testing.assert_array_equal(batch.responses[0][batch.written[0]], own)
    # The teacher reads of the tools, too, and of the feedback once.
    read = TOKENIZER.decode(batch.feedback.prompts[0][batch.feedback.valid[0]])
    assert "You may use tools" in read
    assert read.count("exact h1") == 1
    assert rollout_metrics(collected)["rollout/calls"] == (1, 1)


@pytest.mark.parametrize("lacking", ["tools", "calls"])
def test_tools_and_calls_go_together(lacking):
    changes = {"tools": None}
    if lacking == "calls":
        budget = Budget(tokens=24, prompt_tokens=64)
        changes = {"episodes": Episodes(tokenizer=TOKENIZER, budget=budget)}
    with pytest.raises(ConfigError, match="give both or neither"):
        calling([], **changes)
