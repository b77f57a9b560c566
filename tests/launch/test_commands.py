"""Commands that run, with a `gcloud` that writes down what it is asked."""

import json
import re
import stat
import sys

import pytest

from fdjax.errors import ConfigError, InstallError
from tpu import commands, gcloud, gke
from tpu.commands import PATIENCE, CommandError, Step, output, perform
from tpu.job import Job, Place
from tpu.verbs import Fetch

GCLOUD = """#!{python}
import json, pathlib, sys
home = pathlib.Path({home!r})
with (home / "asked.jsonl").open("a") as asked:
    asked.write(json.dumps(sys.argv[1:]) + "\\n")
answers = home / "answers.json"
for key, given in (left := json.loads(answers.read_text())).items():
    if key in " ".join(sys.argv[1:]) and given:
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
                **{"list": "state?", "create": "create", "delete": "delete"},
                **{"scp": "copy", "setup.sh": "setup", "start.sh": "start"},
                "cat ~/": "ended?",
            }
            return [
                next(word for key, word in words.items() if key in " ".join(asked))
                for asked in self.asked
            ]

    (tmp_path / "bin").mkdir()
    script = GCLOUD.format(python=sys.executable, home=str(tmp_path))
    programs = {"gcloud": script, "kubectl": script, "git": "#!/bin/sh\n"}
    for name, text in programs.items():
        program = tmp_path / "bin" / name
        program.write_text(text)
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    looks = iter(range(3 * PATIENCE))
    # Whoever waits for ever finds the patience of the test.
    monkeypatch.setattr(commands.time, "sleep", lambda seconds: next(looks))
    return Cloud()


RESUME = """resume --name fd --zone z --type v5litepod-16 --spot --runs gs://b/runs
    --pause-s 0 -- experiments.prover --policy p""".split()


def test_a_slice_is_waited_for(cloud):
    cloud.answer({"list": ["", "WAITING_FOR_RESOURCES", 1, "PROVISIONING", "ACTIVE"]})
    create = ["create", "--name", "fd", "--zone", "z", "--type", "v6e-16"]
    assert gcloud.main(create) == 0
    assert cloud.verbs == ["create", *["state?"] * 5]


def test_a_slice_that_cannot_come_is_not_waited_for(cloud, capsys):
    cloud.answer({"list": ["PROVISIONING", "FAILED"]})
    create = ["create", "--name", "fd", "--zone", "z", "--type", "v6e-16"]
    assert gcloud.main(create) == 1
    assert "got FAILED: delete it and create it again" in _words(capsys)


def test_a_slice_that_was_taken_is_asked_for_again(cloud):
    cloud.answer(
        {
            "list": ["ACTIVE", "SUSPENDED", "ACTIVE", "ACTIVE", "ACTIVE"],
            # Not yet; after the new slice has begun; then done.
            "cat ~/fd.exit": ["goes on", "goes on", "0"],
        }
    )
    assert gcloud.main(RESUME) == 0
    assert cloud.verbs == [
        *("state?", "ended?", "start"),
        *("state?", "delete", "create", "state?", "copy", "setup", "start"),
        *("state?", "ended?", "start"),
        *("state?", "ended?"),
    ]


def test_where_nothing_is_there_nothing_is_deleted(cloud):
    cloud.answer({"list": ["", "ACTIVE", "ACTIVE"], "cat ~/fd.exit": ["0"]})
    assert gcloud.main(RESUME) == 0
    assert cloud.verbs == [
        *("state?", "create", "state?", "copy", "setup", "start"),
        *("state?", "ended?"),
    ]


def test_a_question_that_fails_deletes_and_starts_nothing(cloud, capsys):
    """The network is away, or the login has expired, while the run goes on."""
    cloud.answer(
        {
            "list": [1, 1, "ACTIVE", "ACTIVE", "ACTIVE", "ACTIVE"],
            # A host that is not reached has not said that its run goes on.
            "cat ~/fd.exit": [255, "", "Welcome", "0"],
        }
    )
    assert gcloud.main(RESUME) == 0
    assert cloud.verbs == ["state?", "state?", *["state?", "ended?"] * 4]
    said = _words(capsys)
    assert (
        "expected an answer of gcloud compute tpus queued-resources …, got exit" in said
    )
    assert "got 'Welcome'" in said


def test_questions_that_fail_for_long_end_with_an_error(cloud, capsys):
    cloud.answer({"list": [1] * (PATIENCE + 1)})
    assert gcloud.main(RESUME) == 1
    assert cloud.verbs == ["state?"] * (PATIENCE + 1)
    assert "error expected an answer of gcloud" in _words(capsys)
    cloud.answer({"list": ["PROVISIONING", *[1] * (PATIENCE + 1)]})
    assert gcloud.main(["create", *RESUME[1:8]]) == 1


def test_a_failure_is_not_an_empty_answer(cloud):
    cloud.answer({"list": [1, ""]})
    question = ("gcloud", "compute", "list")
    with pytest.raises(CommandError, match="got exit code 1: its own message"):
        output(question)
    assert output(question) == ""


def test_a_setup_that_failed_is_done_again(cloud):
    cloud.answer(
        {
            "list": ["", "ACTIVE", "ACTIVE", "ACTIVE"],
            "setup.sh": [1],
            "cat ~/fd.exit": ["0"],
        }
    )
    assert gcloud.main(RESUME) == 0
    assert cloud.verbs == [
        *("state?", "create", "state?", "copy", "setup"),
        *("state?", "copy", "setup", "start"),
        *("state?", "ended?"),
    ]


def test_a_slice_that_was_not_made_here_is_not_set_up_anew(cloud):
    """Nothing is there, it is said; then there is one, on which a run may go on."""
    cloud.answer(
        {
            "list": ["", "ACTIVE", "ACTIVE"],
            "create": [1],
            "cat ~/fd.exit": ["goes on", "0"],
        }
    )
    assert gcloud.main(RESUME) == 0
    assert cloud.verbs == [
        *("state?", "create"),
        *("state?", "ended?", "start"),
        *("state?", "ended?"),
    ]


def test_what_fails_while_a_slice_is_kept_is_tried_again(cloud):
    cloud.answer(
        {
            "list": ["ACTIVE", "ACTIVE"],
            "cat ~/fd.exit": ["goes on", "2"],
            "start.sh": [255],
        }
    )
    # The run itself ended with bad input: that is for people.
    assert gcloud.main(RESUME) == 2
    assert cloud.verbs == ["state?", "ended?", "start", "state?", "ended?"]


CHECK = "check --name fd --type v6e-8 --image i --runs gs://b/runs".split()


@pytest.mark.parametrize(("end", "code"), [("Completed", 0), ("Failed", 1)])
def test_a_check_on_kubernetes_ends_as_its_hosts_found(cloud, capsys, end, code):
    cloud.answer(
        {
            # Its pod is not there at once, and one question has no answer.
            "get pods": ["", 1, "Pending", "Running"],
            "logs": ["the table"],
            "get jobset": ["", end],
        }
    )
    assert gke.main(CHECK) == code
    words = [" ".join(asked) for asked in cloud.asked]
    order = ["delete jobset", "apply", *["get pods"] * 4, "logs", *["get jobset"] * 2]
    if code == 0:
        order.append("delete jobset")
    else:
        assert "got Failed: the log above says why" in _words(capsys)
    assert len(words) == len(order)
    assert all(said.startswith(verb) for verb, said in zip(order, words, strict=True))


@pytest.mark.parametrize(
    ("path", "left_out"),
    [
        ("checkpoints/train/10/state", True),
        ("seed0/checkpoints/train/10/state", True),
        ("seed1/checkpoints/train/10/commit_success.txt", True),
        ("metrics.jsonl", False),
        ("seed0/metrics.jsonl", False),
        ("seed0/policies/best/config.json", False),
        ("checkpoints.jsonl", False),
    ],
)
def test_checkpoints_of_all_seeds_are_left_out(path, left_out):
    [step] = Fetch(name="fd", runs="gs://b/runs").steps()
    [pattern] = [
        word.removeprefix("--exclude=")
        for word in step.command
        if word.startswith("--exclude=")
    ]
    # As gcloud does it: `re.match` with the path below the folder that is copied.
    assert bool(re.match(pattern, path)) is left_out
    [step] = Fetch(name="fd", runs="gs://b/runs", checkpoints=True).steps()
    assert not any("--exclude" in word for word in step.command)


def test_nothing_runs_after_a_failure(cloud, capsys, tmp_path):
    cloud.answer({"clusters create": [3]})
    create = """create --name fd --cluster c --location l --zone z --type v5p-64
        --new-cluster""".split()
    (tmp_path / "bin" / "kubectl").unlink()
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
