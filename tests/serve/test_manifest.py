"""The Kubernetes manifest, as far as it can be tested without a cluster."""

import inspect
from pathlib import Path

import pytest
import tyro
import yaml

from fdjax.serve import serve
from fdjax.serve.limits import OPEN_PATHS

MANIFEST = Path(__file__).parents[2] / "tpu" / "verifier.yaml"


@pytest.fixture(scope="module")
def parts():
    documents = list(yaml.safe_load_all(MANIFEST.read_text()))
    assert len({part["kind"] for part in documents}) == len(documents)
    return {part["kind"]: part for part in documents}


@pytest.fixture(scope="module")
def pod(parts):
    return parts["Deployment"]["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def container(pod):
    [container] = pod["containers"]
    return container


@pytest.fixture(scope="module")
def options(container):
    """What the command line makes of the container's arguments."""
    command, *arguments = container["args"]
    assert command == "serve"
    chosen = {}

    def note(**values):
        chosen.update(values)

    note.__signature__ = inspect.signature(serve)
    note.__doc__ = serve.__doc__
    note.__annotations__ = serve.__annotations__
    tyro.cli(note, args=arguments)
    return chosen


def test_parts(parts):
    assert set(parts) == {
        "Deployment",
        "Service",
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
    }
    labels = parts["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert parts["Service"]["spec"]["selector"] == labels
    for kind in ("Deployment", "PodDisruptionBudget"):
        assert parts[kind]["spec"]["selector"]["matchLabels"] == labels
    autoscaler = parts["HorizontalPodAutoscaler"]["spec"]
    name = parts["Deployment"]["metadata"]["name"]
    assert autoscaler["scaleTargetRef"]["name"] == name
    assert autoscaler["minReplicas"] > 1


def test_the_command_line_accepts_the_arguments(options, container, pod, parts):
    assert options["host"] == "0.0.0.0"
    [port] = container["ports"]
    assert port["containerPort"] == options["port"]
    [served] = parts["Service"]["spec"]["ports"]
    assert served["targetPort"] == port["name"]
    assert not options["insecure"]
    assert not options["trust_headers"]


def test_files_are_where_volumes_are_mounted(options, container, pod):
    mounts = {Path(m["mountPath"]): m["name"] for m in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert set(mounts.values()) == set(volumes)
    token = options["token_file"]
    secret = volumes[mounts[token.parent]]["secret"]
    assert token.name in {item["path"] for item in secret["items"]}
    assert "emptyDir" in volumes[mounts[options["cache"].parent]]


def test_resources_hold_the_workers(options, container):
    limits = container["resources"]["limits"]
    assert int(limits["cpu"]) >= options["workers"]
    memory_mb = int(limits["memory"].removesuffix("Gi")) * 1024
    assert memory_mb >= options["workers"] * options["memory_mb"] + 512


def test_probes_need_no_token(container):
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        path = container[probe]["httpGet"]["path"]
        assert path in OPEN_PATHS
    assert container["readinessProbe"]["httpGet"]["path"] == "/ready"


def test_running_requests_may_finish(options, container, pod):
    [_, pause] = container["lifecycle"]["preStop"]["exec"]["command"]
    needed = int(pause) + options["drain"]
    assert pod["terminationGracePeriodSeconds"] > needed


def test_nothing_is_allowed_that_is_not_needed(container, pod):
    assert pod["securityContext"]["runAsNonRoot"]
    assert not pod["automountServiceAccountToken"]
    context = container["securityContext"]
    assert context["readOnlyRootFilesystem"]
    assert not context["allowPrivilegeEscalation"]
    assert context["capabilities"] == {"drop": ["ALL"]}
