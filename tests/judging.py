"""Attempts and rollouts as if they had been sampled and judged."""

import asyncio

import numpy as np

from fdjax.feedback import Attempt
from fdjax.judge import Judgement
from fdjax.rollout import Rollout, Trajectory, Turn
from tiny import PROBLEMS, TOKENIZER, completions


def attempt(problem, proof, verdict):
    """What Lean said of a proof, ready for a writer."""
    return Attempt(
        problem=problem, text=proof, judgement=Judgement.by_lean(verdict, proof)
    )


def written(writer, attempts):
    """The writer's feedback on each attempt."""
    return asyncio.run(writer.write(attempts))


def rollout(proofs, verdicts, feedback, *, group_size=2, width=24, sampled=None):
    """A rollout of given proofs, as the pipeline would have collected it."""
    sampled = sampled or completions(proofs, width)
    trajectories = []
    for row, (proof, verdict, note) in enumerate(
        zip(proofs, verdicts, feedback, strict=True)
    ):
        mask = sampled.mask[row]
        group, member = divmod(row, group_size)
        trajectories.append(
            Trajectory(
                problem=PROBLEMS[group],
                group=group,
                member=member,
                turns=(
                    Turn(role="user", tokens=np.zeros(3, np.int32)),
                    Turn(
                        role="assistant",
                        tokens=sampled.tokens[row][mask],
                        logprobs=sampled.logprobs[row][mask],
                        entropy=sampled.entropy[row][mask],
                    ),
                ),
                version=0,
                finished=bool(sampled.finished[row]),
                text=proof,
                judgement=Judgement.by_lean(verdict, proof),
                feedback=note,
            )
        )
    return Rollout(
        trajectories=tuple(trajectories),
        group_size=group_size,
        prompt_width=3,
        response_width=sampled.tokens.shape[1],
        pad=TOKENIZER.pad_token_id,
        sampling=sampled.sampling,
    )
