"""The keeper starts its command again, and stops when it should."""

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from tpu.keep import Keep, Keeper

ROOT = Path(__file__).parents[2]

COUNTS = """
import os, pathlib, signal, sys
folder, *ends = sys.argv[1:]
starts = pathlib.Path(folder, "starts")
done = starts.read_text().count("x") if starts.exists() else 0
starts.write_text("x" * (done + 1))
end = ends[min(done, len(ends) - 1)]
if end.startswith("row"):
    run = pathlib.Path(folder, "run", "seed0")
    run.mkdir(parents=True, exist_ok=True)
    with (run / "metrics.jsonl").open("a") as rows:
        rows.write("{}\\n")
    end = end.removeprefix("row")
if end.startswith("SIG"):
    os.kill(os.getpid(), signal.Signals[end])
sys.exit(int(end))
"""
"""Ends as it is told: an exit code or a signal, perhaps after a row of metrics."""

WAITS = """
import pathlib, signal, sys, time
file = pathlib.Path(sys.argv[1])
def told(number, frame):
    with file.open("a") as out:
        out.write("told\\n")
    time.sleep(0.2)
    sys.exit(75)
signal.signal(signal.SIGTERM, told)
signal.signal(signal.SIGINT, told)
file.write_text("waits\\n")
time.sleep(60)
"""


def keeper(*settings, command, environment=None):
    return subprocess.Popen(
        [sys.executable, "-m", "tpu.keep", "--pause-s", "0", *settings, "--", *command],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stderr=subprocess.PIPE,
        text=True,
    )


def kept(folder, *ends, settings=()):
    """Exit code of the keeper, what it said, and how often it started its command."""
    command = [sys.executable, "-c", COUNTS, str(folder), *ends]
    with keeper(*settings, command=command) as process:
        _, said = process.communicate(timeout=60)
    return process.returncode, said, len((folder / "starts").read_text())


def test_a_lost_process_is_started_again_until_it_is_done(tmp_path):
    code, said, starts = kept(tmp_path, "75", "SIGKILL", "SIGABRT", "0")
    assert (code, starts) == (0, 4)
    assert re.search(r"exit code 137 after \d+ s; starting again .*, 2 of 10", said)


def test_a_fault_is_not_repeated(tmp_path):
    code, _, starts = kept(tmp_path, "75", "2")
    assert (code, starts) == (2, 2)


def test_starts_in_vain_are_given_up(tmp_path):
    code, said, starts = kept(tmp_path, "75", settings=("--restarts", "3"))
    assert (code, starts) == (1, 4)
    assert "given up after 3 starts that came no farther" in said


def test_progress_is_a_row_more_than_ever(tmp_path):
    ends = ("row75", "75", "row75", "75", "row75", "75", "75", "75")
    limit = ("--restarts", "2", "--progress", str(tmp_path / "run"))
    code, _, starts = kept(tmp_path, *ends, settings=limit)
    assert (code, starts) == (1, len(ends))


def test_progress_in_an_object_store_counts(tmp_path):
    pytest.importorskip("gcsfs", reason="needs the extra: pip install 'fdjax[gcs]'")
    from fdjax.objects import place, write
    from object_store import shared_store

    server = shared_store()
    run = f"gs://bucket/{uuid.uuid4().hex}"
    settings = Keep(progress=run)
    assert Keeper(["true"], settings)._lines() == 0
    write(place(f"{run}/seed0/metrics.jsonl"), b"{}\n{}\n")
    write(place(f"{run}/seed1/metrics.jsonl"), b"{}\n")
    write(place(f"{run}/seed1/samples.jsonl"), b"{}\n")
    assert Keeper(["true"], settings)._lines() == 3
    command = [sys.executable, "-c", COUNTS, str(tmp_path), "75"]
    limits = ("--restarts", "1", "--progress", run)
    with keeper(*limits, command=command, environment=server.environment) as process:
        _, said = process.communicate(timeout=60)
    assert (process.returncode, "not known" in said) == (1, False)


def until(file, text):
    end = time.monotonic() + 60
    while not file.exists() or text not in file.read_text():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_signal_is_handed_on_once_and_nothing_started_after_it(tmp_path):
    for number in (signal.SIGTERM, signal.SIGINT):
        file, ended = tmp_path / number.name, tmp_path / f"{number.name}.exit"
        command = [sys.executable, "-c", WAITS, str(file)]
        with keeper("--ended", str(ended), command=command) as process:
            until(file, "waits")
            process.send_signal(number)
            assert process.wait(60) == 75
        assert file.read_text() == "waits\ntold\n"
        assert ended.read_text() == "75\n"


def test_a_command_is_needed():
    done = subprocess.run(
        [sys.executable, "-m", "tpu.keep", "--restarts", "3"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "expected a command after --" in done.stderr
    assert "Traceback" not in done.stderr
