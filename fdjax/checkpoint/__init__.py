"""Checkpoints: everything that decides the next step, and Hugging Face in and out."""

from fdjax.checkpoint.conversion import convert
from fdjax.checkpoint.description import write_description
from fdjax.checkpoint.peft_folder import save_adapters
from fdjax.checkpoint.pretrained import (
    Pretrained,
    load_params,
    load_pretrained,
    save_pretrained,
)
from fdjax.checkpoint.source import Source, open_source
from fdjax.checkpoint.store import CheckpointStore, checkpoint_steps
from fdjax.checkpoint.sums import bit_sums

__all__ = [
    "CheckpointStore",
    "Pretrained",
    "Source",
    "bit_sums",
    "checkpoint_steps",
    "convert",
    "load_params",
    "load_pretrained",
    "open_source",
    "save_adapters",
    "save_pretrained",
    "write_description",
]
