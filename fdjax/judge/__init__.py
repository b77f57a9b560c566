"""Judges: what an answer is worth. Lean's verdict by default; no JAX."""

from fdjax.judge.answer import Answer, Extract, whole_text
from fdjax.judge.judgement import Judge, Judgement
from fdjax.judge.lean import LeanJudge

__all__ = ["Answer", "Extract", "Judge", "Judgement", "LeanJudge", "whole_text"]
