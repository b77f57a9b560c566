"""Arms of the ablations: each differs from Feedback Distillation in one thing."""

from dataclasses import fields, replace

import pytest

from experiments.ablations import CONFIG, arms
from fdjax.errors import ConfigError
from fdjax.run.task import phases_of
from fdjax.train import SyncedTeacher

ARMS = {arm.name: arm for arm in arms(CONFIG)}
(BASE,) = ARMS["frozen"].phases


def differing(one, other):
    return [
        field.name
        for field in fields(one)
        if getattr(one, field.name) != getattr(other, field.name)
    ]


@pytest.mark.parametrize(
    "name", [name for name in ARMS if "grpo" not in name and name != "frozen"]
)
def test_an_ablation_changes_one_thing(name):
    (phase,) = ARMS[name].phases
    (changed,) = [field for field in differing(phase, BASE) if field != "name"]
    value = getattr(phase, changed)
    if changed == "terms":
        assert len(differing(value[0], BASE.terms[0])) == 1
    elif changed == "optimizer":
        assert differing(value, BASE.optimizer) == ["learning_rate"]
    else:
        assert changed == "teacher"


def test_all_arms_have_the_same_budget_and_names_of_their_own():
    assert {sum(phase.steps for phase in arm.phases) for arm in ARMS.values()} == {
        CONFIG.steps
    }
    # It refuses two phases of one name.
    assert len(phases_of(list(ARMS.values()))) > len(ARMS)


def test_the_chosen_teacher_is_that_of_all_arms_but_the_teachers():
    synced = SyncedTeacher(every=7)
    by_name = {arm.name: arm for arm in arms(replace(CONFIG, teacher=synced))}
    assert by_name["jsd"].phases[0].teacher == synced
    assert by_name["fd_then_grpo_0.0001"].phases[0].teacher == synced
    assert by_name["frozen"].phases[0].teacher == BASE.teacher


def test_a_hand_over_behind_the_end_is_refused():
    with pytest.raises(ConfigError, match="handover"):
        replace(CONFIG, handover=CONFIG.steps)
