"""Saving and restoring everything that decides the next step (Orbax)."""

from fdjax.checkpoint.store import CheckpointStore

__all__ = ["CheckpointStore"]
