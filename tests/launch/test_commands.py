"""Commands that run, with a `gcloud` that writes down what it is asked."""

import json
import stat
import sys

import pytest

from fdjax.errors import ConfigError, InstallError
from tpu import commands, gcloud, gke
from tpu.commands import CommandError, Step, perform
from tpu.job import Job, Place

GCLOUD = """#!{python}
import json, pathlib, sys
home = pathlib.Path({home!r})
with (home / "asked.jsonl").open("a") as asked:
    asked.write(json.dumps(sys.argv[1:]) + "\\n")
answers = home / "answers.json"
for key, given in (left := json.loads(answers.read_text())).items():
    if key in " ".join(sys.argv) and given:
        said = given.pop(0)
        answers.write_text(json.dumps(left))
        print(said) if isinstance(said, str) else sys.exit(said)
        break
"""


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    """Answers, and what was asked."""

    class Cloud:
        def answer(self, answers):
            (tmp_path / "answers.json").write_text(json.dumps(answers))

        @property
        def asked(self):
            return [
                json.loads(line)
                for line in (tmp_path / "asked.jsonl").read_text().splitlines()
            ]

        @property
        def verbs(self):
            """What was asked for, in a word each."""
            words = {
                **{"describe": "describe", "create": "create", "delete": "delete"},
                **{"scp": "copy", "setup.sh": "setup", "start.sh": "start"},
                "cat ~/": "ended?",
            }
            return [
                next(word for key, word in words.items() if key in " ".join(asked))
                for asked in self.asked
            ]

    (tmp_path / "bin").mkdir()
    script = GCLOUD.format(python=sys.executable, home=str(tmp_path))
    for name, text in {"gcloud": script, "git": "#!/bin/sh\n"}.items():
        program = tmp_path / "bin" / name
        program.write_text(text)
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    looks = iter(range(30))
    # Whoever waits for ever finds the patience of the test.
    monkeypatch.setattr(commands.time, "sleep", lambda seconds: next(looks))
    return Cloud()


RESUME = """resume --name fd --zone z --type v5litepod-16 --spot --runs gs://b/runs
    --pause-s 0 -- experiments.prover --policy p""".split()


def test_a_slice_is_waited_for(cloud):
    cloud.answer({"describe": ["WAITING_FOR_RESOURCES", 1, "PROVISIONING", "ACTIVE"]})
    create = ["create", "--name", "fd", "--zone", "z", "--type", "v6e-16"]
    assert gcloud.main(create) == 0
    assert cloud.verbs == ["create", *["describe"] * 4]


def test_a_slice_that_cannot_come_is_not_waited_for(cloud, capsys):
    cloud.answer({"describe": ["PROVISIONING", "FAILED"]})
    create = ["create", "--name", "fd", "--zone", "z", "--type", "v6e-16"]
    assert gcloud.main(create) == 1
    assert "got FAILED: delete it and create it again" in _words(capsys)


def test_a_slice_that_was_taken_is_asked_for_again(cloud):
    cloud.answer(
        {
            "describe": ["ACTIVE", "SUSPENDED", "ACTIVE", "ACTIVE", "ACTIVE"],
            # Not yet; after the new slice has begun; then done.
            "cat ~/fd.exit": [1, 1, "0"],
            "delete": [1],
        }
    )
    assert gcloud.main(RESUME) == 0
    assert cloud.verbs == [
        *("describe", "ended?", "start"),
        *("describe", "delete", "create", "describe", "copy", "setup", "start"),
        *("describe", "ended?", "start"),
        *("describe", "ended?"),
    ]


def test_what_fails_while_a_slice_is_kept_is_tried_again(cloud):
    cloud.answer(
        {
            "describe": ["ACTIVE", "ACTIVE"],
            "cat ~/fd.exit": [1, "2"],
            "start.sh": [255],
        }
    )
    # The run itself ended with bad input: that is for people.
    assert gcloud.main(RESUME) == 2
    assert cloud.verbs == ["describe", "ended?", "start", "describe", "ended?"]


def test_nothing_runs_after_a_failure(cloud, capsys):
    cloud.answer({"clusters create": [3]})
    create = """create --name fd --cluster c --location l --zone z --type v5p-64
        --new-cluster""".split()
    assert gke.main(create) == 2  # kubectl is not there, so nothing is begun
    assert "expected the program kubectl" in _words(capsys)
    with pytest.raises(CommandError, match=r"exit code 0 of gcloud container.*got 3"):
        perform(
            [
                Step(command=("gcloud", "container", "clusters", "create")),
                Step(command=("gcloud", "container", "node-pools", "create")),
            ],
            dry_run=False,
        )
    assert len(cloud.asked) == 1


def test_a_missing_program_is_named_before_anything_runs(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InstallError, match=r"program sky on PATH.*skypilot\[gcp\]"):
        perform([Step(command=("sky", "check"))], dry_run=False)


def test_what_a_step_reads_reaches_it(tmp_path):
    file = tmp_path / "text"
    perform([Step(command=("tee", str(file)), stdin="a: 1\n")], dry_run=False)
    assert file.read_text() == "a: 1\n"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"name": "Big_Run"}, "expected name"),
        ({"name": "a" * 33}, "expected name"),
        ({"runs": "runs"}, "expected runs to be gs://"),
        ({"command": ("experiments.prover", "--name", "x")}, "expected no --name"),
        ({"command": ("m", "--processes.count=2")}, "expected no --processes"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, reason):
    given = {"name": "fd", "runs": "gs://b/runs", "command": ("m",), **settings}
    with pytest.raises(ConfigError, match=reason):
        Job(**given)


def test_a_run_needs_an_experiment():
    job = Job(name="fd", runs="/runs")
    with pytest.raises(ConfigError, match="the experiment and its flags after --"):
        job.run(Place(python="python", fdjax="fdjax"))


def _words(capsys):
    return " ".join(capsys.readouterr().err.split())
