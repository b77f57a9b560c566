"""A whole run on several processes: what one process gives, whatever befalls them.

The policy samples and reviews itself over the devices of all processes, Lean judges on
each, FD and GRPO take steps. A run of two processes takes half a minute of processor
time.
"""

import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from calling_policy import calling_case
from distributed.starting import MEETING, ended, started
from experiments import prover
from fdjax.objects import local_folder, place
from fdjax.run.command import RESTART
from object_store import shared_store
from small_prover import small_case

MESH = ("--mesh.data", "2", "--mesh.fsdp", "4", "--attempts.staleness", "1")
"""And a rollout that is ahead, and in the checkpoint of whoever is stopped."""
PROVER = ("-m", "experiments.prover")
FAULTY = (Path(__file__).with_name("prover_with.py"),)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """With a run of one process, `alone`."""
    case = small_case(tmp_path_factory.mktemp("several"))
    assert prover.main(case.arguments("alone", "alone.jsonl", mesh=MESH)) == 0
    return case


def command(case, name, *, program=PROVER, more=()):
    return [
        *program,
        *case.arguments(name, f"{name}.jsonl", mesh=(*MESH, *more, MEETING)),
    ]


def codes(processes):
    """Exit codes; whatever failed without saying so shows what it did say."""
    found = ended(processes)
    for _, said in found:
        assert "Traceback" not in said, said[-3000:]
    return [code for code, _ in found]


def require_same(case, name, file):
    """Sees to it that rows are those of one process, but for time and rounding."""
    for one, other in zip(case.rows("alone", file), case.rows(name, file), strict=True):
        require_close(one, other, file)


def require_close(one, other, path):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            # Equal questions cost once, and then once in each process that asks. A
            # queue is as long as judges are slow.
            timed = r"time|rollout/queue$|feedback/(requests|recorded|\w+_tokens)$"
            if not re.match(timed, key):
                require_close(one[key], other[key], f"{path}/{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), path
        for first, second in zip(one, other, strict=True):
            require_close(first, second, path)
    elif isinstance(one, float):
        # Seen: 5e-7, float32 that is summed in another order.
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=2e-6, err_msg=path)
    else:
        assert one == other, path


def require_same_policy(case, name):
    """Sees to it that weights are those of one process, but for rounding."""
    one, other = (
        case.folder / name / "policies" / "prover" for name in ("alone", name)
    )
    assert (one / "config.json").read_bytes() == (other / "config.json").read_bytes()
    want, found = (load_file(path / "model.safetensors") for path in (one, other))
    assert want.keys() == found.keys()
    for key, array in want.items():
        # Seen: 7e-8.
        np.testing.assert_allclose(found[key], array, rtol=0, atol=1e-6, err_msg=key)


def until_a_row(case, name, processes):
    """Waits for a row of metrics that these processes have written, or kept."""
    file = case.folder / name / "metrics.jsonl"
    before = file.stat().st_mtime_ns if file.exists() else None
    while not file.exists() or not file.read_bytes() or _changed(file) == before:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.05)


def _changed(file):
    return file.stat().st_mtime_ns


def test_two_processes_stop_together_go_on_and_equal_one(case):
    again = command(case, "two", more=("--resume", "auto"))
    first = started(2, again)
    until_a_row(case, "two", first)
    # The host of the second process goes away; only that one is told.
    first[1].send_signal(signal.SIGTERM)
    assert codes(first) == [RESTART, RESTART]
    assert list((case.folder / "two" / "checkpoints").glob("*/*"))
    assert codes(started(2, again)) == [0, 0]
    for file in ("samples", "metrics", "probes"):
        require_same(case, "two", file)
    require_same_policy(case, "two")


@pytest.mark.slow
def test_four_processes_equal_one(case):
    assert codes(started(4, command(case, "four"))) == [0] * 4
    for file in ("samples", "metrics", "probes"):
        require_same(case, "four", file)
    require_same_policy(case, "four")


@pytest.mark.slow
def test_a_process_that_is_done_hears_a_stop(case):
    """While a judge of the other takes a minute and a half."""
    stopped = command(case, "stopped", program=FAULTY)
    processes = started(2, stopped, FAULT="slow", PROCESS="1")
    done = case.folder / "stopped" / "journal"
    # Two groups that are judged, and reviewed.
    while not any(file.read_bytes().count(b"\n") == 4 for file in done.rglob("*.0.*")):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.05)
    begin = time.monotonic()
    processes[0].send_signal(signal.SIGTERM)
    assert codes(processes) == [RESTART, RESTART]
    assert time.monotonic() - begin < 45


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_others_and_any_number_goes_on(case):
    again = command(case, "killed", more=("--resume", "auto"))
    first = started(4, again)
    until_a_row(case, "killed", first)
    first[3].kill()
    begin = time.monotonic()
    found = ended(first)
    assert time.monotonic() - begin < 60
    for code, said in found[:3]:
        # A collective fails, with an error or by gloo itself, or JAX's coordination
        # service ends whoever is in none.
        reasons = {
            RESTART: "cannot go on without the others, of which one is gone",
            -signal.SIGABRT: "JAX distributed service detected fatal errors. This most "
            "likely indicates that another task died|'gloo::",
        }
        assert re.search(reasons[code], re.sub(r"\s+", " ", said)), said[-3000:]
    second = started(2, again)
    until_a_row(case, "killed", second)
    second[0].send_signal(signal.SIGTERM)
    assert codes(second) == [RESTART, RESTART]
    alone = [one for one in again[len(PROVER) :] if one != MEETING]
    assert prover.main(alone) == 0
    for file in ("samples", "metrics", "probes"):
        require_same(case, "killed", file)
    require_same_policy(case, "killed")


def faulty(case, name, fault):
    """Two processes, the second of them with a fault; exit codes and what was said."""
    processes = started(
        2, command(case, name, program=FAULTY), FAULT=fault, PROCESS="1"
    )
    return ended(processes)


@pytest.mark.slow
def test_a_host_whose_lean_dies_masks_its_own_attempts_and_says_so(case):
    first, second = faulty(case, "no-lean", "lean")
    assert (first[0], second[0]) == (0, 0), first[1] + second[1]
    assert "attempts were not judged" in second[1]
    assert "were not judged" not in first[1]
    for row in case.rows("no-lean"):
        # Some attempts are refused without Lean, the others of that half are unknown.
        assert 0 < row["verdict/crashed"] <= 0.5
        assert row["train/empty"] == row["train/skipped"] == 0


@pytest.mark.slow
def test_a_verdict_that_one_host_alone_finds_late_is_a_fact_for_all(case):
    (case.folder / "verdicts.sqlite").unlink(missing_ok=True)
    first, second = faulty(case, "late", "late")
    assert (first[0], second[0]) == (0, 0), first[1] + second[1]
    assert [row["verdict/timeout"] for row in case.rows("late")] == [0.5] * 3


@pytest.mark.slow
def test_an_error_of_one_process_is_one_of_all(case):
    (code, said), (other, why) = faulty(case, "broken", "broken")
    assert (code, other) == (2, 2)
    assert "error this host has no problems" in why
    assert "Process 1 failed: DataError: this host has no problems" in said


@pytest.mark.slow
def test_tools_answer_where_the_episode_is_played(tmp_path):
    """Of metrics only counts: Adam takes steps of rounding where losses are tiny."""
    case = calling_case(tmp_path)
    assert prover.main(case.arguments("alone", "alone.jsonl", mesh=MESH)) == 0
    assert any(row["calls"] for row in case.rows("alone", "samples"))
    assert codes(started(2, command(case, "two"))) == [0, 0]
    require_same(case, "two", "samples")
    counts = ("reward/mean", "rollout/turns", "rollout/calls", "rollout/length")
    for alone, two in zip(case.rows("alone"), case.rows("two"), strict=True):
        assert [alone[name] for name in counts] == [two[name] for name in counts]


@pytest.mark.slow
def test_a_run_that_is_kept_in_a_store_needs_no_shared_disk(case):
    """All machines are killed, what they had on disk is lost, and others go on."""
    pytest.importorskip(
        "google_crc32c", reason="needs the extra: pip install 'fdjax[gcs]'"
    )
    store = shared_store()
    address = place("gs://bucket/several")
    more = ("--runs", str(address), "--resume", "auto", "--checkpoints.every", "1")
    again = command(case, "kept", program=FAULTY, more=more)
    environment = store.environment | {"FAULT": "killed"}
    first = started(2, again, **environment)
    while "several/kept/checkpoints/fd/1/commit_success.txt" not in store.names():
        assert all(process.poll() is None for process in first)
        time.sleep(0.05)
    for process in first:
        process.kill()
    ended(first)
    assert local_folder(address / "kept").is_dir()
    shutil.rmtree(local_folder(address))
    assert codes(started(2, again, **environment)) == [0, 0]
    for name in store.names("several/kept/"):
        path = case.folder / name.removeprefix("several/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.objects[name].content)
    for file in ("samples", "metrics", "probes"):
        require_same(case, "kept", file)
    assert (case.folder / "kept" / "policies" / "prover" / "config.json").exists()
    assert not (case.folder / "kept" / "lock").exists()
    assert not list(local_folder(address).glob("kept*"))
