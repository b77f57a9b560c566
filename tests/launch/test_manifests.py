"""Manifests hold to the schemas of those who read them (`schemas/README.md`)."""

import json
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


def pod_of(manifest):
    [slice] = manifest["spec"]["replicatedJobs"]
    return slice["template"]["spec"]["template"]["spec"]


@pytest.mark.parametrize("type", ["v5litepod-16", "v5p-64", "v6e-8"])
def test_a_jobset_is_one(type):
    for choices in (
        {},
        {"secret": "keys", "verifier": True, "restarts": 3},
        {"checks_only": True},
    ):
        manifest = jobset(JOB, slice_of(type), image="fdjax:1", **choices)
        assert yaml.safe_load(to_yaml(manifest)) == manifest
        assert manifest["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
        schema("jobset").validate(manifest["spec"])


def test_the_schema_of_jobsets_refuses_a_slip():
    manifest = jobset(JOB, slice_of("v5p-64"), image="fdjax:1")
    pod_of(manifest)["containers"][0]["imagee"] = "fdjax:2"
    with pytest.raises(jsonschema.ValidationError, match="imagee"):
        schema("jobset").validate(manifest["spec"])


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


def test_the_pods_of_verifiers_are_pods():
    documents = yaml.safe_load_all((ROOT / "tpu/verifier.yaml").read_text())
    [deployment] = [one for one in documents if one["kind"] == "Deployment"]
    pods = schema("jobset").schema["properties"]["replicatedJobs"]["items"]
    for key in ("template", "spec", "template"):
        pods = pods["properties"][key]
    template = deployment["spec"]["template"]
    jsonschema.Draft202012Validator(pods).validate(template)
