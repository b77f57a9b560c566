"""TPU machines of Cloud TPU: queued resources, and ssh to all hosts (tpu/gcloud.md)."""

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tpu.commands import (
    PATIENCE,
    CommandError,
    Step,
    output,
    perform,
    require_programs,
)
from tpu.job import Place, quoted, shell
from tpu.slices import queued_slice_of
from tpu.verbs import Fetch, Named, Running, run_verb
from tpu.versions import variables

__all__ = ["main"]

_GONE = ("FAILED", "SUSPENDING", "SUSPENDED")
"""States of a queued resource that has no machines and will get none."""
_GOES_ON = "goes on"
"""Said by a host on which no run has ended."""


@dataclass(frozen=True, kw_only=True)
class _Machines(Named):
    zone: str
    """Such as us-west4-a."""
    project: str = ""
    """Of Google Cloud; gcloud's own by default."""

    def _tpus(self, *words: str) -> tuple[str, ...]:
        project = (f"--project={self.project}",) if self.project else ()
        return ("gcloud", "compute", "tpus", *words, f"--zone={self.zone}", *project)

    def _queued(self, verb: str, *flags: str) -> tuple[str, ...]:
        return self._tpus("queued-resources", verb, self.name, *flags)

    def _state(self) -> tuple[str, ...]:
        """Prints its state, and nothing where it is not there: that is no failure."""
        return self._tpus(
            *("queued-resources", "list", f"--filter=name~/{self.name}$"),
            "--format=value(state.state)",
        )

    def _deleted(self) -> Step:
        return Step(command=self._queued("delete", "--force", "--quiet"))

    def _ssh(self, command: str, worker: str = "all") -> tuple[str, ...]:
        return self._tpus(
            "tpu-vm", "ssh", self.name, f"--worker={worker}", f"--command={command}"
        )

    def _copied(self, source: Path, target: str) -> Step:
        return Step(
            command=self._tpus(
                "tpu-vm", "scp", str(source), f"{self.name}:{target}", "--worker=all"
            )
        )

    def _place(self) -> Place:
        return Place(
            python=".venv/bin/python",
            fdjax=".venv/bin/fdjax",
            ended=f"~/{self.name}.exit",
        )


@dataclass(frozen=True, kw_only=True)
class Create(_Machines):
    """Ask for a slice, and wait until it is there."""

    type: str
    """Of the slice, such as v5litepod-16, v5p-64 or v6e-16."""
    spot: bool = False
    """Cheaper machines that may be taken away."""

    def steps(self) -> list[Step]:
        """The request, and the wait."""
        return [self._requested(), self._there()]

    def _requested(self) -> Step:
        slice = queued_slice_of(self.type)
        flags = [
            f"--node-id={self.name}",
            f"--accelerator-type={slice.type}",
            f"--runtime-version={slice.runtime}",
        ]
        if self.spot:
            flags.append("--spot")
        return Step(command=self._queued("create", *flags))

    def _there(self) -> Step:
        return Step(
            command=self._state(),
            until=("ACTIVE",),
            never=_GONE,
            remedy="delete it and create it again, or try another zone",
        )


@dataclass(frozen=True, kw_only=True)
class Setup(_Machines):
    """Install this commit of the project on all hosts, with pinned versions."""

    ref: str = "HEAD"
    """What is installed: a commit, branch or tag of this repository."""
    env_file: Path | None = None
    """File of NAME=value lines for the run's environment, such as API keys."""
    mathlib: bool = False
    """Also a native Lean with Mathlib in ~/mathlib of every host."""

    def steps(self) -> list[Step]:
        """Pack, copy, install."""
        archive = Path(tempfile.gettempdir()) / f"fdjax-{self.name}.tar.gz"
        steps = [
            Step(
                command=(
                    *("git", "archive", "--format=tar.gz", f"--output={archive}"),
                    self.ref,
                )
            ),
            self._copied(archive, "fdjax.tar.gz"),
        ]
        if self.env_file is not None:
            steps.append(self._copied(self.env_file, f"{self.name}.env"))
        versions = variables(mathlib=self.mathlib)
        given = " ".join(f"{name}={value}" for name, value in versions.items())
        unpacked = "mkdir -p ~/fdjax && tar -xzf ~/fdjax.tar.gz -C ~/fdjax"
        return [
            *steps,
            Step(command=self._ssh(f"{unpacked} && {given} bash ~/fdjax/tpu/setup.sh")),
        ]


@dataclass(frozen=True, kw_only=True)
class Launch(_Machines, Running):
    """Look at every host, then start the run on all of them; the rest follows --."""

    def steps(self) -> list[Step]:
        """The start."""
        return [self._started()]

    def _started(self) -> Step:
        job = self.job()
        check, run = (quoted(shell(of(self._place()))) for of in (job.check, job.kept))
        start = f"bash ~/fdjax/tpu/start.sh {self.name} {check} {run}"
        return Step(command=self._ssh(start))


@dataclass(frozen=True, kw_only=True)
class Check(_Machines, Running):
    """Look at every host, and start nothing."""

    def steps(self) -> list[Step]:
        """`fdjax doctor --pod` on all of them."""
        check = shell(self.job().check(self._place()))
        return [Step(command=self._ssh(f"cd ~/fdjax && {check}"))]


@dataclass(frozen=True, kw_only=True)
class Follow(_Machines):
    """Read along what a host says."""

    worker: str = "0"
    """The host, from 0, or all; the first says what there is to say of the run."""

    def steps(self) -> list[Step]:
        """The log."""
        tail = f"tail --lines=200 --follow=name ~/{self.name}.log"
        return [Step(command=self._ssh(tail, self.worker))]


@dataclass(frozen=True, kw_only=True)
class Resume(Create, Setup, Launch):
    """Keep the run going until it is done; ask anew for a slice that was taken."""

    pause_s: float = 120.0
    """Between two looks, seconds."""

    def steps(self) -> list[Step]:
        """Those where there is no slice."""
        return [
            self._requested(),
            self._there(),
            *Setup.steps(self),
            self._started(),
        ]

    def run(self) -> int:
        """Looks, mends, and looks again; the run's exit code.

        Raises:
          CommandError: for `PATIENCE` looks it was not to be learned how things are.
        """
        if self.dry_run:
            self._show()
            return 0
        require_programs(self.steps())
        unanswered, bare = 0, False
        while True:
            try:
                state = output(self._state())
                if state == "ACTIVE" and not bare:
                    ended = output(self._asked())
                    if ended.isdecimal():
                        return int(ended)
                    self._require_going(ended)
                unanswered = 0
            except CommandError as error:
                unanswered += 1
                if unanswered > PATIENCE:
                    raise
                sys.stderr.write(f"{error}\n")
            else:
                bare = self._mend(state, bare)
            time.sleep(self.pause_s)

    def _mend(self, state: str, bare: bool) -> bool:
        """Does what a state asks for; whether there is a slice that is not set up.

        Args:
          state: of the queued resource; empty where there is none.
          bare: whether a slice that was made here is still to be set up.
        """
        try:
            if state in _GONE:
                perform([self._deleted()], dry_run=False)
            if not state or state in _GONE:
                perform([self._requested()], dry_run=False)
                bare = True
                perform([self._there()], dry_run=False)
            elif state != "ACTIVE":
                return bare
            if bare:
                perform(Setup.steps(self), dry_run=False)
                bare = False
            # Where the run goes on already this does nothing.
            perform([self._started()], dry_run=False)
        except CommandError as error:
            # Machines may go at any moment; the next look says more.
            sys.stderr.write(f"{error}\n")
        return bare

    def _show(self) -> None:
        perform([Step(command=self._state())], dry_run=True)
        sys.stdout.write(f"# {', '.join(_GONE)}: this first\n")
        perform([self._deleted()], dry_run=True)
        sys.stdout.write("# nothing there:\n")
        perform(self.steps(), dry_run=True)
        sys.stdout.write("# ACTIVE, until the run has ended:\n")
        perform([Step(command=self._asked()), self._started()], dry_run=True)

    def _asked(self) -> tuple[str, ...]:
        """Prints the run's exit code, or that it has none."""
        file = f"~/{self.name}.exit"
        return self._ssh(
            f"if [ -e {file} ]; then cat {file}; else echo {_GOES_ON}; fi", "0"
        )

    def _require_going(self, said: str) -> None:
        if said != _GOES_ON:
            raise CommandError(
                f"expected an exit code of host 0, or {_GOES_ON!r}, got {said!r}: see "
                f"~/{self.name}.exit there; nothing was started"
            )


@dataclass(frozen=True, kw_only=True)
class Stop(_Machines):
    """End the run, which saves first; the machines stay."""

    def steps(self) -> list[Step]:
        """SIGTERM to every keeper."""
        return [Step(command=self._ssh(f"kill $(cat ~/{self.name}.pid)"))]


@dataclass(frozen=True, kw_only=True)
class Delete(_Machines):
    """Give the machines back, with all that is on their disks."""

    def steps(self) -> list[Step]:
        """The queued resource goes, and its node."""
        return [self._deleted()]


_VERBS = {
    "create": Create,
    "setup": Setup,
    "check": Check,
    "launch": Launch,
    "follow": Follow,
    "resume": Resume,
    "stop": Stop,
    "fetch": Fetch,
    "delete": Delete,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; exit code 0 done, 1 a command failed, 2 bad input."""
    return run_verb("tpu.gcloud", _VERBS, arguments)


if __name__ == "__main__":
    sys.exit(main())
