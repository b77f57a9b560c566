"""When an alarm is raised, as a function of the rows."""

import json
import math
import statistics
from typing import get_args

import jaxtyping
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fdjax.errors import ConfigError
from fdjax.train.guards import Alarm, Beyond, Guard, GuardsConfig, make_alarms
from fdjax.train.guards.alarms import ADVICE
from fdjax.train.guards.watch import Watch

HIGH = Alarm(guard="high", metric="a", above=1.0, patience=2)
SPIKE = Alarm(guard="spike", metric="a", above=3.0, median_of=3, floor=0.5)


def steps_raised(alarm, values):
    """Rows, from 0, at which a watch of one alarm raises it."""
    watch, found = Watch((alarm,)), []
    for step, value in enumerate(map(float, values)):
        watch, findings = watch.after({"a": value})
        found += [step] * len(findings)
    return found


@pytest.mark.parametrize(
    ("alarm", "values", "raised"),
    [
        (HIGH, [2, 1, 2, 2, 2, 0, 2, 2], [3, 7]),
        # What is undefined is no row.
        (HIGH, [2, math.nan, 2], [2]),
        (HIGH, [math.inf, math.inf], [1]),
        (Alarm(guard="low", metric="a", below=0.5), [0.5, 0.4, 0.4, 1], [1]),
        # The mean of two rows, from the second on.
        (Alarm(guard="mean", metric="a", above=0.5, window=2), [2, 0, 0, 1, 1], [1, 4]),
        # Medians of three rows: 1, 1, 2, ...; 3 × 1 is not beyond itself.
        (SPIKE, [1, 1, 2, 3.1, 1], [3]),
        (SPIKE, [1, 1, 2, 3.0, 1], []),
        (SPIKE, [1, 9], []),
        # Three times next to nothing is below the floor.
        (SPIKE, [0, 0, 0, 0.4, 0, 0, 0.6], [6]),
    ],
)
def test_rows_that_raise_it(alarm, values, raised):
    assert steps_raised(alarm, values) == raised


def test_one_that_stops_is_raised_as_long_as_its_cause_lasts():
    stop = Alarm(guard="high", metric="a", above=1.0, patience=2, stop=True)
    assert steps_raised(stop, [2, 2, 2, 0, 2, 2]) == [1, 2, 5]


@given(
    st.lists(st.floats(0, 10), max_size=30),
    st.integers(0, 30),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 4),
)
def test_a_checkpoint_between_rows_changes_nothing(values, cut, patience, window, rows):
    alarm = Alarm(
        guard="one",
        metric="a",
        above=1.5,
        patience=patience,
        window=window,
        median_of=rows,
    )
    watch, found = Watch((alarm,)), []
    for step, value in enumerate(values):
        if step == cut:
            state = json.loads(json.dumps(watch.get_state()))
            watch = Watch.from_state((alarm,), state)
        watch, findings = watch.after({"a": value})
        found += [step] * len(findings)
    # By all the rows at once, without a window that forgets.
    beyond = [alarm.beyond(values[:end]) for end in range(len(values) + 1)]
    assert found == [
        end - 1
        for end in range(1, len(values) + 1)
        if beyond[end] is not None and beyond[end - 1] is None
    ]


@given(st.lists(st.floats(0.1, 10), min_size=6, max_size=6))
def test_the_bound_is_a_multiple_of_the_median(values):
    alarm = Alarm(guard="one", metric="a", above=1.2, median_of=5)
    bound = 1.2 * statistics.median(values[:5])
    expected = Beyond(values[5], bound) if values[5] > bound else None
    assert alarm.beyond(values) == expected


@pytest.mark.parametrize("bounds", [{}, {"above": 1.0, "below": 0.0}])
def test_an_alarm_has_one_bound(bounds):
    with pytest.raises(ConfigError, match="either above or below"):
        Alarm(guard="one", metric="a", **bounds)


def test_each_guard_has_alarms_and_advice():
    assert set(ADVICE) == set(get_args(Guard))
    alarms = make_alarms(GuardsConfig(), "float32")
    assert {alarm.guard for alarm in alarms} == set(get_args(Guard)) - {"canaries"}
    stops = {alarm.guard for alarm in alarms if alarm.stop}
    assert stops == {"non_finite", "crashed", "feedback"}
    off = make_alarms(GuardsConfig(off=("kl", "length"), stop=("entropy",)), "float32")
    assert {alarm.guard for alarm in alarms} - {alarm.guard for alarm in off} == {
        "kl",
        "length",
    }
    assert {alarm.guard for alarm in off if alarm.stop} == {"entropy"}


GOOD = {
    "train/skipped": 0.0,
    "advantages/live_groups": 0.4,
    "verdict/crashed": 0.0,
    "verdict/timeout": 0.1,
    "feedback/missing": 0.05,
    "rollout/logprob_gap": 1e-5,
    "rollout/length": 100.0,
    "rollout/finished": 0.9,
    "fd/forward_kl": 0.2,
    "grpo/kl_k3": 1e-3,
    "gspo/kl_k3": 1e-3,
    "cispo/kl_k3": 1e-3,
    "grpo/reference_kl": 0.02,
    "rollout/entropy": 0.4,
    "rollout/marginal_entropy": 4.0,
}
"""A row of a run in good health."""


@pytest.mark.parametrize(
    ("guard", "faulty", "rows"),
    [
        ("non_finite", {"train/skipped": 1.0}, 1),
        ("equal_groups", {"advantages/live_groups": 0.0}, 3),
        ("crashed", {"verdict/crashed": 0.9}, 3),
        ("timeout", {"verdict/timeout": 0.9}, 3),
        ("feedback", {"feedback/missing": 1.0}, 3),
        ("logprob_gap", {"rollout/logprob_gap": 0.01}, 1),
        ("logprob_gap", {"rollout/logprob_gap": math.inf}, 1),
        ("length", {"rollout/length": 250.0}, 3),
        ("length", {"rollout/finished": 0.0}, 3),
        ("kl", {"fd/forward_kl": 2.0}, 1),
        ("kl", {"grpo/kl_k3": 0.02}, 1),
        ("kl", {"gspo/kl_k3": 0.02}, 1),
        ("kl", {"cispo/kl_k3": 0.02}, 1),
        ("kl", {"grpo/reference_kl": 0.2}, 1),
        ("entropy", {"rollout/entropy": 0.1}, 3),
        ("marginal_entropy", {"rollout/marginal_entropy": 1.0}, 3),
    ],
)
def test_a_fault_raises_its_guard_and_no_other(guard, faulty, rows):
    """After 21 good rows, in the row in which patience ends."""
    watch = Watch(make_alarms(GuardsConfig(), "float32"))
    for row in range(21):
        # Steady, not still.
        watch, found = watch.after(
            {key: value * (1 + 0.1 * (row % 3)) for key, value in GOOD.items()}
        )
        assert found == []
    raised = []
    for row in range(1, 4):
        watch, found = watch.after(GOOD | faulty)
        raised += [(finding.alarm.guard, row) for finding in found]
    assert raised[0] == (guard, rows)
    assert {name for name, _ in raised} == {guard}


def test_a_policy_that_is_collapsed_from_the_beginning():
    """Without rows before, the absolute bounds still hold."""
    watch = Watch(make_alarms(GuardsConfig(), "float32"))
    dead = GOOD | {"rollout/entropy": 0.0, "rollout/marginal_entropy": 0.1}
    for _ in range(3):
        watch, found = watch.after(dead)
    assert [finding.alarm.guard for finding in found] == ["entropy", "marginal_entropy"]


def test_skipped_steps_past_their_share_end_the_run():
    """One of four is 0.25 of 20 rows, above 0.2; before there are 20, none is."""
    watch = Watch(make_alarms(GuardsConfig(), "float32"))
    stopped = []
    for row in range(30):
        watch, found = watch.after({"train/skipped": float(row % 4 == 0)})
        stopped += [row for finding in found if finding.alarm.stop]
    assert stopped[0] == 19


def test_rounding_in_bfloat16_is_no_gap():
    for activations, bound in (("float32", 1e-3), ("bfloat16", 0.05)):
        [gap] = [
            alarm
            for alarm in make_alarms(GuardsConfig(), activations)
            if alarm.guard == "logprob_gap"
        ]
        assert gap.above == bound


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"stop": ("crash",)}, "guards.stop of non_finite, .*got crash"),
        ({"off": ("crash",)}, "guards.off of"),
        ({"kl_factor": 1.0}, "kl_factor"),
        ({"crashed": 1.5}, "crashed"),
        ({"canary_every": 0}, "canary_every"),
        ({"logprob_gap": 0.0}, "logprob_gap"),
    ],
)
def test_settings_out_of_range_are_refused(setting, said, monkeypatch):
    # As in production, where nothing else looks at an argument.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ConfigError, match=said):
        GuardsConfig(**setting)
