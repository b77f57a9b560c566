"""Sampling: slots in this process, or a server (`fdjax.sampling.server`)."""

from fdjax.sampling.config import SamplingConfig, SlotsConfig
from fdjax.sampling.logits import keep_min_p, keep_top_k, keep_top_p
from fdjax.sampling.sampler import Sample, Sampler, SamplerClosedError, SamplingError
from fdjax.sampling.shared import SharedSampler
from fdjax.sampling.slots import SlotSampler, SlotUse
from fdjax.sampling.stop_strings import StopStrings

__all__ = [
    "Sample",
    "Sampler",
    "SamplerClosedError",
    "SamplingConfig",
    "SamplingError",
    "SharedSampler",
    "SlotSampler",
    "SlotUse",
    "SlotsConfig",
    "StopStrings",
    "keep_min_p",
    "keep_top_k",
    "keep_top_p",
]
