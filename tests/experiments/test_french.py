"""The parts of the French experiment that need no model."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest

from experiments.french import CONFIG, FrenchJudge, arms, claims, french_share, task
from fdjax.errors import ConfigError
from fdjax.run import SeedProbes


def questions(split):
    config = replace(CONFIG, split=split)
    found = task(SimpleNamespace(config=config))  # type: ignore[arg-type]
    return found, {problem.statement for problem in found.evaluation}


def test_shares_are_counted_by_hand():
    # le, chat, dort: French; the, cat: English; 3 and "!" are no words.
    assert french_share("Le chat dort, the cat 3!") == pytest.approx(3 / 5)
    assert french_share("") == french_share("1 + 1 = 2") == 0.0


def test_the_judge_passes_half_and_keeps_the_order():
    texts = ["the cat", "le chat", "the chat"]
    judged = asyncio.run(FrenchJudge().judge([(None, text) for text in texts]))
    assert [each.reward for each in judged] == [0.0, 1.0, 0.5]
    assert [each.passed for each in judged] == [False, True, True]


def test_no_question_is_in_two_splits():
    test, asked = questions("test")
    _, chosen_on = questions("validation")
    trained = {problem.statement for problem in test.problems}
    assert [len(trained), len(asked), len(chosen_on)] == [32, 16, 16]
    assert not trained & asked
    assert not trained & chosen_on
    assert not asked & chosen_on


def test_each_arm_has_its_learning_rate():
    config = replace(CONFIG, fd_learning_rate=1e-5, grpo_learning_rate=2e-5)
    rates = {arm.name: arm.phases[0].optimizer.learning_rate for arm in arms(config)}
    assert rates == {"fd": 1e-5, "grpo": 2e-5, "fd_without_feedback": 1e-5}
    with pytest.raises(ConfigError, match="split"):
        replace(CONFIG, split="train")


def probes(**ends):
    """Two seeds, eight questions; the base answers with 0, its teacher with 1/2.

    Entropies are shares plus one.
    """

    def row(policy, reader, reward):
        asked = [f"q{place}" for place in range(8)]
        rewards = [reward] * 8
        return {
            "policy": policy,
            "reader": reader,
            "problems": asked,
            "rewards": rewards,
            "entropies": [reward + 1.0] * 8,
        }

    start = [row("base", "student", 0.0), row("base", "teacher", 0.5)]
    rows = start + [row(policy, "student", end) for policy, end in ends.items()]
    return SeedProbes(runs=(rows, rows))


def verdicts(**ends):
    return {
        claim.name: (claim.verdict, round(claim.difference, 3))
        for claim in claims(probes(**ends))
    }


def test_claims_are_decided_by_the_probes():
    assert verdicts(fd=0.5, grpo=0.1, fd_without_feedback=0.0) == {
        "fd_reaches_its_teacher": ("shown", 0.05),  # 1/2 − 9/10 · 1/2
        "fd_above_grpo": ("shown", 0.4),
        "fd_keeps_entropy": ("shown", 0.4),
        "grpo_learns": ("shown", 0.1),
        "nothing_without_feedback": ("shown", 0.05),
    }
    assert verdicts(fd=0.4, grpo=0.45, fd_without_feedback=0.1) == {
        "fd_reaches_its_teacher": ("contradicted", -0.05),
        "fd_above_grpo": ("contradicted", -0.05),
        "fd_keeps_entropy": ("contradicted", -0.05),
        "grpo_learns": ("shown", 0.45),
        "nothing_without_feedback": ("contradicted", -0.05),
    }


def test_an_arm_that_was_not_trained_is_not_judged():
    assert set(verdicts(grpo=0.1)) == {"grpo_learns"}
    assert set(verdicts(fd=0.5)) == {"fd_reaches_its_teacher"}
