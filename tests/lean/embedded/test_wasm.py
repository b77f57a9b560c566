"""The real worker under attack from outside: kills, limits, the sandbox."""

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from fdjax.errors import BackendError, InstallError
from fdjax.lean import (
    CheckRequest,
    Limits,
    Status,
    Verifier,
    WasmBackend,
    WholeFile,
    WorkerDiedError,
)
from fdjax.lean.embedded.location import HOST_DIR
from fdjax.lean.sandbox import process as process_module
from fdjax.lean.sandbox.child import Child
from fdjax.lean.sandbox.confinement import best_confinement
from fdjax.lean.sandbox.process import Program
from lean.corpus import SWAP, TRUE, problem

# 216,000 cases: deciding them takes far longer than any limit here.
SLOW = problem("theorem slow : ∀ a b c : Fin 60, a + b + c = c + b + a")
SLOW_PROOF = (
    "  set_option maxRecDepth 100000 in\n  set_option maxHeartbeats 0 in\n  decide"
)


def request(target, proof, **limits):
    return CheckRequest(
        name=target.name,
        header="",
        statement=target.statement,
        proof=proof,
        limits=Limits(**limits),
    )


@pytest.fixture
def backend(wasm):
    return wasm


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.fixture(scope="module")
def killable(lean_folder):
    """A verifier with one worker, and the backend in it."""
    backend = WasmBackend(lean_folder)
    with Verifier(lambda: backend, workers=1, limits=Limits(wall_s=20.0)) as verifier:
        verifier.start()
        yield verifier, backend


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_file_may_repeat_a_header_with_notation(verifier, end):
    five = problem("theorem five : ‹5› = 5", 'notation "‹5›" => 5')
    text = f"{five.header}{end}{five.statement} := rfl{end}"
    own = 'notation "‹6›" => 6\n' + text
    good, bad = verifier.verify([(five, WholeFile(text)), (five, WholeFile(own))])
    assert good.status is Status.VERIFIED
    assert bad.status is Status.UNSAFE


@pytest.fixture
def doomed(monkeypatch):
    """Processes are lost in the middle of every request about `doomed`."""
    write = Child.write

    def write_and_kill(child, data, deadline):
        doomed = b"doomed" in data
        if doomed:
            # On a busy machine it might answer before it is killed.
            os.killpg(child.pid, signal.SIGSTOP)
        write(child, data, deadline)
        if doomed:
            os.killpg(child.pid, signal.SIGKILL)

    monkeypatch.setattr(Child, "write", write_and_kill)


def test_a_killed_worker_is_replaced_and_the_proof_retried(killable):
    verifier, backend = killable
    killer = threading.Timer(0.2, lambda: os.kill(backend.pid, signal.SIGKILL))
    killer.start()
    items = [(SWAP, "  exact ⟨h.2, h.1⟩" + "\n" * n) for n in range(300)]
    verdicts = verifier.verify(items)
    killer.join()
    assert {verdict.status for verdict in verdicts} == {Status.VERIFIED}
    assert verifier.statistics.restarts == 1
    assert verifier.statistics.crashed == 0


def test_a_worker_killed_twice_is_a_crash_and_the_pool_goes_on(killable, doomed):
    verifier, _ = killable
    restarts = verifier.statistics.restarts
    items = [(TRUE, "  rfl"), (SWAP, "  doomed"), (SWAP, "  exact ⟨h.2, h.1⟩")]
    verdicts = verifier.verify(items)
    assert [verdict.status for verdict in verdicts] == [
        Status.VERIFIED,
        Status.CRASHED,
        Status.VERIFIED,
    ]
    assert "failed twice" in verdicts[1].reason
    assert verifier.statistics.crashed == 1
    assert verifier.statistics.restarts == restarts + 2


def test_timeout_is_the_proofs_own_time(backend):
    backend.check(request(TRUE, "  rfl"))
    begin = time.monotonic()
    report = backend.check(request(SLOW, SLOW_PROOF, wall_s=1.0))
    elapsed = time.monotonic() - begin
    assert report.timed_out
    assert 1.0 <= report.seconds <= 1.5
    assert elapsed <= 1.5 + 0.5  # and the statement
    after = backend.check(request(TRUE, "  rfl"))
    assert not after.timed_out
    assert after.target is not None


def test_a_stopped_worker_is_killed_and_not_held_against_the_proof(lean_folder):
    backend = WasmBackend(lean_folder, grace_s=0.5)
    try:
        backend.start()
        first = backend.pid
        threading.Timer(0.3, lambda: os.killpg(first, signal.SIGSTOP)).start()
        with pytest.raises(WorkerDiedError, match="had been stopped") as raised:
            backend.check(request(SLOW, SLOW_PROOF, wall_s=1.0))
        assert raised.value.innocent
        assert backend.pid is None
        assert not alive(first)
        assert backend.check(request(TRUE, "  rfl")).target is not None
    finally:
        backend.close()
    assert backend.pid is None


def test_a_statement_too_large_for_memory_is_not_the_proofs_fault(lean_folder):
    number = "by\n    have : 1 <<< 9999999999 = 1 := by simp\n    exact 3"
    bomb = problem(f"theorem bomb (x : Fin ({number})) : True")
    with Verifier(lambda: WasmBackend(lean_folder), workers=1) as verifier:
        with pytest.raises(BackendError, match="died twice"):
            verifier.check_statements([bomb])
        [verdict] = verifier.verify([(bomb, "  trivial")])
    assert verdict.status is Status.CRASHED


def test_a_number_too_large_for_memory_is_the_proofs_own_fault(backend):
    target = problem("theorem bomb : (1 <<< (2 ^ 36)) % 2 = 1")
    report = backend.check(request(target, "  rfl"))
    assert report.out_of_memory
    assert backend.check(request(TRUE, "  rfl")).target is not None


def test_a_tactic_that_needs_threads_is_an_error_where_it_stands(verifier):
    target = problem("theorem t (a b : Nat) (h : a < b) : a ≤ b")
    file = f"-- ∀\n{target.statement} := by\n  try?"
    proof, inner, whole = verifier.verify(
        [
            (target, "  try?"),
            (target, "  have x := h\n  · try?"),
            (target, WholeFile(file)),
        ]
    )
    for verdict, place in ((proof, (1, 2)), (inner, (2, 4)), (whole, (3, 2))):
        [error] = verdict.errors
        assert verdict.status is Status.REJECTED
        assert "threads" in error.text
        assert (error.line, error.column) == place


def test_heartbeats_reject_deterministically(backend):
    proof = "  omega"
    target = problem("theorem t (a b c : Nat) (h : a < b) (k : b < c) : a + 1 < c")
    report = backend.check(request(target, proof, heartbeats=1))
    assert report.has_errors
    assert not report.timed_out
    assert not backend.check(request(target, proof)).has_errors


def test_output_is_cut_with_errors_first(backend):
    proof = "\n".join("  trace_state" for _ in range(200)) + "\n  exact 1"
    report = backend.check(request(TRUE, proof, output_bytes=300))
    assert report.has_errors
    assert report.messages[-1].severity == "error"
    assert sum(len(message.text.encode()) for message in report.messages) <= 300


def test_closing_in_the_middle_of_a_proof_leaves_no_process(lean_folder):
    backend = WasmBackend(lean_folder)
    verifier = Verifier(lambda: backend, workers=1)
    verifier.start()
    pid = backend.pid
    errors = []

    def run():
        errors.extend(verifier.verify([(SLOW, SLOW_PROOF)]))

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(0.5)
    begin = time.monotonic()
    verifier.close()
    thread.join(10)
    assert time.monotonic() - begin < 5
    assert not alive(pid)
    assert [verdict.status for verdict in errors] == [Status.CRASHED]


def worker_of(supervisor):
    """The process that runs Lean, in the supervisor's group."""
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        with suppress(ProcessLookupError, FileNotFoundError):
            name = (folder / "comm").read_text().strip()
            if os.getpgid(pid) == supervisor and name in ("node", "MainThread"):
                return pid
    raise AssertionError("no process runs Lean")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_sandbox(backend):
    backend.check(request(TRUE, "  rfl"))
    process = Path(f"/proc/{worker_of(backend.pid)}")
    environment = process.joinpath("environ").read_bytes().strip(b"\0")
    assert environment.split(b"\0") in (
        [b""],
        [b"PWD=" + os.fsencode(os.readlink(process / "cwd"))],
    )
    command = process.joinpath("cmdline").read_bytes().split(b"\0")
    assert b"--permission" in command
    readable = [part for part in command if part.startswith(b"--allow-fs-read=")]
    assert len(readable) == 2
    assert not any(part.startswith(b"--allow-fs-write") for part in command)
    assert b"--allow-child-process" not in command
    if best_confinement() != "rlimits":
        status = process.joinpath("status").read_text()
        assert "Seccomp:\t2" in status
        assert "NoNewPrivs:\t1" in status
    # A session of its own: Ctrl-C in the terminal does not reach the worker.
    assert os.getsid(backend.pid) == backend.pid


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_has_a_bounded_life(lean_folder, monkeypatch):
    monkeypatch.setattr(process_module, "LIFE_S", 30.0)
    backend = WasmBackend(lean_folder)
    try:
        backend.start()
        limits = Path(f"/proc/{worker_of(backend.pid)}/limits").read_text()
        [cpu_s] = [line.split()[3] for line in limits.split("\n") if "cpu time" in line]
        assert int(cpu_s) == (30 + 30) * os.cpu_count()
        backend.check(request(TRUE, "  rfl"))
        assert backend.pid is not None
        monkeypatch.setattr(process_module, "LIFE_S", 0.0)
        assert backend.check(request(TRUE, "  rfl")).target is not None
        assert backend.pid is None
    finally:
        backend.close()


class Babbling(WasmBackend):
    """Becomes ready and then prints without end."""

    def _program(self):
        script = (
            "echo '{\"ready\": true}'; read request; "
            "while :; do printf '%01000d' 0; done"
        )
        return Program(
            command=["/bin/sh", "-c", script],
            folder=Path("/"),
            readable=[],
            memory_mb=512,
            remedy="",
        )


def test_a_line_without_end_is_no_answer():
    backend = Babbling()
    with pytest.raises(WorkerDiedError, match="bytes without an end"):
        backend.check(request(TRUE, "  rfl", output_bytes=0))
    assert backend.pid is None


def test_a_missing_installation_names_the_remedy(tmp_path):
    with pytest.raises(InstallError, match=r"call fdjax\.lean\.install\(\)"):
        WasmBackend(tmp_path / "nowhere").start()


def test_a_damaged_installation_is_a_backend_error(tmp_path, lean_folder):
    for path in lean_folder.iterdir():
        if path.name != "lib":
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / "lib" / "lean").mkdir(parents=True)
    with pytest.raises(BackendError, match="expected to become ready"):
        WasmBackend(tmp_path).start()


def test_identity_changes_with_the_host(backend):
    assert backend.identity.startswith("lean-4.28.0-pre-wasm32/0.0.0/")
    assert len(list(HOST_DIR.glob("*.js"))) >= 6


def test_a_stack_that_is_used_up_is_a_timeout(backend):
    """Not a crash, which would be masked: a policy could learn to cause one."""
    proof = "  set_option maxRecDepth 10000000 in\n  iterate 10000000 skip\n  rfl"
    assert backend.check(request(TRUE, proof, wall_s=60.0)).out_of_memory
    assert not backend.check(request(TRUE, "  rfl")).has_errors
