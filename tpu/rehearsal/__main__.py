"""The rehearsal: a run that loses a host ends like one that nothing disturbed.

Four processes of two CPU devices each sample, have Lean judge and take steps of FD and
GRPO together, each under its keeper. One process is killed in the middle. The keepers
start all of them again, and the run goes on from its checkpoint and journal.
"""

import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from fdjax.ranges import Whole, require_fields
from tpu.rehearsal.compare import COMPARED, differences
from tpu.rehearsal.hosts import Host, start_hosts
from tpu.rehearsal.policy import write_policy

__all__ = ["Rehearsal", "main"]

_RUN = """--format plain --policy.dtype float32 --mesh.data 2 --mesh.fsdp 4
    --attempts.problems 4 --attempts.group-size 4 --attempts.max-new-tokens 16
    --attempts.feedback-tokens 64 --attempts.staleness 1
    --fd-steps 3 --grpo-steps 3 --fd-optimizer.learning-rate 1e-3
    --grpo-optimizer.learning-rate 1e-3 --checkpoints.every 2 --evaluation.samples 1
    --evaluation.ks 1 --evaluation.no-teacher --lean-workers 1 --lean-timeout-s 600"""


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """What is rehearsed."""

    folder: Path | None = None
    """New folder for both runs; a temporary one, which goes, by default."""
    hosts: int = 4
    """Processes; divides 8."""
    lost: int = 3
    """The process that is killed, from 0."""
    after: int = 3
    """Rows of metrics at which it is."""

    def __post_init__(self) -> None:
        require_fields(
            self, hosts=Whole(1, 8), lost=Whole(0, self.hosts - 1), after=Whole(1, 5)
        )


class _Stage:
    """The pod, its runs, and whoever watches."""

    def __init__(self, settings: Rehearsal, folder: Path, console: Console) -> None:
        self._settings = settings
        self._folder = folder
        self._console = console
        self._begin = time.monotonic()
        self.policy, self.problems = write_policy(folder)

    def say(self, text: str) -> None:
        seconds = time.monotonic() - self._begin
        self._console.print(f"{seconds:5.0f} s ── {text}", soft_wrap=True)

    def hear(self, index: int, line: str) -> None:
        # What CPUs use instead of a TPU's network counts its peers aloud.
        if line.strip() and not line.startswith("[Gloo]"):
            self._console.print(f"host {index} │ {line}", soft_wrap=True)

    def run(self, name: str, *, disturbed: bool) -> Path:
        """The folder of a run of all hosts.

        Raises:
          SystemExit: it did not come to its end.
        """
        # Each has verdicts of its own, or the second would ask Lean nothing.
        runs = self._folder / name
        command = [
            *(sys.executable, "-m", "experiments.prover"),
            *("--runs", str(runs), "--name", "pod", "--resume", "auto"),
            *("--policy", str(self.policy), "--problems", str(self.problems)),
            *_RUN.split(),
        ]
        hosts = start_hosts(
            command,
            progress=runs / "pod",
            hosts=self._settings.hosts,
            devices=8 // self._settings.hosts,
            cache=self._folder / "compiled",
            hear=self.hear,
        )
        try:
            if disturbed:
                self._lose_one(hosts, runs / "pod" / "metrics.jsonl")
            codes = [host.wait() for host in hosts]
        finally:
            for host in hosts:
                host.stop()
            for host in hosts:
                host.wait()
        if any(codes):
            self.say(f"exit codes of the keepers: {codes}; expected 0 of all")
            raise SystemExit(1)
        starts = ", ".join(str(len(host.starts)) for host in hosts)
        self.say(f"all hosts are done; their processes were started {starts} times")
        return runs / "pod"

    def _lose_one(self, hosts: Sequence[Host], metrics: Path) -> None:
        lost = hosts[self._settings.lost]
        while not metrics.exists() or _lines(metrics) < self._settings.after:
            if not all(host.running for host in hosts):
                return
            time.sleep(0.05)
        lost.lose()
        self.say(
            f"host {lost.index}: its process is killed by SIGKILL, after "
            f"{_lines(metrics)} iterations"
        )


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n")


def rehearse(settings: Rehearsal, folder: Path, console: Console) -> int:
    """Runs twice and compares; exit code 0 the same, 1 not.

    Args:
      settings: what is rehearsed.
      folder: to write into; it exists.
      console: where the log goes.
    """
    stage = _Stage(settings, folder, console)
    stage.say(f"{settings.hosts} hosts, nothing happens to them")
    undisturbed = stage.run("undisturbed", disturbed=False)
    stage.say(f"{settings.hosts} hosts, of which host {settings.lost} will be lost")
    disturbed = stage.run("disturbed", disturbed=True)
    stage.say(f"compared: {COMPARED}")
    if differ := differences(undisturbed, disturbed):
        stage.say(f"NOT the same: {', '.join(differ)}")
        return 1
    stage.say("the same")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; exit code 0 both runs are the same, 1 they are not."""
    settings = tyro.cli(Rehearsal, args=arguments, prog="python -m tpu.rehearsal")
    # So that the hosts end with it.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    console = Console(highlight=False, markup=False)
    if settings.folder is not None:
        settings.folder.mkdir(parents=True)
        return rehearse(settings, settings.folder, console)
    folder = Path(tempfile.mkdtemp(prefix="pod-rehearsal-"))
    try:
        return rehearse(settings, folder, console)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
