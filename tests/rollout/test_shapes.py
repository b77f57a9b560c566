"""The annotations of batch types are true of what is put into them.

A NamedTuple checks nothing when it is made; in a pytree its fields hold anything.
"""

import jax
import numpy as np
import pytest
from beartype.door import is_bearable
from jaxtyping import jaxtyped

import judging
from fdjax.feedback import Feedback
from fdjax.lean import Status, Verdict
from fdjax.rollout import rollout_batch, supervised_batch
from tiny import PROBLEMS, TOKENIZER


def supervised():
    rows = [(problem, "hint", problem.references[0]) for problem in PROBLEMS[:3]]
    return supervised_batch(TOKENIZER, rows, prompt_width=80, response_width=24)[0]


def rollout():
    return judging.rollout(
        ["  exact h1", "  trivial"],
        [Verdict(status=Status.VERIFIED), Verdict(status=Status.CRASHED)],
        [Feedback(parts=("hint",)), Feedback(error="none")],
    )


def policy():
    advantages = np.array([[0.5, 0.0]])
    return rollout_batch(
        rollout(), TOKENIZER, advantages=advantages, old_logprobs=True
    )[0]


def distillation():
    return rollout_batch(rollout(), TOKENIZER, teacher_width=96, wrong_feedback=True)[0]


def prompts_of_the_teacher():
    return distillation().feedback


def mistyped(batch):
    """Fields that are not of their type, all axes read together."""
    with jaxtyped("context"):
        return [
            name
            for name, annotation in type(batch).__annotations__.items()
            if not is_bearable(getattr(batch, name), annotation)
        ]


@pytest.mark.parametrize(
    "make", [supervised, policy, distillation, prompts_of_the_teacher]
)
def test_fields_are_of_their_types(make):
    batch = make()
    assert mistyped(batch) == []
    assert mistyped(jax.tree.map(np.asarray, batch)) == []
    # A step that reads the batch sees the same types.
    traced = []
    jax.eval_shape(lambda batch: traced.extend(mistyped(batch)), batch)
    assert traced == []


def test_responses_are_of_their_types():
    assert mistyped(rollout().responses) == []


def test_a_field_of_another_shape_or_type_shows():
    batch = policy()
    assert mistyped(batch._replace(advantages=batch.advantages[:1])) == ["advantages"]
    assert mistyped(batch._replace(written=batch.written[:, :5])) == ["written"]
    flawed = batch._replace(responses=batch.responses.astype(np.int64))
    assert mistyped(flawed) == ["responses"]
