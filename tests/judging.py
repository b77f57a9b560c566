"""Attempts and rollouts as if they had been sampled and judged."""

import asyncio

import numpy as np

from fdjax.episodes import Episode, Turn
from fdjax.feedback import Attempt
from fdjax.judge import Judgement
from fdjax.rollout import Rollout, Trajectory
from scripted import SAMPLING, samples
from tiny import PROBLEMS, TOKENIZER


def attempt(problem, proof, verdict):
    """What Lean said of a proof, ready for a writer."""
    return Attempt(
        problem=problem, text=proof, judgement=Judgement.by_lean(verdict, proof)
    )


def written(writer, attempts):
    """The writer's feedback on each attempt."""
    return asyncio.run(writer.write(attempts))


def turn(sample):
    """The policy's turn that a sample is."""
    return Turn(
        role="assistant",
        tokens=sample.tokens,
        logprobs=sample.logprobs,
        behaviour_logprobs=sample.behaviour_logprobs,
        entropy=sample.entropy,
        version=sample.version,
    )


def rollout(proofs, verdicts, feedback, *, group_size=2, width=24, sampled=None):
    """A rollout of given proofs, as the pipeline would have collected it.

    `sampled` are the samples that they are, or all turns of each that follow the
    prompt.
    """
    trajectories = []
    for row, (proof, verdict, note, said) in enumerate(
        zip(proofs, verdicts, feedback, sampled or samples(proofs), strict=True)
    ):
        group, member = divmod(row, group_size)
        turns = said if isinstance(said, list) else [turn(said)]
        trajectories.append(
            Trajectory(
                episode=Episode(
                    problem=PROBLEMS[group],
                    turns=(Turn(role="user", tokens=np.zeros(3, np.int32)), *turns),
                    ended="answer",
                    text=proof,
                ),
                group=group,
                member=member,
                judgement=Judgement.by_lean(verdict, proof),
                feedback=note,
            )
        )
    return Rollout(
        trajectories=tuple(trajectories),
        group_size=group_size,
        prompt_width=3,
        response_width=width,
        pad=TOKENIZER.pad_token_id,
        sampling=SAMPLING,
    )
