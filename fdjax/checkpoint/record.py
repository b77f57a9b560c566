"""The host's part of a checkpoint: its own state, and the sums of the arrays' bits."""

from collections.abc import Mapping
from typing import Any

from fdjax.checkpoint.steps import HOST
from fdjax.data.pipeline import fingerprint
from fdjax.encoding import decode
from fdjax.errors import CheckpointError, DamagedCheckpointError, StoreError
from fdjax.objects import Place, read_bytes

__all__ = ["make_record", "read_record"]

_FILE = "metadata"
"""The file in which Orbax keeps JSON."""

_CONTENT = ("host", "sums", "values")


def make_record(
    host: dict[str, Any], sums: dict[str, int], values: Mapping[str, float]
) -> dict[str, Any]:
    """What `read_record` reads, with a digest of it.

    Args:
      host: JSON-like.
      sums: of `bit_sums`.
      values: of metrics by which checkpoints are ranked.
    """
    content = {"host": host, "sums": sums, "values": dict(values)}
    return content | {"digest": fingerprint([content[name] for name in _CONTENT])}


def read_record(step: Place) -> dict[str, Any]:
    """The record of a checkpoint.

    Args:
      step: folder of the checkpoint.

    Raises:
      DamagedCheckpointError: it is missing, or is not what was written.
      CheckpointError: it is of another version.
      StoreError: the object store that it is in does not answer.
    """
    place = step / HOST
    try:
        record = decode(read_bytes(place / _FILE))
        if not isinstance(record, dict):
            raise TypeError(f"{type(record).__name__}")
    except StoreError:
        raise
    except (ValueError, TypeError, OSError, RecursionError) as error:
        raise DamagedCheckpointError(
            f"Expected a JSON object in {place}, got {error!r}."
        ) from error
    expected = {*_CONTENT, "digest"}
    if record.keys() != expected:
        raise CheckpointError(
            f"Expected {', '.join(sorted(expected))} in {place}, got "
            f"{', '.join(sorted(record))}, as another version of fdjax wrote; start a "
            "new run."
        )
    if record["digest"] != fingerprint([record[name] for name in _CONTENT]):
        raise DamagedCheckpointError(
            f"Expected what was written in {place}, got something else."
        )
    return record
