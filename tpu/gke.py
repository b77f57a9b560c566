"""Kubernetes of Google Cloud: node pools for slices, JobSets for runs (tpu/gke.md)."""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fdjax.errors import ConfigError
from tpu.commands import Step
from tpu.job import Job
from tpu.jobset import HOST, VERIFIER, jobset, on_each_host
from tpu.manifest import to_yaml
from tpu.restart import AGAIN
from tpu.slices import slice_of
from tpu.verbs import Fetch, Named, Running, Verb, run_verb
from tpu.versions import JOBSET

__all__ = ["main"]

_CONTROLLER = (
    "https://github.com/kubernetes-sigs/jobset/releases/download/"
    f"v{JOBSET}/manifests.yaml"
)


@dataclass(frozen=True, kw_only=True)
class _Pool(Named):
    cluster: str
    """The Kubernetes cluster."""
    location: str
    """Of the cluster: a region, or a zone."""
    project: str = ""
    """Of Google Cloud; gcloud's own by default."""

    def _containers(self, *words: str) -> Step:
        return self._gcloud("container", *words, f"--location={self.location}")

    def _policy(self, verb: str, *flags: str) -> Step:
        """Of the slice's placement, in the cluster's region."""
        region = re.sub(r"-[a-z]$", "", self.location)
        return self._gcloud(
            *("compute", "resource-policies", *verb.split(), self.name, *flags),
            f"--region={region}",
        )

    def _gcloud(self, *words: str) -> Step:
        project = (f"--project={self.project}",) if self.project else ()
        return Step(command=("gcloud", *words, *project))


@dataclass(frozen=True, kw_only=True)
class Create(_Pool):
    """Make the slice's node pool, and where it is asked for the cluster."""

    type: str
    """Of the slice, such as v5litepod-16, v5p-64 or v6e-16."""
    zone: str
    """Of the slice, in the cluster's region."""
    spot: bool = False
    """Cheaper machines that may be taken away."""
    new_cluster: bool = False
    """Make the cluster, too, and install the controller of JobSets."""

    def steps(self) -> list[Step]:
        """Cluster, credentials, controller, placement, node pool."""
        slice = slice_of(self.type)
        steps = []
        if self.new_cluster:
            steps.append(
                self._containers(
                    "clusters", "create", self.cluster, "--machine-type=e2-standard-8"
                )
            )
        steps.append(self._containers("clusters", "get-credentials", self.cluster))
        if self.new_cluster:
            steps.append(
                Step(
                    command=(
                        *("kubectl", "apply", "--server-side"),
                        f"--filename={_CONTROLLER}",
                    )
                )
            )
        flags = [
            f"--cluster={self.cluster}",
            f"--node-locations={self.zone}",
            f"--machine-type={slice.machine}",
            f"--num-nodes={slice.hosts}",
            # For the buckets of the runs.
            "--scopes=cloud-platform",
        ]
        if slice.policy:
            steps.append(
                self._policy(
                    "create workload-policy",
                    "--type=HIGH_THROUGHPUT",
                    f"--accelerator-topology={slice.topology}",
                )
            )
            flags.append(f"--placement-policy={self.name}")
        elif slice.hosts > 1:
            flags.append(f"--tpu-topology={slice.topology}")
        if self.spot:
            flags.append("--spot")
        return [*steps, self._containers("node-pools", "create", self.name, *flags)]


@dataclass(frozen=True, kw_only=True)
class Setup(Verb):
    """Build the image of this folder, and push it."""

    image: str
    """Its address, such as us-docker.pkg.dev/PROJECT/fdjax/fdjax:COMMIT."""
    mathlib: bool = False
    """With a native Lean and Mathlib in /opt/mathlib."""

    def steps(self) -> list[Step]:
        """Build, push."""
        target = ("--target=mathlib",) if self.mathlib else ()
        return [
            Step(
                command=(
                    *("docker", "build", "--file=tpu/Dockerfile", *target),
                    *(f"--tag={self.image}", "."),
                )
            ),
            Step(command=("docker", "push", self.image)),
        ]


@dataclass(frozen=True, kw_only=True)
class Launch(Running):
    """Look at every host, then start the run on all of them; the rest follows --."""

    type: str
    """Of the slice."""
    image: str
    """That `setup` pushed."""
    secret: str = ""
    """Secret whose keys become environment variables, such as API keys."""
    verifier: bool = False
    """A verifier beside the trainer in every pod, at http://127.0.0.1:8000."""
    restarts: int = 100
    """Times that all pods may begin anew because nodes went away."""

    def steps(self) -> list[Step]:
        """One manifest."""
        return [self._applied(self.job(), checks_only=False)]

    def lean(self) -> tuple[str, ...]:
        """The verifier beside the trainer, where there is one."""
        return (
            ("--backend", "remote", "--url", VERIFIER)
            if self.verifier
            else super().lean()
        )

    def _applied(self, job: Job, *, checks_only: bool) -> Step:
        manifest = jobset(
            job,
            slice_of(self.type),
            image=self.image,
            secret=self.secret,
            verifier=self.verifier,
            restarts=self.restarts,
            checks_only=checks_only,
        )
        return Step(
            command=("kubectl", "apply", "--filename=-"), stdin=to_yaml(manifest)
        )


@dataclass(frozen=True, kw_only=True)
class Check(Launch):
    """Look at every host, and start nothing."""

    def steps(self) -> list[Step]:
        """A JobSet of its own, the log of its first pod, its end.

        One that failed stays until the next check, for its other pods' logs.
        """
        job = replace(self.job(), name=f"{self.name}-check")
        return [
            _deleted(job.name),
            self._applied(job, checks_only=True),
            Step(
                command=_get("pods", _selector(job.name, first=True), _PHASE),
                until=("Running", "Succeeded", "Failed"),
            ),
            _log(_selector(job.name, first=True)),
            Step(
                command=_get("jobset", job.name, _END),
                until=("Completed",),
                never=("Failed",),
                remedy="the log above says why",
            ),
            _deleted(job.name),
        ]


@dataclass(frozen=True, kw_only=True)
class Xpk(Launch):
    """Launch on a cluster that xpk has made: its queue and JobSet, the same command."""

    cluster: str
    """That `xpk cluster create` made."""

    def steps(self) -> list[Step]:
        """One workload.

        Raises:
          ConfigError: a setting is not xpk's to keep.
        """
        if self.secret or self.verifier:
            raise ConfigError(
                "expected neither --secret nor --verifier with xpk, whose pods are its "
                "own: use launch, or leave them out"
            )
        slice = slice_of(self.type)
        # One process drives all chips of a host; xpk would start two.
        tpu7x = slice.accelerator == "tpu7x"
        # xpk begins anew after all that signals cause; a run's own word is told to it.
        again = ",".join(str(code) for code in sorted(AGAIN) if code < 127)
        return [
            Step(
                command=(
                    *("xpk", "workload", "create", f"--cluster={self.cluster}"),
                    f"--workload={self.name}",
                    f"--tpu-type={slice.type}",
                    f"--docker-image={self.image}",
                    # The name by which `follow` asks for a pod's log.
                    f"--docker-name={HOST}",
                    *(("--no-use-parallel-containers",) if tpu7x else ()),
                    f"--max-restarts={self.restarts}",
                    f"--restart-on-exit-codes={again}",
                    f"--command={on_each_host(self.job())}",
                )
            )
        ]


@dataclass(frozen=True, kw_only=True)
class Follow(Named):
    """Read along what the hosts say."""

    def steps(self) -> list[Step]:
        """The log of all pods, each line with its pod's name."""
        return [_log(_selector(self.name))]


@dataclass(frozen=True, kw_only=True)
class Resume(Launch):
    """Begin a JobSet anew that failed; until then it goes on by itself."""

    def steps(self) -> list[Step]:
        """The old one goes first: its pods are not to be changed."""
        return [_deleted(self.name), *super().steps()]


@dataclass(frozen=True, kw_only=True)
class Stop(Named):
    """End the run, which saves first; the machines stay."""

    def steps(self) -> list[Step]:
        """The JobSet goes, and its pods are told."""
        return [_deleted(self.name)]


@dataclass(frozen=True, kw_only=True)
class Delete(_Pool):
    """Give the machines back."""

    type: str = ""
    """Of the slice; that of a tpu7x of several hosts, whose placement goes, too."""
    whole_cluster: bool = False
    """And the cluster with all that is in it."""

    def steps(self) -> list[Step]:
        """The JobSet, the node pool, perhaps the cluster and the placement."""
        what = (
            ("clusters", "delete", self.cluster)
            if self.whole_cluster
            else ("node-pools", "delete", self.name, f"--cluster={self.cluster}")
        )
        steps = [_deleted(self.name), self._containers(*what, "--quiet")]
        if self.type and slice_of(self.type).policy:
            steps.append(self._policy("delete", "--quiet"))
        return steps


def _deleted(name: str) -> Step:
    return Step(command=("kubectl", "delete", "jobset", name, "--ignore-not-found"))


_PHASE = "--output=jsonpath={.items[*].status.phase}"
_END = "--output=jsonpath={.status.terminalState}"


def _selector(name: str, *, first: bool = False) -> str:
    selector = f"--selector=jobset.sigs.k8s.io/jobset-name={name}"
    index = ",batch.kubernetes.io/job-completion-index=0"
    return selector + index if first else selector


def _get(*words: str) -> tuple[str, ...]:
    return ("kubectl", "get", *words)


def _log(selector: str) -> Step:
    return Step(
        command=(
            *("kubectl", "logs", "--follow", "--prefix", "--timestamps"),
            *("--max-log-requests=256", "--tail=200", f"--container={HOST}"),
            *("--pod-running-timeout=24h", selector),
        )
    )


_VERBS = {
    "create": Create,
    "setup": Setup,
    "check": Check,
    "launch": Launch,
    "xpk": Xpk,
    "follow": Follow,
    "resume": Resume,
    "stop": Stop,
    "fetch": Fetch,
    "delete": Delete,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; exit code 0 done, 1 a command failed, 2 bad input."""
    return run_verb("tpu.gke", _VERBS, arguments)


if __name__ == "__main__":
    sys.exit(main())
