"""A child process: asked and heard with deadlines, ended with all that it started."""

import math
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["Child", "ChildLostError", "is_exhausted"]

LOOK_S = 2.0
"""How often a child that does not answer is looked at."""
REAP_S = 0.5
"""How long a child that closed its pipes may take to end."""
LOOK_AGAIN_S = 0.005
"""How often it is looked at meanwhile."""
SAID_CHARACTERS = 1000
"""What is kept of its standard error."""
KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)
TOO_LARGE = (-signal.SIGFPE, 128 + signal.SIGFPE)
"""How GMP ends a process for a number beyond its limits, without a word."""

_LAST_WORDS = re.compile(
    r"Stack overflow detected\. Aborting\."
    r"|INTERNAL PANIC: (?:out of memory|.* too big)"
    r"|GNU MP: Cannot (?:re)?allocate memory|gmp: overflow in mpz type"
    r"|std::bad_alloc"
)

How = Literal["ended", "late", "killed", "stopped", "misspoke"]
"""It ended by itself or cannot go on; it gave no answer in time; something else killed
or stopped it; it said what nobody asked for."""


@dataclass(eq=False)
class ChildLostError(Exception):
    """A child that cannot be asked any more; it has been closed."""

    what: str
    """What happened, for people, and the end of its standard error."""
    how: How
    moment: float
    """When it was noticed, on the monotonic clock, in seconds."""
    exhausted: bool
    """Whether it had used up its memory or stack; see `is_exhausted`."""

    def __str__(self) -> str:
        """What happened."""
        return self.what


class Child:
    """A running process, used by one thread at a time; `kill` by any.

    It has a session of its own and three pipes. What it writes to standard error is
    read at once, so that it never waits for us. A child that ends, is stopped or misses
    a deadline is closed, and `ChildLostError` says so.
    """

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
        self._input, self._output = self._process.stdin, self._process.stdout
        # A child that stops reading must not stop us from counting its time.
        os.set_blocking(self._input.fileno(), False)
        self._unread = bytearray()
        self._said = b""
        self._drain = threading.Thread(target=self._drain_stderr, daemon=True)
        self._drain.start()

    @property
    def pid(self) -> int | None:
        """Its process id, which is its group's too; None once it was closed."""
        return self._process.pid if self._process.returncode is None else None

    def write(self, data: bytes, deadline: float) -> None:
        """Hand it bytes.

        Args:
          data: what it reads from standard input.
          deadline: on the monotonic clock, in seconds.

        Raises:
          ChildLostError: it does not take them in time, or has ended.
        """
        view = memoryview(data)
        while view:
            self._wait_for(self._input.fileno(), select.POLLOUT, deadline)
            try:
                view = view[os.write(self._input.fileno(), view) :]
            except BrokenPipeError:
                raise self.lost("ended", "ended") from None

    def read_until(self, delimiter: bytes, deadline: float, longest: int) -> bytes:
        """Everything that it printed up to the next delimiter.

        Args:
          delimiter: what ends an answer; not part of what is returned.
          deadline: on the monotonic clock, in seconds.
          longest: bytes after which it is no answer.

        Raises:
          ChildLostError: there is no delimiter in time or in so many bytes.
        """
        searched = 0
        while (end := self._unread.find(delimiter, searched)) < 0:
            size = len(self._unread)
            if size > longest:
                raise self.lost(f"printed {size} bytes without an end")
            searched = max(0, size + 1 - len(delimiter))
            self._wait_for(self._output.fileno(), select.POLLIN, deadline)
            self._receive()
        answer = bytes(self._unread[:end])
        del self._unread[: end + len(delimiter)]
        return answer

    def require_silence(self) -> None:
        """Make sure that it has said nothing that nobody has read.

        Raises:
          ChildLostError: it has, or it has ended.
        """
        while not self._unread and _is_ready(self._output.fileno(), select.POLLIN, 0.0):
            self._receive()
        if self._unread:
            raise self.lost("said more than it was asked")

    def lost(self, what: str, how: How = "misspoke") -> ChildLostError:
        """Close it for what it does; the caller raises what is returned.

        Args:
          what: for people; the process is the subject.
          how: what kind of end it is, unless something outside has ended or stopped it.
        """
        moment = time.monotonic()
        status = None
        if how == "ended":
            if self._ends_by_itself():
                # What it left behind, while the id can be nobody else's.
                self._kill_group()
                status = self._process.wait()
                what = f"{what} (exit status {status})"
            how = "killed" if status in KILLED else how
        elif _is_stopped(self._process.pid):
            what, how = "had been stopped", "stopped"
        self.close()
        said = self._said.decode(errors="replace")[-SAID_CHARACTERS:].strip()
        return ChildLostError(
            f"the process {what} {said}".rstrip(),
            how=how,
            moment=moment,
            exhausted=is_exhausted(said, status),
        )

    def kill(self) -> None:
        """Kill its group; its owner meets the end of its pipes."""
        # Until it is reaped the id is ours.
        if self._process.returncode is None:
            self._kill_group()

    def close(self) -> None:
        """Kill it and what it started and wait for its end; may be called twice."""
        self.kill()
        self._process.wait()
        self._input.close()
        self._output.close()
        # What left the group may hold the pipe for ever; the thread goes on alone.
        self._drain.join(REAP_S)

    def _ends_by_itself(self) -> bool:
        """Whether it ends within `REAP_S`; unreaped, so that its id stays its own."""
        if sys.platform == "darwin":
            # Its Python before 3.13 cannot look without reaping.
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(REAP_S)
            return self._process.returncode is not None
        look = os.WEXITED | os.WNOHANG | os.WNOWAIT
        deadline = time.monotonic() + REAP_S
        while os.waitid(os.P_PID, self._process.pid, look) is None:
            if time.monotonic() > deadline:
                return False
            time.sleep(LOOK_AGAIN_S)
        return True

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _wait_for(self, descriptor: int, event: int, deadline: float) -> None:
        """Return when there is something to read or room to write."""
        while (wait_s := deadline - time.monotonic()) > 0:
            if _is_ready(descriptor, event, min(wait_s, LOOK_S)):
                return
            if _is_stopped(self._process.pid):
                raise self.lost("had been stopped", "stopped")
        raise self.lost("did not answer in time", "late")

    def _receive(self) -> None:
        chunk = os.read(self._output.fileno(), 1 << 16)
        if not chunk:
            raise self.lost("ended", "ended")
        self._unread += chunk

    def _drain_stderr(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as pipe:
            while chunk := pipe.read(1 << 12):
                self._said = (self._said + chunk)[-4 * SAID_CHARACTERS :]


def is_exhausted(said: str, status: int | None) -> bool:
    """Whether a Lean process that ended had used up its memory or stack.

    Only Lean's own last words count, or those of the libraries in it: a process that
    something else has killed says nothing.

    Args:
      said: the end of its standard error.
      status: its exit status.
    """
    return status in TOO_LARGE or bool(_LAST_WORDS.search(said))


def _is_ready(descriptor: int, event: int, wait_s: float) -> bool:
    """Whether the pipe can be used, or its other end is closed."""
    # Unlike `select`, it takes a descriptor of any number.
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(math.ceil(wait_s * 1000)))


def _is_stopped(group: int) -> bool:
    """Whether a process of the group is stopped, where that can be known."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # After the command's name, which is in brackets: state, parent, group.
            state, _, member_of = path.read_text().rpartition(")")[2].split()[:3]
            if int(member_of) == group and state == "T":
                return True
    return False
