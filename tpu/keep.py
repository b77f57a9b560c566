"""Keeps a command going on its host: starts it again until it is done.

    python -m tpu.keep --progress runs/prover -- python -m experiments.prover …

Each host of a run has one. When a process is lost the others end as well, all keepers
start their own again, and the processes find each other anew (`tpu.restart` says after
which ends). SIGTERM and Ctrl-C are handed on, and then nothing is started.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import tyro
from rich.console import Console

from fdjax.errors import StoreError
from fdjax.files import write_whole
from fdjax.objects import Place, place, read_bytes, remote, walk
from fdjax.ranges import Number, Whole, require_fields
from tpu.restart import exit_code, starts_again

__all__ = ["Keep", "Keeper", "main", "split"]


@dataclass(frozen=True, kw_only=True)
class Keep:
    """How long a command is kept going."""

    progress: str = ""
    """Folder or address of the run. Each line more than ever before in a metrics.jsonl
    below it is progress; without a folder there is none."""
    restarts: int = 10
    """Starts in a row without progress, after which it is given up."""
    pause_s: float = 5.0
    """Before the first of them, seconds; twice as long before each further one."""
    longest_pause_s: float = 60.0
    """No pause is longer, seconds."""
    ended: Path | None = None
    """File that holds the exit code once all is over."""

    def __post_init__(self) -> None:
        place(self.progress)
        require_fields(
            self,
            restarts=Whole(0),
            pause_s=Number(least=0),
            longest_pause_s=Number(least=0),
        )


class Keeper:
    """One command, and the process that it is at the moment."""

    def __init__(self, command: Sequence[str], settings: Keep) -> None:
        """Starts nothing.

        Args:
          command: program and arguments.
          settings: how long it is kept going.
        """
        self._command = list(command)
        self._settings = settings
        self._console = Console(stderr=True, highlight=False, markup=False)
        self._process: subprocess.Popen[bytes] | None = None
        self._told: int | None = None

    def run(self) -> int:
        """Runs the command until it is done, in vain, or told to stop.

        Only the main thread may call it.

        Returns:
          Its last exit code; 1 where it was given up.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._tell)
        code = self._run()
        if self._settings.ended is not None:
            write_whole(self._settings.ended, f"{code}\n".encode())
        return code

    def _run(self) -> int:
        settings, farthest, vain = self._settings, self._lines(), 0
        while True:
            begin = time.monotonic()
            code = self._once()
            lasted = f"exit code {code} after {time.monotonic() - begin:.0f} s"
            if self._told is not None or not starts_again(code):
                self._say(lasted)
                return code
            lines = self._lines()
            vain = 0 if lines > farthest else vain + 1
            farthest = max(lines, farthest)
            if vain > settings.restarts:
                self._say(
                    f"{lasted}; given up after {settings.restarts} starts that came "
                    "no farther"
                )
                return 1
            pause = min(
                settings.pause_s * 2 ** max(0, vain - 1), settings.longest_pause_s
            )
            count = f", {vain} of {settings.restarts} without progress" if vain else ""
            self._say(f"{lasted}; starting again in {pause:g} s{count}")
            end = time.monotonic() + pause
            while time.monotonic() < end and self._told is None:
                time.sleep(0.1)
            if self._told is not None:
                return code

    def _once(self) -> int:
        # In a group of its own: a terminal's Ctrl-C reaches it through us, once.
        self._process = subprocess.Popen(self._command, start_new_session=True)
        self._say(f"started as process {self._process.pid}")
        if self._told is not None:
            self._process.send_signal(self._told)
        return exit_code(self._process.wait())

    def _tell(self, number: int, frame: FrameType | None) -> None:
        """Hands a signal on to the command."""
        self._told = number
        if self._process is not None:
            self._process.send_signal(number)

    def _lines(self) -> int:
        if not self._settings.progress:
            return 0
        try:
            files = _metrics(place(self._settings.progress))
            return sum(read_bytes(file).count(b"\n") for file in files)
        except (StoreError, FileNotFoundError) as error:
            self._say(f"progress is not known: {error}")
            return 0

    def _say(self, text: str) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._console.print(f"{now} keep: {text}", soft_wrap=True)


def _metrics(folder: Place) -> list[Place]:
    if remote(folder):
        return [
            folder / name for name in walk(folder) if name.endswith("metrics.jsonl")
        ]
    return list(folder.rglob("metrics.jsonl"))


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Settings and the command after the first `--`."""
    arguments = list(arguments)
    if "--" not in arguments:
        return arguments, []
    place = arguments.index("--")
    return arguments[:place], arguments[place + 1 :]


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; exit code: the command's own, 1 given up, 2 bad input."""
    given, command = split(sys.argv[1:] if arguments is None else arguments)
    settings = tyro.cli(Keep, args=given, prog="python -m tpu.keep")
    if not command:
        Console(stderr=True).print("error: expected a command after --, got none")
        return 2
    return Keeper(command, settings).run()


if __name__ == "__main__":
    sys.exit(main())
