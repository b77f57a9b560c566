"""SkyPilot: a file says machines, setup and run, a job keeps them (tpu/skypilot.md)."""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tpu.commands import Step
from tpu.job import Job, Place, shell
from tpu.manifest import to_yaml
from tpu.restart import AGAIN
from tpu.slices import Slice, queued_slice_of
from tpu.verbs import Fetch, Named, Running, run_verb
from tpu.versions import variables

__all__ = ["main", "task"]

_PLACE = Place(python=".venv/bin/python", fdjax=".venv/bin/fdjax")
"""In the folder that SkyPilot copies, where both of its scripts begin."""


def task(
    job: Job,
    slice: Slice,
    *,
    infra: str = "gcp",
    spot: bool = False,
    secrets: Sequence[str] = (),
    mathlib: bool = False,
    checks_only: bool = False,
) -> dict[str, Any]:
    """SkyPilot's description of a run.

    Args:
      job: what runs on every host.
      slice: its machines.
      infra: where: gcp, gcp/us-west4 or gcp/us-west4/us-west4-a.
      spot: cheaper machines that may be taken away.
      secrets: names of variables that the caller's environment holds, such as API keys.
      mathlib: also a native Lean with Mathlib in ~/mathlib of every host.
      checks_only: look at the hosts, and start nothing.
    """
    run = shell(job.check(_PLACE))
    if not checks_only:
        run += f" &&\nexec {shell(job.kept(_PLACE))}"
    described: dict[str, Any] = {
        "name": job.name,
        "workdir": ".",
        "resources": {
            "infra": infra,
            "accelerators": f"tpu-{slice.type}:1",
            "accelerator_args": {"runtime_version": slice.runtime},
            "use_spot": spot,
            "job_recovery": {
                "max_restarts_on_errors": 0,
                "recover_on_exit_codes": sorted(AGAIN),
            },
        },
        "envs": variables(mathlib=mathlib),
        "setup": "bash tpu/setup.sh\n",
        "run": f"{run}\n",
    }
    if secrets:
        described["secrets"] = dict.fromkeys(secrets)
    return described


@dataclass(frozen=True, kw_only=True)
class Launch(Running):
    """Rent, set up, look at every host and run; the rest follows --."""

    type: str
    """Of the slice, such as v5litepod-16, v5p-64 or v6e-16."""
    infra: str = "gcp"
    """Where: gcp, gcp/us-west4 or gcp/us-west4/us-west4-a."""
    spot: bool = False
    """Cheaper machines that may be taken away."""
    secrets: tuple[str, ...] = ()
    """Variables of this environment that the run needs, such as OPENAI_API_KEY."""
    mathlib: bool = False
    """Also a native Lean with Mathlib in ~/mathlib of every host."""

    def steps(self) -> list[Step]:
        """A managed job, which SkyPilot's controller keeps."""
        verb = ("sky", "jobs", "launch", "--yes", "--detach-run")
        return self._described(self.job(), verb, checks_only=False)

    def _described(
        self, job: Job, verb: tuple[str, ...], *, checks_only: bool
    ) -> list[Step]:
        described = task(
            job,
            queued_slice_of(self.type),
            infra=self.infra,
            spot=self.spot,
            secrets=self.secrets,
            mathlib=self.mathlib,
            checks_only=checks_only,
        )
        file = str(Path(tempfile.gettempdir()) / f"fdjax-{job.name}.yaml")
        secrets = [f"--secret={name}" for name in self.secrets]
        return [
            Step(command=("tee", file), stdin=to_yaml(described)),
            Step(command=(*verb, *secrets, file)),
        ]


@dataclass(frozen=True, kw_only=True)
class Check(Launch):
    """Rent, set up and look at every host; the machines go afterwards."""

    def steps(self) -> list[Step]:
        """A cluster for the time of the check."""
        job = replace(self.job(), name=f"{self.name}-check")
        verb = ("sky", "launch", "--yes", "--down", f"--cluster={job.name}")
        return self._described(job, verb, checks_only=True)


@dataclass(frozen=True, kw_only=True)
class Follow(Named):
    """Read along what the hosts say."""

    def steps(self) -> list[Step]:
        """The job's log."""
        return [Step(command=("sky", "jobs", "logs", f"--name={self.name}"))]


@dataclass(frozen=True, kw_only=True)
class Delete(Named):
    """End the run, which saves first, and give the machines back."""

    def steps(self) -> list[Step]:
        """The job is cancelled, and its cluster goes."""
        return [Step(command=("sky", "jobs", "cancel", "--yes", f"--name={self.name}"))]


_VERBS = {
    "check": Check,
    "launch": Launch,
    "follow": Follow,
    "fetch": Fetch,
    "delete": Delete,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; exit code 0 done, 1 a command failed, 2 bad input."""
    return run_verb("tpu.sky", _VERBS, arguments)


if __name__ == "__main__":
    sys.exit(main())
