"""The rehearsal finds what differs, and (slow) that a lost host changes nothing."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tpu.rehearsal.compare import differences

ROOT = Path(__file__).parents[2]


def run_of(folder, *, reward=0.5, time=1.0, weights=b"w", sample="a"):
    (folder / "policies" / "prover").mkdir(parents=True)
    (folder / "policies" / "prover" / "model.safetensors").write_bytes(weights)
    row = {"arm": "fd", "step": 1, "time": time, "time/wait_s": time, "reward": reward}
    (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    (folder / "samples.jsonl").write_text(sample)
    (folder / "probes.jsonl").write_text("{}")
    return folder


def test_only_the_clock_may_differ(tmp_path):
    first = run_of(tmp_path / "first")
    assert differences(first, run_of(tmp_path / "same", time=2.0)) == []
    other = run_of(tmp_path / "other", reward=0.5000001, weights=b"v", sample="b")
    assert differences(first, other) == [
        *("policies/prover/model.safetensors", "samples.jsonl", "metrics.jsonl")
    ]


def test_a_file_that_is_missing_differs(tmp_path):
    first, second = run_of(tmp_path / "first"), run_of(tmp_path / "second")
    (second / "policies/prover/more.json").write_text("{}")
    (second / "probes.jsonl").unlink()
    assert differences(first, second) == ["policies/prover/more.json", "probes.jsonl"]


@pytest.mark.slow
def test_a_pod_that_loses_a_host_ends_like_one_that_does_not(tmp_path):
    """Two runs of four processes: seven minutes of processor time."""
    done = subprocess.run(
        [sys.executable, "-m", "tpu.rehearsal", "--folder", str(tmp_path / "pod")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert "host 3: its process is killed by SIGKILL, after 3 iterations" in done.stdout
    assert re.search(r"host 3 │ .* keep: exit code 137", done.stdout)
    # Every host's process was lost with it, and started again.
    counts = re.findall(r"were started ([\d, ]+) times", done.stdout)[1]
    assert all(int(count) > 1 for count in counts.split(","))
    assert done.stdout.splitlines()[-1].endswith("the same")
