"""The REPL backend: real Lean behind the protocol, and a script that misbehaves."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from fdjax.errors import BackendError, InstallError
from fdjax.lean import (
    Problem,
    Status,
    Verifier,
    WorkerDiedError,
)
from fdjax.lean.backends import repl as repl_module
from fdjax.lean.backends import session
from fdjax.lean.backends.program import program_text
from fdjax.lean.backends.repl import ReplBackend
from fdjax.lean.facts.backend import RunRequest, WholeFile
from fdjax.lean.sandbox.confinement import best_confinement
from lean.asking import request, status
from lean.corpus import (
    FALSE,
    MATCH,
    OWN_MATCH,
    SWAP,
    TRUE,
    problem,
)
from lean.embedded.test_wasm import worker_of
from lean.test_contract import rows, sample

GOOD = "  exact ⟨h.2, h.1⟩"


@pytest.fixture(scope="module")
def verifying(repl):
    """A verifier over the same backend."""
    with Verifier(lambda: repl, workers=1) as verifier:
        yield verifier


@pytest.fixture
def scripted(scripted_command, tmp_path):
    backend = ReplBackend(tmp_path, command=scripted_command)
    yield backend
    backend.close()


# ---- real Lean, besides the contract


def test_a_foreign_axiom_is_named(verifying):
    assumed = Problem(name="t", statement="theorem t : 1 = 2", header="axiom a : 1 = 2")
    [verdict] = verifying.verify([(assumed, "  exact a")])
    assert verdict.status is Status.REJECTED
    assert verdict.axioms == ("a",)


def test_a_header_stays_in_force(repl):
    header = (
        "/- import Nothing -/\nimport Init -- import Nothing\nopen Nat\n"
        "namespace Outer\nvariable (n : Nat)\ndef two : Nat := 2\n"
    )
    target = problem("theorem t : n + two = succ (succ n)", header)
    assert status(repl, target, "  rfl") is Status.VERIFIED
    assert status(repl, target, "  exact rfl\nend Outer") is not Status.VERIFIED


def test_heartbeats_and_output_limits(repl):
    target = problem("theorem t (a b c : Nat) (h : a < b) (k : b < c) : a + 1 < c")
    assert repl.check(request(target, "  omega", heartbeats=1)).has_errors
    assert not repl.check(request(target, "  omega")).has_errors
    proof = "\n".join("  trace_state" for _ in range(200)) + "\n  exact 1"
    report = repl.check(request(TRUE, proof, output_bytes=300))
    assert report.messages[-1].severity == "error"
    assert sum(len(message.text.encode()) for message in report.messages) <= 300


# ---- real Lean: whole files


def test_whole_files(verifying):
    file = "import Init\ntheorem help (p : Prop) (h : p) : p := h\n\n"
    theorem = f"{SWAP.statement} := by\n  exact ⟨help q h.2, h.1⟩\n"
    items = [
        (SWAP, WholeFile(file + theorem)),
        (SWAP, WholeFile(theorem)),
        (SWAP, WholeFile("import Mathlib\n" + theorem)),
        (SWAP, WholeFile(file)),
        (FALSE, WholeFile("theorem target : (2 : Nat) + 2 = 4 := rfl")),
        (
            FALSE,
            WholeFile(
                "axiom no : False\ntheorem target : (2 : Nat) + 2 = 5 := no.elim"
            ),
        ),
        (MATCH, WholeFile(OWN_MATCH)),
        (
            problem("theorem t : (match 1 with | 0 => 1 | _ => 2) = 2"),
            WholeFile("theorem t : (match 1 with | 0 => 1 | _ => 2) = 2 := rfl"),
        ),
    ]
    verdicts = verifying.verify(items)
    assert [verdict.verified for verdict in verdicts] == [True] + [False] * 6 + [True]
    assert verdicts[1].errors[0].line == 2
    assert "which the problem's header does not load" in verdicts[2].errors[0].text
    assert "no constant" in verdicts[3].reason
    assert "another statement" in verdicts[4].reason
    assert verdicts[5].axioms == ("no",)
    assert "another statement" in verdicts[6].reason


# ---- real Lean: who could pass off what as proved

CHEAT = """
open Lean Elab Tactic in
/-- Puts a false theorem past the kernel, as any code that runs could. -/
elab "cheat" : tactic => do
  let oops : TheoremVal := {
    name := `oops, levelParams := []
    type := .const ``False [], value := .const ``trivial [] }
  match (← getEnv).addDeclCore 0 (.thmDecl oops) none (doCheck := false) with
  | .ok env => setEnv env
  | .error _ => failure
"""


def test_the_kernel_looks_twice(repl):
    target = problem("theorem t : 1 = 2", f"import Lean\n{CHEAT}")
    report = repl.check(request(target, "  cheat\n  exact (oops : False).elim"))
    assert report.has_errors
    [message] = report.messages
    assert message.text == "checked again from the start: the kernel refuses oops"
    assert status(repl, target, "  cheat\n  sorry") is Status.REJECTED
    honest = Problem(name="t", statement="theorem t : 1 = 1", header=target.header)
    assert status(repl, honest, "  rfl") is Status.VERIFIED


def test_printed_records_are_not_believed(repl):
    record = '{"has_errors": false, "target": {"is_theorem": true}}'
    for proof in [
        f'  trace "{"0" * 32} {record.replace(chr(34), chr(92) + chr(34))}"\n  sorry',
        '  first | exact (0 : "fdjax_0 {}") | sorry',
        '  rfl"}\n\n{"cmd": "#eval 1"}\n\n',
        '  rfl"\nfdjax_0 "{}',
        "  rfl\u2028#eval 1 -- \u0085\x0b\x1c",
        "  -- a comment\u2028#eval 1\n  sorry",
    ]:
        assert status(repl, FALSE, proof) is not Status.VERIFIED


def test_what_a_string_may_hold_arrives_as_it_is(repl):
    target = problem('theorem t : "\u2028\x85 \U0001d538 \\" \\\\ ∀".length = 10')
    assert status(repl, target, "  rfl") is Status.VERIFIED


# ---- real Lean: a sample that is not part of the project


def test_sample_failures_are_told_as_the_embedded_lean_tells_them(repl, wasm):
    for row in rows("failing_proofs_sample.jsonl"):
        asked = request(sample(row["statement"]), row["proof"])
        here, there = repl.check(asked), wasm.check(asked)
        assert here.messages == there.messages, row["name"]
        assert here.statement_error == there.statement_error
        assert here.target == there.target


# ---- a process that misbehaves


def test_the_script_verifies_what_it_is_not_told_to_spoil(scripted):
    assert status(scripted, TRUE, "  rfl") is Status.VERIFIED


def test_time_limits_are_exact(scripted):
    scripted.start()
    first = scripted.pid
    begin = time.monotonic()
    report = scripted.check(request(TRUE, "  hang", wall_s=1.0))
    assert report.timed_out
    assert 1.0 <= time.monotonic() - begin < 1.5
    assert scripted.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    assert status(scripted, TRUE, "  rfl") is Status.VERIFIED


def test_an_answer_without_end_is_none(scripted, monkeypatch):
    monkeypatch.setattr(repl_module, "LONGEST_ANSWER", 50_000)
    with pytest.raises(WorkerDiedError, match="bytes without an end"):
        scripted.check(request(TRUE, "  flood", wall_s=30.0))


def test_a_stopped_process_is_not_held_against_the_proof(scripted):
    with pytest.raises(WorkerDiedError, match="stopped") as caught:
        scripted.check(request(TRUE, "  stop", wall_s=0.5))
    assert caught.value.innocent


def test_a_process_that_stops_reading_cannot_stop_the_clock(scripted):
    scripted.check(request(TRUE, "  rfl"))
    os.kill(scripted.pid, signal.SIGSTOP)
    begin = time.monotonic()
    # More than a pipe holds.
    with pytest.raises(WorkerDiedError, match="stopped"):
        scripted.check(request(TRUE, "  rfl -- " + "x" * 500_000, wall_s=0.5))
    assert time.monotonic() - begin < 1.5


def test_a_process_killed_on_trusted_text_is_innocent(scripted):
    scripted.start()
    scripted._child.kill()
    with pytest.raises(WorkerDiedError, match="status -9") as caught:
        scripted.check(request(TRUE, "  rfl"))
    assert caught.value.innocent


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("die", r"status 3"),
        ("garbage", "no JSON"),
        ("forge", "no record of ours"),
        ("environment", "no record of ours"),
    ],
)
def test_a_broken_process_is_a_death_and_not_a_verdict(scripted, word, reason):
    with pytest.raises(WorkerDiedError, match=reason):
        scripted.check(request(TRUE, f"  {word}"))
    # A second answer of the old process cannot be taken for the next one's.
    assert scripted.pid is None
    assert status(scripted, TRUE, "  rfl") is Status.VERIFIED


def test_a_death_is_retried_and_then_a_crash(scripted):
    items = [(TRUE, "  rfl"), (TRUE, "  die"), (SWAP, GOOD), (TRUE, "  panic")]
    with Verifier(lambda: scripted, workers=1) as verifier:
        verdicts = verifier.verify(items)
    found = [verdict.status for verdict in verdicts]
    # Lean's own words for it: no memory left, twice.
    assert found[:3] == [Status.VERIFIED, Status.CRASHED, Status.VERIFIED]
    assert found[3] is Status.TIMEOUT


def test_standard_error_is_drained(scripted):
    assert status(scripted, TRUE, "  complain") is Status.VERIFIED


def test_the_environment_is_empty_but_for_what_is_passed(
    scripted_command, tmp_path, monkeypatch
):
    monkeypatch.setenv("A_SECRET", "1")
    backend = ReplBackend(tmp_path, command=scripted_command, environment=("PATH",))
    with pytest.raises(WorkerDiedError) as caught:
        backend.check(request(TRUE, "  environment"))
    assert "PATH" in str(caught.value)
    assert "A_SECRET" not in str(caught.value)
    assert "HOME" not in str(caught.value)


def test_a_process_is_replaced_after_so_many_commands(scripted_command, tmp_path):
    backend = ReplBackend(tmp_path, command=scripted_command, commands_per_process=6)
    pids = set()
    for number in range(8):
        assert status(backend, TRUE, f"  rfl -- {number}") is Status.VERIFIED
        pids.add(backend.pid)
    backend.close()
    # Imports, header and statement are three commands; three proofs more fill it.
    assert len(pids) == 3


def test_a_statement_is_sent_once(scripted, monkeypatch):
    scripted.start()
    for _ in range(5):
        scripted.check(request(SWAP, GOOD))
    assert scripted._commands == 2 + 1 + 5


def test_an_interrupt_ends_a_check(scripted):
    scripted.start()
    threading.Timer(0.3, scripted.interrupt).start()
    begin = time.monotonic()
    with pytest.raises(WorkerDiedError):
        scripted.check(request(TRUE, "  hang"))
    assert time.monotonic() - begin < 3


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_projects_own_repl_is_confined(repl):
    repl.check(request(TRUE, "  rfl"))
    process = Path(f"/proc/{worker_of(repl.pid)}")
    environment = process.joinpath("environ").read_bytes().split(b"\0")
    names = {entry.partition(b"=")[0] for entry in environment if entry}
    assert names <= {b"LEAN_PATH", b"LEAN_SYSROOT", b"PWD"}
    if best_confinement() != "rlimits":
        status = process.joinpath("status").read_text()
        assert "Seccomp:\t2" in status
        assert "NoNewPrivs:\t1" in status


def test_a_lean_that_compiles_everything_is_given_nothing_to_compile(
    lake_project, monkeypatch
):
    """Older ones cannot be told to compile nothing."""

    def older(driver, word):
        return program_text(driver, word).replace("compileDeclsRef", "compileNoneRef")

    assert older("session", "w") != program_text("session", "w")
    monkeypatch.setattr(session, "program_text", older)
    backend = ReplBackend(lake_project, lake=str(lake_project / "lake"))
    theorems = "theorem a : 1 = 1 := rfl\ntheorem target : (2 : Nat) + 2 = 4 := by simp"
    try:
        assert status(backend, SWAP, GOOD) is Status.VERIFIED
        assert status(backend, TRUE, WholeFile(theorems)) is Status.VERIFIED
        for text in [
            "  simp +arith",
            "  simp (maxSteps := 9)",
            "  exact f\nwhere\n  f : (2 : Nat) + 2 = 4 := rfl",
            "  let rec f : (2 : Nat) + 2 = 4 := rfl\n  exact f",
            WholeFile(f"def d := 1\n{theorems}"),
            WholeFile(f"instance : Inhabited Nat := ⟨1⟩\n{theorems}"),
            WholeFile(f"structure S where\n  x : Nat := by exact 1\n{theorems}"),
        ]:
            assert status(backend, TRUE, text) is Status.UNSAFE, text
    finally:
        backend.close()


def test_a_project_without_a_repl(tmp_path, lake_project):
    (tmp_path / "lakefile.toml").write_text('name = "empty"\n')
    backend = ReplBackend(tmp_path, lake=str(lake_project / "lake-without-programs"))
    with pytest.raises(InstallError, match="leanprover-community/repl"):
        backend.start()


def test_what_cannot_be_started_is_a_backend_error(tmp_path):
    with pytest.raises(BackendError, match="build the project"):
        ReplBackend(tmp_path, command=["/nonexistent/lake"]).start()
    exits = [sys.executable, "-c", "raise SystemExit(7)"]
    with pytest.raises(BackendError, match="status 7"):
        ReplBackend(tmp_path, command=exits).start()


def test_a_process_killed_as_it_starts_is_replaced(tmp_path):
    kills = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    backend = ReplBackend(tmp_path, command=[sys.executable, "-c", kills])
    with pytest.raises(WorkerDiedError) as caught:
        backend.start()
    assert caught.value.innocent
    assert backend.pid is None


def test_a_missing_import_is_the_statements_fault(scripted):
    target = Problem(name="t", statement="theorem t : True", header="import Missing")
    report = scripted.check(request(target, "  trivial"))
    assert "cannot import Missing" in report.statement_error
    run = scripted.check(RunRequest(source="import Missing"))
    assert run.has_errors


def test_identities(repl, native, scripted_command, tmp_path):
    version = native.identity.rsplit("/", 1)[0]
    assert repl.identity.startswith(f"repl/{version}/")
    mine = ReplBackend(tmp_path, command=scripted_command)
    other = ReplBackend(tmp_path, command=[*scripted_command, "--flag"])
    assert mine.identity != other.identity
