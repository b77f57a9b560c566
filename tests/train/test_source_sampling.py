"""Problems by recent pass rate: what a run draws, says, keeps and hands on."""

import json
from collections import Counter

import jax
import jax.numpy as jnp
import pytest

import scripted
from fdjax.data.pipeline import batches
from fdjax.data.sampling import PassRateSampling
from fdjax.errors import CheckpointError, ConfigError
from fdjax.feedback import ConstantFeedback
from fdjax.judge import Judgement
from fdjax.metrics import StageTimer
from fdjax.records import Mean
from fdjax.train import FD, GRPO, RolloutSource, TrainState, needs_of
from scripted import Scripted
from tiny import PROBLEMS

REWARDS = {
    "t4": (1.0, 0.0),
    "t5": (0.0, 1.0),
    # Whoever should have judged it was down.
    "t6": (None, None),
    "t7": (1.0, 1.0),
}
"""Of both attempts at a problem; the others are never solved."""
SAMPLING = PassRateSampling(least_attempts=4, recent_attempts=4, retry_share=0.1)


class Known:
    """Gives the same rewards at every visit, and counts the visits."""

    def __init__(self):
        self.visits = []

    async def judge(self, attempts):
        name = attempts[0][0].name
        self.visits.append(name)
        return [
            Judgement(reward=reward, passed=reward == 1.0)
            for reward in REWARDS.get(name, (0.0, 0.0))
        ]


def pipeline():
    return scripted.pipeline(
        Scripted(["  skip"]), Known(), ConstantFeedback(text="hint")
    )


def made(through, term=None, problems=PROBLEMS, sampling=SAMPLING, **changes):
    settings = {"problems_per_step": 2, "group_size": 2, "seed": 0} | changes
    return RolloutSource(
        problems,
        through,
        needs=needs_of((term or GRPO(),)),
        updates_per_rollout=1,
        teacher_width=96,
        sampling=sampling,
        **settings,
    )


def drawn(source, iterations):
    """Names of the problems of each iteration, and the metrics of the last."""
    state = TrainState(
        params="weights",
        opt_state=(),
        teacher=None,
        step=jnp.int32(0),
        key=jax.random.key(5),
    )
    names, data = [], None
    for _ in range(iterations):
        data = source.next(state, StageTimer())
        names.append([group[0].problem.name for group in data.rollout.groups])
    return names, data.metrics


def test_never_solved_problems_are_visited_less():
    source = made(pipeline())
    names, metrics = drawn(source, 60)
    visits = Counter(name for pair in names for name in pair)
    # Two visits make the four attempts that are needed. Then t0 to t3 and t7 share a
    # tenth of the places, 120, and the others the rest: about 36 each.
    assert sum(visits[name] for name in ("t0", "t1", "t2", "t3", "t7")) <= 5 * 2 + 12
    assert all(visits[name] >= 30 for name in ("t4", "t5", "t6"))
    # Nothing is known about t6, which comes as often as those that are half solved.
    assert abs(visits["t6"] - visits["t4"]) <= 2
    assert metrics["sampling/solved"] == Mean(1, 8)
    assert metrics["sampling/unsolved"] == Mean(4, 8)
    assert metrics["sampling/filled"] == Mean(0, 2)


def test_retries_are_counted_in_their_iteration():
    source = made(pipeline())
    retried = [drawn(source, 1)[1]["sampling/retried"].value() * 2 for _ in range(40)]
    # Two places an iteration, a tenth of them: one in five iterations, once there is
    # something left out.
    assert set(retried) == {0.0, 1.0}
    assert retried[20:].count(1.0) == 4


def test_without_it_all_are_drawn_alike():
    source = made(pipeline(), sampling=None)
    names, metrics = drawn(source, 12)
    order = batches(PROBLEMS, batch_size=2, seed=0)
    assert names == [[problem.name for problem in next(order)] for _ in range(12)]
    assert not [name for name in metrics if name.startswith("sampling/")]


@pytest.mark.parametrize("before", [3, 17])
def test_a_resumed_source_draws_what_it_would_have_drawn(before):
    source = made(pipeline())
    drawn(source, before)
    saved = json.loads(json.dumps(source.get_state()))
    rest = drawn(source, 30)
    again = made(pipeline())
    again.set_state(saved)
    assert drawn(again, 30) == rest


def test_positions_of_other_draws_are_refused():
    uniform = made(pipeline(), sampling=None).get_state()
    with pytest.raises(CheckpointError, match="sampling was not said, now PassRate"):
        made(pipeline()).set_state(uniform)
    other = made(pipeline(), sampling=PassRateSampling()).get_state()
    with pytest.raises(CheckpointError, match=r"sampling was .*least_attempts=32"):
        made(pipeline()).set_state(other)


def test_the_next_phase_goes_on_with_what_is_known():
    through = pipeline()
    first = made(through, FD())
    second = made(through, after=first)
    drawn(first, 30)
    # All that can be left out already is.
    _, metrics = drawn(second, 1)
    assert metrics["sampling/unsolved"] == Mean(4, 8)
    # A later run of the second phase alone begins where its checkpoint was made.
    saved = json.loads(json.dumps(second.get_state()))
    rest = drawn(second, 9)
    again = made(pipeline())
    again.set_state(saved)
    assert drawn(again, 9) == rest


def test_the_next_phase_goes_on_with_the_next_problems():
    whole = drawn(made(pipeline(), sampling=None), 4)[0]
    through = pipeline()
    first = made(through, FD(), sampling=None)
    second = made(through, sampling=None, after=first)
    assert drawn(first, 3)[0] + drawn(second, 1)[0] == whole


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"problems": PROBLEMS[:6]}, "content of the rows"),
        ({"problems_per_step": 4}, "batch_size"),
        ({"seed": 1}, "seed"),
        ({"sampling": None}, "sampling"),
        ({"sampling": PassRateSampling()}, "sampling"),
    ],
)
def test_the_next_phase_has_the_same_problems(changed, named):
    first = made(pipeline())
    with pytest.raises(ConfigError, match=f"of the same {named}"):
        made(pipeline(), after=first, **changed)
