"""On a real pretrained chat model, if FDJAX_TEST_MODEL names the folder of one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fdjax.checkpoint import load_pretrained, save_pretrained
from fdjax.run import read_probes
from tiny import mesh_of

ROOT = Path(__file__).parents[2]
FOLDER = os.environ.get("FDJAX_TEST_MODEL", "")

pytestmark = pytest.mark.skipif(
    not FOLDER, reason="FDJAX_TEST_MODEL names no folder of a pretrained chat model"
)


def test_there_and_back_is_the_same_file(tmp_path):
    found = load_pretrained(FOLDER, mesh_of(fsdp=8))
    save_pretrained(
        found.params, found.model.config, tmp_path / "back", description=found.folder
    )
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        written = (tmp_path / "back" / name).read_bytes()
        assert written == (Path(FOLDER) / name).read_bytes(), name


@pytest.mark.slow
def test_fd_teaches_what_only_the_teacher_reads(tmp_path):
    """Five iterations; ten reach the teacher's share (docs/experiments.md)."""
    arguments = f"--policy {FOLDER} --runs {tmp_path} --steps 5 --only fd"
    arguments += " --evaluation.every 0 --evaluation.samples 1 --evaluation.ks 1"
    # Eight devices on a few cores, compiled plainly, take many times as long.
    plain = {"JAX_NUM_CPU_DEVICES": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "false"}
    done = subprocess.run(
        [sys.executable, "-m", "experiments.french", *arguments.split()],
        env={**os.environ, **plain, "XLA_FLAGS": ""},
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    share = {
        (row["policy"], row["reader"]): row["reward"]
        for row in read_probes(tmp_path / "french" / "probes.jsonl")
    }
    start, teacher = share["base", "student"], share["base", "teacher"]
    assert start < 0.1
    assert teacher > 0.4
    # Seen: 0.046, 0.347 and 0.550, three fifths of the way.
    assert share["fd", "student"] > start + 0.3 * (teacher - start)
