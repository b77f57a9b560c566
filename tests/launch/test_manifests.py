"""Manifests hold to the schemas of those who read them (`schemas/README.md`)."""

import copy
import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from tpu.job import Job
from tpu.jobset import jobset
from tpu.manifest import to_yaml
from tpu.restart import AGAIN
from tpu.sky import task
from tpu.slices import SLICES, slice_of

ROOT = Path(__file__).parents[2]
SCHEMAS = Path(__file__).parent / "schemas"
JOB = Job(
    name="fd",
    runs="gs://b/runs",
    command=("experiments.prover", "--policy", "Qwen/Qwen3-8B", "--header", "a\nb"),
    endpoint="https://writer.example/v1",
)


def schema(name):
    return jsonschema.Draft202012Validator(
        json.loads((SCHEMAS / f"{name}.json").read_text())
    )


def objects():
    """Whole objects of Kubernetes, of every kind that is deployed from here."""
    kinds, spec = (
        json.loads((SCHEMAS / f"{name}.json").read_text())
        for name in ("kubernetes", "jobset")
    )
    pods = spec["properties"]["replicatedJobs"]["items"]
    for key in ("template", "spec", "template"):
        pods = pods["properties"][key]
    kinds["$defs"] |= {"JobSetSpec": spec, "PodTemplateSpec": pods}
    return {
        kind["$ref"].rpartition("/")[2]: jsonschema.Draft202012Validator(
            {"$defs": kinds["$defs"], **kind}
        )
        for kind in kinds["oneOf"]
    }


OBJECTS = objects()


def deployed():
    """One object of each kind, by kind."""
    whole = [
        jobset(JOB, slice_of("v5p-64"), image="fdjax:1"),
        *yaml.safe_load_all((ROOT / "tpu/verifier.yaml").read_text()),
    ]
    return {one["kind"]: one for one in whole}


def pod_of(manifest):
    [slice] = manifest["spec"]["replicatedJobs"]
    return slice["template"]["spec"]["template"]["spec"]


@pytest.mark.parametrize("type", ["v5litepod-16", "v5p-64", "v6e-8", "tpu7x-16"])
def test_a_jobset_is_one(type):
    for choices in (
        {},
        {"secret": "keys", "verifier": True, "restarts": 3},
        {"checks_only": True},
    ):
        manifest = jobset(JOB, slice_of(type), image="fdjax:1", **choices)
        assert yaml.safe_load(to_yaml(manifest)) == manifest
        OBJECTS["JobSet"].validate(manifest)


def test_every_kind_that_is_deployed_has_a_schema():
    assert deployed().keys() == OBJECTS.keys()


@pytest.mark.parametrize("kind", OBJECTS)
def test_an_object_is_one_of_its_kind(kind):
    OBJECTS[kind].validate(deployed()[kind])


DROP = object()


@pytest.mark.parametrize(
    ("kind", "path", "value", "said"),
    [
        *((kind, "kindd", kind, "kindd") for kind in OBJECTS),
        *((kind, "apiVersion", "v1beta1", "v1beta1") for kind in OBJECTS),
        *((kind, "metadata", DROP, "'metadata' is a required") for kind in OBJECTS),
        *((kind, "metadata.nam", "a", "nam") for kind in OBJECTS),
        *((kind, "metadata.name", "A_b", "A_b") for kind in OBJECTS),
        *((kind, "metadata.labels", {"app": 1}, "1 is not of") for kind in OBJECTS),
        *((kind, "specc", {}, "specc") for kind in OBJECTS),
        *((kind, "spec", DROP, "'spec' is a required") for kind in OBJECTS),
        *((kind, "spec.replica", 3, "replica") for kind in OBJECTS),
        ("JobSet", "spec.replicatedJobs.0.template.spec.complete", 3, "complete"),
        (
            "JobSet",
            "spec.replicatedJobs.0.template.spec.template.spec.containers.0.imagee",
            *("fdjax:2", "imagee"),
        ),
        ("Deployment", "spec.template.spec.containers.0.imagee", "f:2", "imagee"),
        ("Deployment", "spec.template", DROP, "'template' is a required"),
        ("Deployment", "spec.selector", DROP, "'selector' is a required"),
        ("Deployment", "spec.selector.labels", {}, "labels"),
        ("Deployment", "spec.strategy.maxSurge", 1, "maxSurge"),
        ("Deployment", "spec.strategy.type", "Rolling", "Rolling"),
        ("Deployment", "spec.strategy.rollingUpdate.maxSurge", "one", "one"),
        ("Deployment", "spec.replicas", "3", "'3' is not of type"),
        ("Service", "spec.ports.0.port", DROP, "'port' is a required"),
        ("Service", "spec.ports.0.port", 80000, "80000"),
        ("Service", "spec.ports.0.targetPorts", 1, "targetPorts"),
        ("Service", "spec.selector", {"matchLabels": {}}, "is not of type 'string'"),
        ("Service", "spec.type", "Cluster", "Cluster"),
        ("HorizontalPodAutoscaler", "spec.maxReplicas", DROP, "'maxReplicas' is a"),
        ("HorizontalPodAutoscaler", "spec.scaleTargetRef.kind", DROP, "'kind' is a"),
        ("HorizontalPodAutoscaler", "spec.metrics.0.resource.target.type", "%", "%"),
        ("HorizontalPodAutoscaler", "spec.metrics.0.resource.targets", {}, "targets"),
        # As autoscaling/v1 has it.
        ("HorizontalPodAutoscaler", "spec.targetCPUUtilizationPercentage", 70, "CPU"),
        ("HorizontalPodAutoscaler", "spec.behavior.scaledown", {}, "scaledown"),
        (
            "HorizontalPodAutoscaler",
            "spec.behavior.scaleDown.stabilizationWindowSeconds",
            *(7200, "7200"),
        ),
        ("PodDisruptionBudget", "spec.minAvailable", 1, "should not be valid"),
        ("PodDisruptionBudget", "spec.maxUnavailable", "one", "one"),
        ("PodDisruptionBudget", "spec.selector.app", "fdjax", "app"),
    ],
)
def test_a_slip_in_an_object_is_refused(kind, path, value, said):
    manifest = copy.deepcopy(deployed()[kind])
    *above, last = path.split(".")
    part = manifest
    for key in above:
        part = part[int(key) if key.isdecimal() else key]
    if value is DROP:
        del part[last]
    else:
        part[last] = value
    with pytest.raises(jsonschema.ValidationError, match=re.escape(said)):
        OBJECTS[kind].validate(manifest)


@pytest.mark.parametrize("type", SLICES)
def test_pods_are_the_hosts_of_the_slice(type):
    slice = slice_of(type)
    manifest = jobset(JOB, slice, image="fdjax:1")
    [job] = manifest["spec"]["replicatedJobs"]
    assert job["template"]["spec"]["parallelism"] == slice.hosts
    [host] = pod_of(manifest)["containers"]
    assert host["resources"]["limits"]["google.com/tpu"] * slice.hosts == slice.chips


def test_kubernetes_and_skypilot_have_the_rule_of_the_keeper():
    manifest = jobset(JOB, slice_of("v5p-64"), image="fdjax:1")
    [job] = manifest["spec"]["replicatedJobs"]
    [rule] = job["template"]["spec"]["podFailurePolicy"]["rules"]
    # A pod that ends otherwise fails the JobSet, so these alone begin it anew.
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"]["operator"] == "NotIn"
    assert set(rule["onExitCodes"]["values"]) == AGAIN
    [host] = pod_of(manifest)["containers"]
    assert rule["onExitCodes"]["containerName"] == host["name"]
    [policy] = manifest["spec"]["failurePolicy"]["rules"]
    assert policy["action"] == "FailJobSet"
    assert policy["onJobFailureReasons"] == ["PodFailurePolicy"]
    described = task(JOB, slice_of("v5p-64"))
    recovery = described["resources"]["job_recovery"]
    assert set(recovery["recover_on_exit_codes"]) == AGAIN


def test_a_verifier_beside_the_trainer_does_not_keep_the_pod():
    pod = pod_of(jobset(JOB, slice_of("v5p-64"), image="i", verifier=True))
    [verifier] = pod["initContainers"]
    assert verifier["restartPolicy"] == "Always"
    assert len(pod["containers"]) == 1


@pytest.mark.parametrize("type", ["v5litepod-16", "v5p-64", "v6e-8"])
def test_a_task_is_one(type):
    for choices in (
        {},
        {"spot": True, "secrets": ["KEY"], "mathlib": True, "infra": "gcp/us-west4"},
        {"checks_only": True},
    ):
        described = task(JOB, slice_of(type), **choices)
        assert yaml.safe_load(to_yaml(described)) == described
        schema("skypilot").validate(described)


def test_the_schema_of_tasks_refuses_a_slip():
    described = task(JOB, slice_of("v5p-64"))
    described["resources"]["use_sport"] = True
    with pytest.raises(jsonschema.ValidationError, match="use_sport"):
        schema("skypilot").validate(described)


def test_the_objects_of_verifiers_mean_the_same_pods():
    objects = deployed()
    deployment = objects["Deployment"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert objects["Service"]["spec"]["selector"] == labels
    assert objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    scaled = objects["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert scaled == {
        **{key: deployment[key] for key in ("apiVersion", "kind")},
        "name": deployment["metadata"]["name"],
    }
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    [port] = objects["Service"]["spec"]["ports"]
    assert port["targetPort"] in [one["name"] for one in container["ports"]]
