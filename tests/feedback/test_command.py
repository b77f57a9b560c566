"""`fdjax feedback`: answers ahead of time, on, after a stop, and in a replay."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from fdjax.cli import main
from fdjax.encoding import encode
from fdjax.feedback import ModelFeedback, OpenAIEndpoint, attempt_row, iterate_groups
from fdjax.judge import Judgement
from fdjax.lean import Diagnostic, Status, Verdict
from feedback.attempts import MISMATCH, PROBLEM, attempt, failed, passed
from feedback.model_server import ModelServer, in_thread
from serving import ROOT, wait_until

OUTSIDE = Diagnostic(severity="error", line=3, column=0, text="unknown", in_proof=False)


def samples(path, *groups):
    """A file of samples as a run writes it."""
    with path.open("wb") as file:
        for step, group in enumerate(groups):
            for each in group:
                file.write(encode({"step": step, "kl": None, **attempt_row(each)}))
    return path


def command(*arguments):
    """The exit code of `fdjax feedback`."""
    with pytest.raises(SystemExit) as ended:
        main(["feedback", *map(str, arguments)])
    return ended.value.code


def flags(server, out):
    url = f"{server.url}/v1"
    flags = ["--writer", "openai", "--model", "m", "--base-url", url, "--key-env", ""]
    return [*flags, "--out", out]


def test_answers_ahead_of_time_make_a_replay(tmp_path, capsys):
    group = [failed("  a\n  exact h2", MISMATCH), passed("  exact h1.2"), failed("  c")]
    path = samples(tmp_path / "samples.jsonl", group)
    out = tmp_path / "answers.jsonl"
    with in_thread(ModelServer()) as server:
        assert command(path, *flags(server, out)) == 0
        assert len(server.requests) == 2
        said = capsys.readouterr().out
        assert "2, 0 of them again" in said
        # Once more: everything is there.
        assert command(path, *flags(server, out)) == 0
        assert len(server.requests) == 2
    config = ModelFeedback(
        endpoint=OpenAIEndpoint(model="m"), recording=out, replay=True
    )

    async def replay():
        writer = config.make()
        try:
            return await writer.write(group)
        finally:
            await writer.aclose()

    notes = asyncio.run(replay())
    assert [note.text for note in notes] == [
        "Use h1.2.",
        "verified: this proof is complete",
        "Use h1.2.",
    ]
    assert notes[0].usage.recorded == 1


def test_what_failed_is_asked_about_again(tmp_path, capsys):
    path = samples(
        tmp_path / "samples.jsonl", [failed("  a"), failed("  fault_failing")]
    )
    out = tmp_path / "answers.jsonl"
    with in_thread(ModelServer()) as server:
        arguments = [path, *flags(server, out), "--attempts", "1"]
        assert command(*arguments) == 1
        assert command(*arguments) == 1
        found = capsys.readouterr()
        assert "missing: server" in found.out
        assert "1 of 2 attempts have no feedback" in found.err
        assert len(server.requests) == 3


def test_a_stopped_command_goes_on(tmp_path):
    groups = [[failed(f"  step {number}")] for number in range(40)]
    path = samples(tmp_path / "samples.jsonl", *groups)
    out = tmp_path / "answers.jsonl"
    server = ModelServer()
    server.delay_s = 0.05
    with in_thread(server):
        arguments = [path, *flags(server, out), "--concurrency", "2"]
        program = "import sys; from fdjax.cli import main; main(sys.argv[1:])"
        process = subprocess.Popen(
            [sys.executable, "-c", program, "feedback", *map(str, arguments)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert wait_until(lambda: len(server.requests) > 4)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
        assert process.returncode == 130, said
        assert b"run the same command again" in said
        recorded = len(out.read_bytes().splitlines())
        assert 0 < recorded < 40
        asked = len(server.requests)
        server.delay_s = 0.0
        assert command(*arguments) == 0
        assert len(server.requests) == asked + 40 - recorded


def test_the_input_is_not_the_output(tmp_path, capsys):
    path = samples(tmp_path / "samples.jsonl", [failed("  a")])
    before = path.read_bytes()
    with in_thread(ModelServer()) as server:
        assert command(path, *flags(server, path)) == 2
    assert "another file than the input" in capsys.readouterr().err
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("parameters", "said"),
    [("{", "expected a JSON object"), ("[]", "expected a JSON object")],
)
def test_parameters_are_an_object(tmp_path, capsys, parameters, said):
    path = samples(tmp_path / "samples.jsonl", [failed("  a")])
    flags = ["--writer", "anthropic", "--model", "m", "--out", tmp_path / "out"]
    assert command(path, *flags, "--parameters", parameters) == 2
    assert said in capsys.readouterr().err


def test_a_key_is_needed(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    path = samples(tmp_path / "samples.jsonl", [failed("  a")])
    flags = ["--writer", "anthropic", "--model", "m", "--out", tmp_path / "out"]
    assert command(path, *flags) == 2
    assert "ANTHROPIC_API_KEY" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_rows_read_back_as_they_were_written(tmp_path):
    other = replace(PROBLEM, name="other", references=())
    groups = [
        [failed("  a\n  exact h2", MISMATCH), failed("  b", OUTSIDE)],
        [passed("  c", problem=other)],
        [attempt("", Verdict(status=Status.UNSAFE, reason="no"), text="prose")],
        [replace(failed("  d"), judgement=Judgement(reward=0.25, answer="x", start=2))],
    ]
    path = samples(tmp_path / "samples.jsonl", *groups)
    found = list(iterate_groups(path))
    assert [len(group) for group in found] == [2, 1, 1, 1]
    # Where a message points in the statement is not kept; it is shown to nobody.
    moved = replace(OUTSIDE, line=0)
    groups[0][1] = failed("  b", moved)
    assert found == groups


def test_a_row_needs_little(tmp_path):
    path = tmp_path / "samples.jsonl"
    row = {"problem": "t", "statement": "theorem t : True", "proof": "  x"}
    message = {"severity": "error", "line": 1, "column": 2, "text": "unknown"}
    lines = [
        {**row, "status": "rejected", "messages": [message]},
        {**row, "status": "crashed", "messages": []},
        {**row, "status": "rejected", "messages": [], "reward": None},
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    [[found]] = iterate_groups(path)
    assert found.judgement.reward == 0.0
    assert found.text == found.proof == "  x"
    assert found.verdict.errors[0].text == "unknown"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"status": "fine"}, "`status` and `messages`"),
        ({"messages": [{"text": "x"}]}, "`status` and `messages`"),
        ({"messages": [1]}, "`status` and `messages`"),
        ({"reward": "1"}, "a finite number or null for `reward`"),
        ({"references": "x"}, "a list of texts"),
        ({"problem": None}, "text for `problem`"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, change, said):
    path = samples(tmp_path / "samples.jsonl", [failed("  a")])
    row = json.loads(path.read_text()) | change
    path.write_text("\n" + json.dumps(row))
    with pytest.raises(ValueError, match=f"line 2: expected {said}"):
        list(iterate_groups(path))
