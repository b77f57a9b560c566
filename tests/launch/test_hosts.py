"""Scripts of the hosts, and the image: as far as they go without a TPU."""

import os
import re
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tpu import versions
from tpu.restart import exit_code

ROOT = Path(__file__).parents[2]
TPU = ROOT / "tpu"


@pytest.mark.parametrize("script", sorted(TPU.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_bash(script):
    subprocess.run(["bash", "-n", script], check=True)


@pytest.fixture
def home(tmp_path):
    yield tmp_path
    if (tmp_path / "fd.pid").exists():
        with suppress(ProcessLookupError):
            os.killpg(int((tmp_path / "fd.pid").read_text()), signal.SIGKILL)


def start(home, check, run):
    done = subprocess.run(
        ["bash", TPU / "start.sh", "fd", check, run],
        env={**os.environ, "HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


def appears(file):
    end = time.monotonic() + 60
    while not file.exists() or not file.read_text():
        assert time.monotonic() < end, file
        time.sleep(0.01)
    return file.read_text()


def free(home):
    """Waits until nothing of the run is left."""
    subprocess.run(["flock", home / "fd.lock", "true"], check=True, timeout=60)


def test_a_run_starts_once_and_again_when_it_has_gone(home):
    (home / "fd.env").write_text("KEY='a b'\n")
    (home / "fd.exit").write_text("1\n")
    run = "bash -c 'echo $KEY; exec sleep 60'"
    assert "fd started" in start(home, "echo checked", run)
    assert appears(home / "fd.log")
    assert appears(home / "fd.pid")
    assert not (home / "fd.exit").exists()
    assert "runs already" in start(home, "echo checked", run)
    # As `stop` of tpu.gcloud does it.
    os.kill(int((home / "fd.pid").read_text()), signal.SIGTERM)
    free(home)
    assert (home / "fd.log").read_text() == "checked\na b\n"
    assert "fd started" in start(home, "true", "echo second")
    free(home)
    assert (home / "fd.log").read_text() == "checked\na b\nsecond\n"


def test_a_lock_that_cannot_be_asked_for_is_no_run(home):
    """A run may be there or not: that is not known, and nothing is said of it."""
    (home / "bin").mkdir()
    (home / "bin" / "flock").write_text("#!/bin/sh\nexit 66\n")
    (home / "bin" / "flock").chmod(0o755)
    path = f"{home / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", TPU / "start.sh", "fd", "true", "true"],
        env={**os.environ, "HOME": str(home), "PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (66, "")


def test_a_host_that_is_not_well_starts_nothing(home):
    start(home, "(exit 1)", "echo started")
    assert appears(home / "fd.exit") == "1\n"
    free(home)
    assert (home / "fd.log").read_text() == ""


def test_versions_are_those_of_the_lock():
    lock = (ROOT / "requirements.lock").read_text()
    for pinned in (versions.PINNED, versions.OLDEST):
        older = pinned.python == "3.11"
        marker = "<" if older else ">="
        assert f"jax=={pinned.jax} ; python_full_version {marker} '3.12'" in lock


def test_the_image_has_the_same_versions():
    recipe = (TPU / "Dockerfile").read_text()
    given = dict(re.findall(r"^ARG (\w+)=(\S+)$", recipe, re.M))
    pinned = versions.PINNED
    assert given == {
        **{"PYTHON": pinned.python, "JAX": pinned.jax, "LIBTPU": pinned.libtpu},
        **{"LEAN": versions.LEAN, "ELAN": versions.ELAN},
    }
    for line in re.findall(r"^COPY (.*) \S+$", recipe, re.M):
        for name in line.split():
            assert (ROOT / name).exists(), name


def test_the_setup_reads_what_it_is_given():
    text = (TPU / "setup.sh").read_text() + (TPU / "mathlib.sh").read_text()
    read = set(re.findall(r"\$\{?([A-Z]+)\b", text)) - {"HOME", "PATH"}
    assert read == {"ELAN_HOME"[:4], *versions.variables(mathlib=True)}


def test_the_table_of_versions_is_that_of_the_code():
    table = (TPU / "README.md").read_text()
    for pinned in (versions.PINNED, versions.OLDEST):
        row = f"| {pinned.python} | {pinned.jax} | {pinned.libtpu} |"
        assert row in table
    for version in (versions.UV, versions.JOBSET, versions.LEAN, versions.ELAN):
        assert version in table


def test_exit_codes_are_those_of_a_shell():
    done = subprocess.run(["bash", "-c", "bash -c 'kill -9 $$'; exit $?"], check=False)
    assert done.returncode == exit_code(-signal.SIGKILL)
