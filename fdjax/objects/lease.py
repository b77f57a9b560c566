"""A lock on an object store: who writes a run."""

import json
import logging
import os
import secrets
import socket
import threading
import time
from typing import Self

from etils import epath

from fdjax.errors import ConfigError, StoreError
from fdjax.objects.store import blob_of, retrying, talking

__all__ = ["BEAT_S", "STALE_S", "Lease"]

BEAT_S = 10.0
"""Seconds between signs of life."""
STALE_S = 60.0
"""Seconds without one after which the holder counts as gone."""

_logger = logging.getLogger(__name__)


class Lease:
    """An object that says who is at work; its holder rewrites it again and again.

    Nobody compares clocks. Whoever finds the object watches it: where its generation
    does not change for `STALE_S`, the holder was killed, and the object is taken over,
    on the condition that it still has this generation. So of two that try, one has it.
    A holder that finds another generation than its own has lost the lease, and `check`
    says so before it writes anything more.
    """

    def __init__(self, address: epath.Path):
        """Waits for the lease, for no longer than `STALE_S`.

        Args:
          address: of the object.

        Raises:
          ConfigError: somebody else is at work.
          StoreError: the store refuses, or does not answer.
        """
        self._address = address
        self._token = secrets.token_hex(8)
        self._lost = False
        self._released = threading.Event()
        self._generation = self._taken()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> bool:
        """Whether another process has taken the lease over."""
        return self._lost

    def check(self) -> None:
        """Makes sure that the lease is still held.

        Raises:
          StoreError: another process has taken it over.
        """
        if self._lost:
            raise StoreError(
                f"expected to be alone in {self._address.parent}, got another process "
                "that took over, because this one gave no sign of life for "
                f"{STALE_S:.0f} s; that one goes on, end this one"
            )

    def release(self) -> None:
        """Lets go; the object goes where it is still ours."""
        self._released.set()
        self._thread.join()
        if self._lost:
            return
        try:
            with talking(self._address):
                blob_of(self._address).delete(
                    if_generation_match=self._generation, retry=retrying(BEAT_S)
                )
        except OSError as error:
            _logger.warning("%s stays until it is stale: %s", self._address, error)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.release()

    def _taken(self) -> int:
        """Generation of the object, once it is ours."""
        from google.api_core.exceptions import NotFound, PreconditionFailed

        blob, watched, since = blob_of(self._address), 0, time.monotonic()
        with talking(self._address):
            while True:
                try:
                    found = watched if time.monotonic() - since >= STALE_S else 0
                    return self._write(found)
                except PreconditionFailed:
                    pass
                try:
                    blob.reload(retry=retrying())
                    said = json.loads(blob.download_as_bytes(retry=retrying()))
                except (NotFound, ValueError):
                    continue
                if said["token"] == self._token:
                    # A repeated request met its own effect.
                    return blob.generation
                if watched == 0:
                    watched, since = blob.generation, time.monotonic()
                    _logger.warning(
                        "%s says that %s is at work; waiting up to %.0f s for a sign "
                        "of life.",
                        *(self._address, said["holder"], STALE_S),
                    )
                elif blob.generation != watched:
                    raise ConfigError(
                        f"Expected to be alone in {self._address.parent}, got "
                        f"{said['holder']} at work there; wait for it, stop it, or "
                        "give another --name."
                    )
                time.sleep(min(BEAT_S, STALE_S) / 10)

    def _beat(self) -> None:
        while not self._lost and not self._released.wait(BEAT_S):
            self._beat_once()

    def _beat_once(self) -> None:
        from google.api_core.exceptions import PreconditionFailed

        try:
            with talking(self._address):
                try:
                    self._generation = self._write(self._generation)
                except PreconditionFailed:
                    self._lost = not self._ours()
        except FileNotFoundError:
            self._lost = True
        except OSError as error:
            _logger.warning("No sign of life in %s: %s", self._address, error)

    def _ours(self) -> bool:
        """Whether the object is one that we wrote; takes note of its generation."""
        blob = blob_of(self._address)
        blob.reload(retry=retrying())
        said = json.loads(blob.download_as_bytes(retry=retrying()))
        self._generation = blob.generation
        return said["token"] == self._token

    def _write(self, generation: int) -> int:
        """Writes the object in place of a generation; 0 where there must be none."""
        holder = f"process {os.getpid()} on {socket.gethostname()}"
        blob = blob_of(self._address)
        blob.upload_from_string(
            json.dumps({"holder": holder, "token": self._token, "time": time.time()}),
            if_generation_match=generation,
            retry=retrying(BEAT_S),
        )
        return blob.generation
