"""Exceptions raised by fdjax; every message gives expected, got and remedy."""

__all__ = [
    "BackendError",
    "CheckpointError",
    "ConfigError",
    "DamagedCheckpointError",
    "DataError",
    "ExchangeError",
    "FdjaxError",
    "FeedbackError",
    "InstallError",
    "PeerError",
    "StoreError",
]


class FdjaxError(Exception):
    """Root of all errors that fdjax raises on purpose."""


class ConfigError(FdjaxError, ValueError):
    """A setting is out of range or contradicts another."""


class DataError(FdjaxError, ValueError):
    """A dataset file or row cannot be read as what it should be."""


class CheckpointError(FdjaxError, ValueError):
    """A checkpoint is missing, incomplete or does not fit the run."""


class DamagedCheckpointError(CheckpointError):
    """Files of a checkpoint are missing or hold something else than was written."""


class InstallError(FdjaxError, RuntimeError):
    """A component that must be installed is missing or damaged."""


class BackendError(FdjaxError, RuntimeError):
    """A Lean backend cannot be started or does not answer."""


class FeedbackError(FdjaxError, RuntimeError):
    """Too many attempts have no feedback for the run to go on."""


class PeerError(FdjaxError, RuntimeError):
    """Another process of the run failed, and this one cannot go on without it."""


class ExchangeError(PeerError):
    """What another process sent is not what arrived here."""


class StoreError(FdjaxError, OSError):
    """An object store refuses what is asked, or does not answer."""
