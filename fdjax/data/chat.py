"""Prompts: the same chat for student and teacher, feedback added on the user side."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerFast

from fdjax.data.tokenizer import end_token
from fdjax.records import Problem

__all__ = ["prompt_tokens", "proof_tokens", "user_message"]


def user_message(problem: Problem, feedback: str | None = None) -> str:
    """What the user asks; the teacher's version begins with the feedback.

    Feedback comes first, so that the distance from statement to proof is the same for
    student and teacher.
    """
    question = f"{problem.header}{problem.statement} := by"
    return question if feedback is None else f"{feedback}\n{question}"


def prompt_tokens(
    tokenizer: PreTrainedTokenizerFast,
    problems: Sequence[Problem],
    feedback: Sequence[str | None] | None = None,
) -> list[list[int]]:
    """Token ids of each prompt, up to and including the generation prompt."""
    notes = [None] * len(problems) if feedback is None else feedback
    texts = [
        str(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": user_message(problem, note)}],
                tokenize=False,
                add_generation_prompt=True,
            )
        )
        for problem, note in zip(problems, notes, strict=True)
    ]
    if not texts:
        return []
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


def proof_tokens(
    tokenizer: PreTrainedTokenizerFast, proofs: Sequence[str]
) -> list[list[int]]:
    """Token ids of each proof as the assistant would write it, end token included."""
    if not proofs:
        return []
    encoded = tokenizer(list(proofs), add_special_tokens=False)["input_ids"]
    return [[*tokens, end_token(tokenizer)] for tokens in encoded]
