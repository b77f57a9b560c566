"""Sampling from the decoder in process: jitted prefill and decode."""

from fdjax.sampling.config import SamplingConfig
from fdjax.sampling.generate import Completions, Generate, make_generate
from fdjax.sampling.logits import keep_top_k, keep_top_p

__all__ = [
    "Completions",
    "Generate",
    "SamplingConfig",
    "keep_top_k",
    "keep_top_p",
    "make_generate",
]
