"""Checkpoints: everything that decides the next step, and Hugging Face in and out."""

from fdjax.checkpoint.conversion import convert
from fdjax.checkpoint.description import write_description
from fdjax.checkpoint.exports import Exports, export_adapters, export_policy
from fdjax.checkpoint.peft_folder import save_adapters
from fdjax.checkpoint.pretrained import (
    Pretrained,
    load_params,
    load_pretrained,
    save_pretrained,
)
from fdjax.checkpoint.retention import Retention
from fdjax.checkpoint.source import Source, open_source
from fdjax.checkpoint.steps import checkpoint_steps
from fdjax.checkpoint.store import CheckpointStore
from fdjax.checkpoint.sums import bit_sums

__all__ = [
    "CheckpointStore",
    "Exports",
    "Pretrained",
    "Retention",
    "Source",
    "bit_sums",
    "checkpoint_steps",
    "convert",
    "export_adapters",
    "export_policy",
    "load_params",
    "load_pretrained",
    "open_source",
    "save_adapters",
    "save_pretrained",
    "write_description",
]
