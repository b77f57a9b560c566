"""Manifests of a run on Kubernetes: a JobSet whose pods are the hosts of a slice.

A keeper in every pod starts its process again, so a pod ends where its node goes away,
the run is done, or people must look. The last two end the JobSet. After the first it
begins all pods anew, because the processes of a run belong together.
"""

from typing import Any

from tpu.job import Job, Place, shell
from tpu.restart import AGAIN
from tpu.slices import Slice

__all__ = ["HOST", "VERIFIER", "jobset", "on_each_host"]

_PLACE = Place(python="python", fdjax="fdjax")
_PORTS = {"tpu": 8471, "coordinator": 8476}
"""On which hosts of a slice meet."""
HOST = "host"
"""Name of the container that runs on each host."""
VERIFIER = "http://127.0.0.1:8000"
"""Of a pod's own verifier."""


def jobset(
    job: Job,
    slice: Slice,
    *,
    image: str,
    secret: str = "",
    verifier: bool = False,
    restarts: int = 100,
    checks_only: bool = False,
) -> dict[str, Any]:
    """The manifest.

    Args:
      job: what runs on every host.
      slice: its machines; all of them are one node pool.
      image: built from tpu/Dockerfile.
      secret: name of a Secret whose keys become environment variables.
      verifier: whether a verifier stands beside the trainer in each pod.
      restarts: times that all pods may begin anew because nodes went away.
      checks_only: look at the hosts, and start nothing.
    """
    run = shell(job.check(_PLACE)) if checks_only else on_each_host(job)
    container: dict[str, Any] = {
        "name": HOST,
        "image": image,
        "command": ["tini", "-g", "--", "bash", "-c", run],
        "ports": [
            {"name": name, "containerPort": port} for name, port in _PORTS.items()
        ],
        "resources": {"limits": {"google.com/tpu": slice.chips_per_host}},
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
    }
    if secret:
        container["envFrom"] = [{"secretRef": {"name": secret}}]
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        # A run that is told to stop saves first.
        "terminationGracePeriodSeconds": 300,
        "nodeSelector": {
            "cloud.google.com/gke-tpu-accelerator": slice.accelerator,
            "cloud.google.com/gke-tpu-topology": slice.topology,
        },
        "tolerations": [{"key": "google.com/tpu", "operator": "Exists"}],
        "containers": [container],
        "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}],
    }
    if verifier:
        pod["initContainers"] = [_verifier(image)]
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": job.name,
            "annotations": {
                "alpha.jobset.sigs.k8s.io/exclusive-topology": (
                    "cloud.google.com/gke-nodepool"
                )
            },
        },
        "spec": {
            "failurePolicy": {
                "maxRestarts": 0 if checks_only else restarts,
                "rules": [
                    {
                        "name": "forPeople",
                        "action": "FailJobSet",
                        "onJobFailureReasons": ["PodFailurePolicy"],
                    }
                ],
            },
            "replicatedJobs": [
                {
                    "name": "slice",
                    "replicas": 1,
                    "template": {
                        "spec": {
                            "parallelism": slice.hosts,
                            "completions": slice.hosts,
                            "completionMode": "Indexed",
                            "backoffLimit": 0,
                            "podFailurePolicy": _POLICY,
                            "template": {"spec": pod},
                        }
                    },
                }
            ],
        },
    }


def on_each_host(job: Job) -> str:
    """What a container runs, a line of a shell: the check, and then the run."""
    return f"{shell(job.check(_PLACE))} && exec {shell(job.kept(_PLACE))}"


_POLICY = {
    "rules": [
        {
            "action": "FailJob",
            "onExitCodes": {
                "containerName": HOST,
                "operator": "NotIn",
                "values": sorted(AGAIN),
            },
        }
    ]
}
"""The rule of `tpu.restart`. What it does not match fails the job, too, but for its
`backoffLimit`: another reason, after which the JobSet begins anew."""


def _verifier(image: str) -> dict[str, Any]:
    """Ends with the pod, and its end is not the pod's: it is no main container."""
    return {
        "name": "verifier",
        "image": image,
        "restartPolicy": "Always",
        "command": ["tini", "--", "fdjax", "serve"],
        "args": ["--host=127.0.0.1", "--port=8000"],
        "startupProbe": {
            "exec": {"command": ["curl", "--fail", "--silent", f"{VERIFIER}/ready"]},
            "periodSeconds": 2,
            "failureThreshold": 60,
        },
    }
