"""Judges: what an answer is worth. Lean's verdict by default; no JAX."""

from fdjax.judge.answer import (
    AfterThinking,
    Answer,
    Extract,
    last_fence,
    up_to_fence,
    whole_text,
)
from fdjax.judge.judgement import Judge, Judgement
from fdjax.judge.lean import LeanJudge

__all__ = [
    "AfterThinking",
    "Answer",
    "Extract",
    "Judge",
    "Judgement",
    "LeanJudge",
    "last_fence",
    "up_to_fence",
    "whole_text",
]
