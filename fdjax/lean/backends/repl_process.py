"""The community REPL's protocol: JSON objects that end at blank lines."""

import json
import os
import select
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fdjax.lean.facts.backend import WorkerDiedError
from fdjax.lean.sandbox.process import is_exhausted, is_stopped, kill_group

__all__ = ["NoAnswerError", "ReplProcess"]


LONGEST_ANSWER = 256 << 20
"""Bytes; our program's messages are cut, but not what else a session prints."""
REAP_S = 0.2
"""How long a process that closed its pipe may take to end."""


class NoAnswerError(Exception):
    """The REPL did not answer in time; it may still be at it."""


class ReplProcess:
    """A running REPL in a session of its own; used by one thread at a time."""

    def __init__(
        self, command: Sequence[str], *, folder: Path, environment: Mapping[str, str]
    ) -> None:
        """Start it.

        Args:
          command: program and arguments.
          folder: where it runs.
          environment: all the variables that it gets.

        Raises:
          OSError: it cannot be started.
        """
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input = self._process.stdin.fileno()
        self._output = self._process.stdout.fileno()
        # A process that stops reading must not stop us from counting its time.
        os.set_blocking(self._input, False)
        self._unread = bytearray()
        self._complaints: deque[bytes] = deque(maxlen=20)
        self._drain = threading.Thread(target=self._drain_stderr, daemon=True)
        self._drain.start()
        self.commands = 0
        """How many were sent; the REPL keeps the state after each of them."""
        self.was_killed = False
        """Whether somebody else has killed it."""

    @property
    def pid(self) -> int:
        """Its process id, which is its session's too."""
        return self._process.pid

    def ask(self, cmd: str, env: int | None, deadline: float) -> dict[str, Any]:
        """Have Lean text elaborated.

        Args:
          cmd: the text.
          env: number of the state to go on from; None for a fresh one with imports.
          deadline: on the monotonic clock, in seconds.

        Returns:
          The answer: the next state's number as `env`, and `messages`.

        Raises:
          WorkerDiedError: the process ended, or what it said is no answer.
          NoAnswerError: the deadline has passed.
        """
        request = {"cmd": cmd} if env is None else {"cmd": cmd, "env": env}
        self.commands += 1
        # What came unasked cannot be told from an answer.
        if self._unread:
            raise self._failure("it said more than it was asked")
        try:
            # Lean's JSON reader need not know surrogate pairs.
            line = json.dumps(request, ensure_ascii=False)
            self._write(line.encode() + b"\n\n", deadline)
            answer = json.loads(self._read(deadline))
        except (BrokenPipeError, EOFError):
            raise self._failure("it ended") from None
        except ValueError:
            raise self._failure("what it said is no JSON") from None
        if not isinstance(answer, dict) or not isinstance(answer.get("env"), int):
            raise self._failure(f"expected a state, got {str(answer)[:500]}")
        return answer

    def is_stopped(self) -> bool:
        """Whether somebody has stopped it, so that it cannot answer."""
        return is_stopped(self._process.pid)

    def kill(self) -> None:
        """Kill it and what it started; may be called from another thread."""
        kill_group(self._process)

    def close(self) -> None:
        """Kill it and wait for its end."""
        self.kill()
        self._process.wait()
        self._drain.join()
        for stream in (
            self._process.stdin,
            self._process.stdout,
            self._process.stderr,
        ):
            assert stream is not None
            stream.close()

    def _write(self, data: bytes, deadline: float) -> None:
        view = memoryview(data)
        while view:
            wait = deadline - time.monotonic()
            if wait <= 0 or not select.select([], [self._input], [], wait)[1]:
                raise NoAnswerError
            view = view[os.write(self._input, view) :]

    def _read(self, deadline: float) -> bytes:
        """Everything up to the next blank line."""
        searched = 0
        while (end := self._unread.find(b"\n\n", searched)) < 0:
            searched = max(0, len(self._unread) - 1)
            if searched > LONGEST_ANSWER:
                raise self._failure(f"it printed {searched} bytes without an end")
            wait = deadline - time.monotonic()
            if wait <= 0 or not select.select([self._output], [], [], wait)[0]:
                raise NoAnswerError
            chunk = os.read(self._output, 1 << 16)
            if not chunk:
                raise EOFError
            self._unread += chunk
        answer = bytes(self._unread[:end])
        del self._unread[: end + 2]
        return answer

    def _failure(self, what: str) -> WorkerDiedError:
        with suppress(subprocess.TimeoutExpired):
            status = self._process.wait(REAP_S)
            self.was_killed = status in (-signal.SIGKILL, 128 + signal.SIGKILL)
        self.kill()
        self._process.wait()
        self._drain.join()
        said = b"".join(self._complaints).decode(errors="replace")[-500:].strip()
        status = self._process.returncode
        return WorkerDiedError(
            f"the REPL failed (status {status}): {what}; {said}",
            exhausted=is_exhausted(said, status),
        )

    def _drain_stderr(self) -> None:
        assert self._process.stderr is not None
        while chunk := self._process.stderr.read(4096):
            self._complaints.append(chunk)
