"""Rollouts and reference proofs become the arrays that a train step takes."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from transformers import PreTrainedTokenizerFast

from fdjax.data.chat import prompt_tokens, proof_tokens
from fdjax.data.formats import PLAIN, PromptFormat
from fdjax.data.packing import pad_left, pad_right
from fdjax.data.tokenizer import pad_token, token_texts
from fdjax.errors import DataError
from fdjax.feedback import Feedback
from fdjax.ranges import Among, require
from fdjax.records import Mean, Metrics, Problem
from fdjax.rollout.arrays import Batch, TeacherPrompts
from fdjax.rollout.trajectory import Rollout

__all__ = ["SCORE", "Score", "fit_feedback", "rollout_batch", "supervised_batch"]


Score = Literal["all", "to_divergence"]
"""Which tokens of a failed attempt carry a loss."""

SCORE = Among(*get_args(Score))


def supervised_batch(
    tokenizer: PreTrainedTokenizerFast,
    rows: Sequence[tuple[Problem, str | None, str]],
    *,
    prompt_width: int,
    response_width: int,
    format: PromptFormat = PLAIN,
) -> tuple[Batch, Metrics]:
    """Arrays for (problem, feedback shown in the prompt, proof to write) rows.

    Rows whose prompt or proof is too long are not scored.

    Metrics: sft/overlong (share of the rows).
    """
    if not rows:
        raise DataError("supervised_batch: expected rows, got none")
    problems, feedback, proofs = zip(*rows, strict=True)
    prompts = prompt_tokens(tokenizer, problems, feedback, format)
    answers = [
        format.answer_text(problem, proof)
        for problem, proof in zip(problems, proofs, strict=True)
    ]
    responses = proof_tokens(tokenizer, answers)
    fits = np.array(
        [
            len(prompt) <= prompt_width and len(response) <= response_width
            for prompt, response in zip(prompts, responses, strict=True)
        ]
    )
    pad = pad_token(tokenizer)
    prompts, valid = pad_left(
        [ids[-prompt_width:] for ids in prompts], width=prompt_width, pad=pad
    )
    responses, mask = pad_right(
        [ids[:response_width] for ids in responses], width=response_width, pad=pad
    )
    written = mask & fits[:, None]
    batch = Batch(
        prompts=prompts,
        prompt_valid=valid,
        responses=responses,
        response_valid=written,
        written=written,
        known=fits,
        passed=fits,
    )
    return batch, {"sft/overlong": Mean(float((~fits).sum()), len(fits))}


def rollout_batch(
    rollout: Rollout,
    tokenizer: PreTrainedTokenizerFast,
    *,
    advantages: Float[np.ndarray, "*groups"] | None = None,
    old_logprobs: bool = False,
    teacher_width: int | None = None,
    score: Score = "all",
    wrong_feedback: bool = False,
    format: PromptFormat = PLAIN,
) -> tuple[Batch, Metrics]:
    """Arrays of attempts, with what the terms of an objective read of them.

    Feedback longer than the teacher's prompt allows loses its last parts, counted in
    `feedback/shortened`. Where nothing of it fits, the teacher would read nothing that
    the student does not: it is not heard, counted in `feedback/dropped`.

    Args:
      rollout: the attempts.
      tokenizer: of the policy.
      advantages: of each attempt, for policy gradients.
      old_logprobs: whether a term reads them.
      teacher_width: S_teacher, tokens of the teacher's prompt; None where no teacher
        reads feedback.
      score: which tokens of a failed attempt the teacher is heard on: all, or those up
        to the first that the feedback would change (beyond it the teacher reads a proof
        that its feedback speaks against).
      wrong_feedback: whether a teacher also reads the feedback on another problem.
      format: how problems were put to the policy, and where the teacher reads feedback.

    Raises:
      ConfigError: there is no such `score`.
      DataError: `advantages` are not one for each attempt, or not finite where the
        reward is known.

    Metrics: with a `teacher_width`, feedback/available (the teacher reads some),
    feedback/shortened, feedback/dropped; with `wrong_feedback`, feedback/contrasted
    (the teacher reads some of either kind): shares of the samples.
    """
    require("score", score, SCORE)
    prompts, prompt_valid = rollout.prompts
    responses = rollout.responses
    known = rollout.known
    passed = known & [each.judgement.passed for each in rollout.trajectories]
    version = np.array(
        [each.episode.version for each in rollout.trajectories], np.int32
    )
    batch = Batch(
        prompts=prompts,
        prompt_valid=prompt_valid,
        responses=responses.tokens,
        response_valid=responses.valid,
        written=responses.mask,
        known=known,
        passed=passed,
        pass_rate=_pass_rate(passed, known, rollout.group_size),
        old_logprobs=responses.logprobs if old_logprobs else None,
        version=version if old_logprobs else None,
        sampling=rollout.sampling,
    )
    if advantages is not None:
        batch = batch._replace(advantages=_checked(advantages, known))
    if teacher_width is None:
        return batch, {}
    teacher, read, metrics = _teacher_prompts(
        rollout,
        tokenizer,
        [each.feedback for each in rollout.trajectories],
        width=teacher_width,
        format=format,
    )
    if score == "to_divergence":
        for row, each in enumerate(rollout.trajectories):
            # Of a file that a tool was given, no token is known.
            if each.feedback.offset is not None and not each.episode.from_file:
                last = each.episode.last
                teacher.mask[row, last] &= _begins_by(
                    tokenizer,
                    each.row.tokens[last],
                    each.judgement.start + each.feedback.offset,
                )
    batch = batch._replace(feedback=teacher)
    if wrong_feedback:
        wrong, misread, _ = _teacher_prompts(
            rollout,
            tokenizer,
            _of_others(rollout),
            width=teacher_width,
            format=format,
        )
        batch = batch._replace(wrong_feedback=wrong)
        both = float((read & misread).sum())
        metrics["feedback/contrasted"] = Mean(both, len(read))
    return batch, metrics


def _checked(
    advantages: Float[np.ndarray, "*groups"], known: Bool[np.ndarray, " B"]
) -> Float32[np.ndarray, " B"]:
    """One advantage for each attempt, finite where the reward is known."""
    values = np.asarray(advantages, np.float32).reshape(-1)
    if values.shape != known.shape:
        raise DataError(
            f"rollout_batch: expected advantages for {len(known)} attempts, got "
            f"{len(values)}"
        )
    damaged = int((~np.isfinite(values[known])).sum())
    if damaged:
        raise DataError(
            "rollout_batch: expected finite advantages where the reward is known, got "
            f"{damaged} that are not"
        )
    return values


def _pass_rate(
    passed: Bool[np.ndarray, " B"], known: Bool[np.ndarray, " B"], group_size: int
) -> Float32[np.ndarray, " B"]:
    """Successes of each attempt's group among its known rewards; 0 where none is."""
    successes, judged = (
        column.reshape(-1, group_size).sum(axis=1) for column in (passed, known)
    )
    rate = successes / np.maximum(judged, 1)
    return np.repeat(rate.astype(np.float32), group_size)


def _teacher_prompts(
    rollout: Rollout,
    tokenizer: PreTrainedTokenizerFast,
    feedback: Sequence[Feedback],
    *,
    width: int,
    format: PromptFormat,
) -> tuple[TeacherPrompts, Bool[np.ndarray, " B"], Metrics]:
    """Each question with the feedback given, and whether any of that fits."""
    problems = [each.problem for each in rollout.trajectories]
    notes = fit_feedback(tokenizer, problems, feedback, width=width, format=format)
    read = np.array([note is not None for note in notes])
    prompts, valid = pad_left(
        # Only a question that nobody scores is too long.
        [ids[-width:] for ids in prompt_tokens(tokenizer, problems, notes, format)],
        width=width,
        pad=pad_token(tokenizer),
    )
    shortened = sum(
        note is not None and note != whole.text
        for note, whole in zip(notes, feedback, strict=True)
    )
    dropped = sum(note.available for note in feedback) - int(read.sum())
    size = len(notes)
    metrics = {
        "feedback/available": Mean(float(read.sum()), size),
        "feedback/shortened": Mean(float(shortened), size),
        "feedback/dropped": Mean(float(dropped), size),
    }
    mask = rollout.responses.mask & read[:, None]
    return TeacherPrompts(prompts, valid, mask), read, metrics


def _of_others(rollout: Rollout) -> list[Feedback]:
    """For each attempt the feedback on one at another problem, the next that has some.

    The same member of the next groups is asked first, so that hints are not all those
    of one attempt.
    """
    attempts, size = rollout.trajectories, len(rollout.trajectories)

    def other(row: int) -> Feedback:
        for start in range(row, row + size, rollout.group_size):
            candidate = attempts[start % size]
            if (
                candidate.feedback.available
                and candidate.problem.statement != attempts[row].problem.statement
            ):
                return candidate.feedback
        return Feedback(error="no other problem of the rollout has feedback")

    return [other(row) for row in range(size)]


def fit_feedback(
    tokenizer: PreTrainedTokenizerFast,
    problems: Sequence[Problem],
    feedback: Sequence[Feedback],
    *,
    width: int,
    format: PromptFormat = PLAIN,
) -> list[str | None]:
    """What of each feedback fits into a prompt of `width` tokens; None for nothing.

    Feedback that is too long loses its last parts, the least important ones.
    """
    parts = [note.parts if note.available else () for note in feedback]
    rows = list(range(len(parts)))
    while rows := [row for row in rows if parts[row]]:
        prompts = prompt_tokens(
            tokenizer,
            [problems[row] for row in rows],
            ["\n".join(parts[row]) for row in rows],
            format,
        )
        rows = [row for row, ids in zip(rows, prompts, strict=True) if len(ids) > width]
        for row in rows:
            parts[row] = parts[row][:-1]
    texts = ["\n".join(kept) for kept in parts]
    return [text if text.strip() else None for text in texts]


def _begins_by(
    tokenizer: PreTrainedTokenizerFast, tokens: Int[np.ndarray, " T"], offset: int
) -> Bool[np.ndarray, " T"]:
    """True for tokens that begin at character `offset` or before it."""
    lengths = np.array([len(text) for text in token_texts(tokenizer, tokens)])
    return np.cumsum(lengths) - lengths <= offset
