"""Feedback Distillation on a pretrained chat model, without Lean: answers in French.

The first author's sanity check of the method (arXiv:2605.30861; his public fork of
TRL): the feedback on every answer is "Answer in French.", the questions are English,
and the policy never sees the feedback. Its teacher, which does, answers in French; so
the policy should come to do so by itself. The reward is the share of words that are
more frequent in French than in English (`wordfreq`).

Claims under test: FD goes at least nine tenths of the way to its teacher's share; FD
whose teacher reads nothing does not move; GRPO on the same reward, from as many
answers, ends below FD, in share and in policy entropy.

GRPO's learning rate is the best of those tried on other questions and another seed
(`--split validation --seed 100`, docs/log.md); FD's is the first that was tried.

Command: `python -m experiments.french --policy FOLDER --seeds 0 1 2` with a chat
model of about 135M parameters, such as HuggingFaceTB/SmolLM2-135M-Instruct; needs the
extra `fdjax[french]`.
Hardware: two CPU cores, 8 GiB; docs/experiments.md has time and figures.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from wordfreq import zipf_frequency

from fdjax.data.formats import PromptFormat
from fdjax.eval import Claim, seeds_claim
from fdjax.feedback import ConstantFeedback
from fdjax.judge import Judgement, whole_text
from fdjax.ranges import Among, Number, Whole, require_fields
from fdjax.records import Problem
from fdjax.run import (
    Arm,
    AttemptsConfig,
    EvaluationConfig,
    PolicyConfig,
    RunConfig,
    RunContext,
    SeedProbes,
    Task,
    experiment,
)
from fdjax.train import FD, GRPO, OptimizerConfig, PhaseConfig

__all__ = ["CONFIG", "FrenchConfig", "french_share", "main"]

HINT = "Answer in French."

Split = Literal["test", "validation"]

_LEARNT_ON = (
    *("gravity", "rain", "bread", "music", "the moon", "a library", "salt"),
    *("a bicycle", "the heart", "snow", "coffee", "a bridge", "the ocean", "a clock"),
    *("wind", "fire", "a garden", "glass", "paper", "honey", "the sun", "a river"),
    *("sleep", "iron", "a mirror", "a map", "tea", "a violin", "cheese", "a train"),
    *("the brain", "gold"),
)
_HELD_OUT = {
    "test": {
        "Tell me about {}.": (
            *("volcanoes", "cats", "mathematics", "Rome", "chess", "apples"),
            *("the telephone", "winter"),
        ),
        "Why do people like {}?": (
            *("gravity", "rain", "bread", "music", "the moon", "salt", "snow"),
            *("the ocean",),
        ),
    },
    "validation": {
        "Describe {}.": (
            *("a desert", "a horse", "physics", "London", "football", "oranges"),
            *("a computer", "summer"),
        ),
        "How do you explain {} to a friend?": (
            *("a library", "a bicycle", "coffee", "a bridge", "a clock", "wind"),
            *("fire", "a garden"),
        ),
    },
}
"""New questions about new things, and about things that were trained on."""
_WORDS = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True, kw_only=True)
class FrenchConfig(RunConfig):
    """Settings of the experiment."""

    steps: int = 20
    """Iterations of each arm."""
    fd_learning_rate: float = 3e-5
    """Of FD and its control, after two steps of warm-up."""
    grpo_learning_rate: float = 3e-4
    """Of GRPO, after two steps of warm-up."""
    split: Split = "test"
    """Questions held out: those of the table, or those that settings are chosen on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_fields(
            self,
            steps=Whole(1),
            fd_learning_rate=Number(above=0),
            grpo_learning_rate=Number(above=0),
            split=Among(*get_args(Split)),
        )


CONFIG = FrenchConfig(
    name="french",
    policy=PolicyConfig(dtype="float32", remat="none"),
    attempts=AttemptsConfig(
        problems=8, group_size=2, max_new_tokens=40, feedback_tokens=8
    ),
    evaluation=EvaluationConfig(every=5, samples=2, ks=(1, 2)),
)


def french_share(text: str) -> float:
    """Share of the words that are more frequent in French than in English.

    >>> french_share("Le chat dort sur the table")
    0.6666666666666666
    """
    words = [word.lower() for word in _WORDS.findall(text)]
    french = [zipf_frequency(w, "fr") > zipf_frequency(w, "en") for w in words]
    return sum(french) / len(french) if french else 0.0


class FrenchJudge:
    """The reward is the share of French words; half of them is a success."""

    async def judge(self, attempts: Sequence[tuple[Problem, str]]) -> list[Judgement]:
        """One judgement for each (problem, completion), in order (`Judge`)."""
        shares = [french_share(text) for _, text in attempts]
        return [
            Judgement(reward=share, passed=share >= 0.5, answer=text)
            for share, (_, text) in zip(shares, attempts, strict=True)
        ]


def task(context: RunContext[FrenchConfig]) -> Task:
    """English questions, answers judged by their French, and a hint to answer so."""
    kinds = [
        [question.format(thing) for thing in things]
        for question, things in _HELD_OUT[context.config.split].items()
    ]
    questions = [one for of_each in zip(*kinds, strict=True) for one in of_each]
    return Task(
        problems=[
            Problem(name=thing, statement=f"What is {thing}?") for thing in _LEARNT_ON
        ],
        evaluation=[
            Problem(name=question, statement=question) for question in questions
        ],
        judge=FrenchJudge(),
        writer=ConstantFeedback(text=HINT),
        format=PromptFormat(user="{{ statement }}", extract=whole_text),
    )


def arms(config: FrenchConfig) -> tuple[Arm, ...]:
    """FD, its control without feedback, and GRPO, all from the pretrained policy."""

    def arm(name: str, term: FD | GRPO, learning_rate: float, steps: int) -> Arm:
        optimizer = OptimizerConfig(learning_rate=learning_rate, warmup_steps=2)
        phase = PhaseConfig(name=name, terms=(term,), steps=steps, optimizer=optimizer)
        return Arm(name=name, phases=(phase,))

    fd, grpo = config.fd_learning_rate, config.grpo_learning_rate
    return (
        arm("fd", FD(), fd, config.steps),
        arm("grpo", GRPO(), grpo, config.steps),
        # Student and teacher agree from the start: a few iterations show that nothing
        # moves.
        arm("fd_without_feedback", FD(reads="nothing"), fd, min(config.steps, 5)),
    )


def claims(probes: SeedProbes) -> list[Claim]:
    """What several seeds say, of the arms that were trained."""
    share, entropy = (
        {policy: probes.of_problems(key, policy) for policy in probes.policies}
        for key in ("rewards", "entropies")
    )
    start, found = share["base"], []

    def claim(name: str, statement: str, difference: np.ndarray) -> None:
        found.append(seeds_claim(name, statement, difference))

    if "fd" in share:
        way = probes.of_problems("rewards", "base", "teacher") - start
        claim(
            "fd_reaches_its_teacher",
            "FD goes at least nine tenths of the way to its teacher",
            share["fd"] - start - 0.9 * way,
        )
    if {"fd", "grpo"} <= share.keys():
        claim(
            "fd_above_grpo",
            "Share of French: FD ends above GRPO, after as many answers",
            share["fd"] - share["grpo"],
        )
        claim(
            "fd_keeps_entropy",
            "Policy entropy, nats a token: FD ends above GRPO",
            entropy["fd"] - entropy["grpo"],
        )
    if "grpo" in share:
        claim("grpo_learns", "GRPO ends above its start", share["grpo"] - start)
    if "fd_without_feedback" in share:
        claim(
            "nothing_without_feedback",
            "FD without feedback gains less than 0.05",
            0.05 - (share["fd_without_feedback"] - start),
        )
    return found


def main(arguments: list[str] | None = None) -> int:
    """Command line; exit code 0 done, 2 bad input, 130 interrupted."""
    return experiment(CONFIG, task=task, arms=arms, claims=claims, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
