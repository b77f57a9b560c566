"""Judges: what an answer is worth. Lean's verdict by default; no JAX."""

from fdjax.judge.answer import (
    AfterThinking,
    Answer,
    Extract,
    last_fence,
    up_to_fence,
    whole_text,
)
from fdjax.judge.canaries import CanaryReport, check_canaries
from fdjax.judge.judgement import Judge, Judgement
from fdjax.judge.lean import LeanJudge

__all__ = [
    "AfterThinking",
    "Answer",
    "CanaryReport",
    "Extract",
    "Judge",
    "Judgement",
    "LeanJudge",
    "check_canaries",
    "last_fence",
    "up_to_fence",
    "whole_text",
]
