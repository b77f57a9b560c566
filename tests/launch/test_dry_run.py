"""Each verb of each way prints exact commands; `golden` has them.

After a change on purpose, renew it: `PYTHONPATH=. python tests/launch/test_dry_run.py`.
"""

import contextlib
import importlib
import io
import re
import tempfile
from pathlib import Path
from unittest import mock

import pytest

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"

RUN = "-- experiments.prover --policy Qwen/Qwen3-8B --problems train.jsonl"
WRITER = (
    "feedback:model-feedback feedback.endpoint:open-ai-endpoint "
    "--feedback.endpoint.model gpt-5.1"
)
SLICE = "--name fd --zone us-west4-a"
POOL = "--name fd --cluster pods --location us-west4"
CASES = {
    "gcloud": {
        "create": f"{SLICE} --project p --type v5litepod-16 --spot",
        "setup": f"{SLICE} --env-file keys.env --mathlib",
        "check": f"{SLICE} --runs gs://b/runs --endpoint https://writer.example/v1",
        "launch": f"{SLICE} --runs gs://b/runs --lean-project ~/mathlib {RUN}",
        "follow": f"{SLICE} --worker all",
        "resume": f"{SLICE} --type v5litepod-16 --spot --runs gs://b/runs {RUN}",
        "stop": SLICE,
        "fetch": "--name fd --runs gs://b/runs",
        "delete": SLICE,
    },
    "gke": {
        "create": f"{POOL} --zone us-west4-a --type v5p-64 --spot --new-cluster",
        "setup": "--image us-docker.pkg.dev/p/fdjax/fdjax:1 --mathlib",
        "check": "--name fd --type v6e-8 --image fdjax:1 --runs gs://b/runs",
        "launch": "--name fd --type v5litepod-16 --image fdjax:1 --runs gs://b/runs "
        f"--secret keys --verifier {RUN}",
        "xpk": "--name fd --type v5p-64 --image fdjax:1 --cluster pods "
        f"--runs gs://b/runs {RUN}",
        "follow": "--name fd",
        "resume": "--name fd --type v5p-64 --image fdjax:1 --runs gs://b/runs "
        f"--lean-project /opt/mathlib {RUN}",
        "stop": "--name fd",
        "fetch": "--name fd --runs gs://b/runs --to here --checkpoints",
        "delete": f"{POOL} --type tpu7x-16 --whole-cluster",
    },
    "sky": {
        "check": "--name fd --type v6e-16 --runs gs://b/runs",
        "launch": "--name fd --type v5litepod-16 --runs gs://b/runs --spot "
        f"--infra gcp/us-west4 --secrets OPENAI_API_KEY --mathlib {RUN} {WRITER}",
        "follow": "--name fd",
        "fetch": "--name fd --runs gs://b/runs",
        "delete": "--name fd",
    },
}
EACH = [(way, verb) for way, verbs in CASES.items() for verb in verbs]


def printed(way, words):
    """What a command prints, with --dry-run."""
    given, dashes, run = " ".join(words).partition(" -- ")
    said = io.StringIO()
    with contextlib.redirect_stdout(said), mock.patch.object(tempfile, "tempdir", "/t"):
        code = importlib.import_module(f"tpu.{way}").main(
            [*given.split(), "--dry-run", *(dashes + run).split()]
        )
    assert code == 0
    return said.getvalue()


def golden(way, verb):
    words = (verb, *CASES[way][verb].split())
    command = " ".join(("python", "-m", f"tpu.{way}", *words))
    return f"# {command}\n\n{printed(way, words)}"


@pytest.mark.parametrize(("way", "verb"), EACH)
def test_a_verb_prints_its_commands(way, verb):
    assert golden(way, verb) == (GOLDEN / way / f"{verb}.txt").read_text()


def test_every_verb_is_printed():
    for way, cases in CASES.items():
        assert list(importlib.import_module(f"tpu.{way}")._VERBS) == list(cases)


def test_hosts_of_a_tpu7x_are_placed_by_a_policy():
    create = f"create {POOL} --zone us-west4-a --type".split()
    policy, pool = printed("gke", [*create, "tpu7x-16"]).split("\n\n")[1:]
    assert "resource-policies create workload-policy fd " in policy
    assert "--accelerator-topology=2x2x2" in policy
    assert "--region=us-west4" in policy
    assert "--placement-policy=fd" in pool
    assert "--machine-type=tpu7x-standard-4t" in pool
    assert "--tpu-topology" not in pool
    # One host needs neither, and no other generation has a policy.
    for type in ("tpu7x-8", "v5p-64"):
        assert "policy" not in printed("gke", [*create, type])


def test_one_container_drives_a_host_of_a_tpu7x():
    given = f"xpk --name fd --image i --cluster c --runs gs://b/runs {RUN}".split()
    flag = "--no-use-parallel-containers"
    assert flag in printed("gke", [*given[:1], "--type", "tpu7x-16", *given[1:]])
    assert flag not in printed("gke", [*given[:1], "--type", "v5p-64", *given[1:]])


def test_the_region_of_a_cluster_in_a_zone():
    zonal = POOL.replace("us-west4", "us-west4-a")
    assert "--region=us-west4\n" in printed(
        "gke", f"delete {zonal} --type tpu7x-16".split()
    )


@pytest.mark.parametrize("page", ["README", "gcloud", "gke", "skypilot"])
def test_the_commands_of_the_pages_are_commands(page):
    text = (ROOT / "tpu" / f"{page}.md").read_text()
    values = dict(re.findall(r'^([A-Z]+)="?([^"\n]+)"?$', text, re.M))
    commands = re.findall(r"^`?python -m tpu\.(gcloud|gke|sky) (.*?)`?$", text, re.M)
    commands += re.findall(r"`python -m tpu\.(gcloud|gke|sky) (\w+ [^`]*)`", text)
    assert commands
    for way, words in commands:
        while "$" in words:
            words = re.sub(r"\$([A-Z]+)", lambda found: values[found[1]], words)
        assert printed(way, words.replace(" --dry-run", "").split())


if __name__ == "__main__":
    for way, verb in EACH:
        (GOLDEN / way).mkdir(parents=True, exist_ok=True)
        (GOLDEN / way / f"{verb}.txt").write_text(golden(way, verb))
