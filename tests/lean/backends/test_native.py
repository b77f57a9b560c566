"""What is special about a Lake project: finding it, its toolchain, its process."""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fdjax.errors import BackendError, InstallError
from fdjax.lean import NativeBackend, Status, Verifier, WholeFile
from fdjax.lean.backends import lake
from fdjax.lean.backends import native as native_module
from fdjax.lean.backends.program import program_file
from fdjax.lean.facts.policy import POLICY
from fdjax.lean.sandbox.child import is_exhausted
from lean.asking import request
from lean.conftest import script
from lean.corpus import (
    BEHIND_THE_SCAN,
    FAILURES,
    FALSE,
    FALSE_FILES,
    FILES,
    SWAP,
    THEOREMS,
    TRUE,
)
from lean.embedded.test_wasm import SLOW, SLOW_PROOF, alive, worker_of


def test_a_folder_that_is_no_project(tmp_path, lake_project):
    backend = NativeBackend(tmp_path, lake=str(lake_project / "lake"))
    with pytest.raises(InstallError, match=r"without lakefile\.toml"):
        backend.start()


def test_a_missing_lake(lake_project):
    with pytest.raises(InstallError, match="expected the program 'no-such-lake'"):
        NativeBackend(lake_project, lake="no-such-lake").start()


def test_a_lake_that_fails_or_says_nothing(tmp_path, lake_project):
    (tmp_path / "lakefile.lean").touch()
    lake = tmp_path / "lake"
    script(lake, "echo broken manifest >&2", "exit 3")
    with pytest.raises(BackendError, match="status 3: broken manifest"):
        NativeBackend(tmp_path, lake=str(lake)).start()
    other = tmp_path / "other"
    script(other, "echo PATH=/bin")
    with pytest.raises(BackendError, match="LEAN_PATH"):
        NativeBackend(tmp_path, lake=str(other)).start()


def test_a_toolchain_that_cannot_run_the_checker(tmp_path):
    (tmp_path / "lakefile.toml").touch()
    (tmp_path / "bin").mkdir()
    script(tmp_path / "bin" / "lean", "echo checker.lean:1: unknown module >&2; exit 1")
    script(tmp_path / "lake", "echo LEAN_PATH=/x", f"echo LEAN_SYSROOT={tmp_path}")
    script(
        tmp_path / "bin" / "lean",
        'if [ "$1" = --version ]; then echo "Lean 4.0"; exit; fi',
        "echo checker.lean:1: unknown module >&2",
        "exit 1",
    )
    with pytest.raises(BackendError, match=r"unknown module.*fdjax lean selftest"):
        NativeBackend(tmp_path, lake=str(tmp_path / "lake")).start()


def test_the_identity_follows_the_projects_dependencies(native, tmp_path, lake_project):
    for name in ("lakefile.toml", "bin"):
        (tmp_path / name).symlink_to(lake_project / name)
    (tmp_path / "lake-manifest.json").write_text("{}")
    other = NativeBackend(tmp_path, lake=str(lake_project / "lake"))
    assert native.identity.startswith("Lean (version 4.28.0)/")
    assert native.identity.rsplit("/", 1)[1] == other.identity.rsplit("/", 1)[1]
    assert native.identity != other.identity


def test_the_identity_follows_what_was_built(tmp_path):
    """Of the project and of packages beside it; the manifest pins the others."""
    built = tmp_path / ".lake" / "build" / "lib"
    pinned = tmp_path / ".lake" / "packages" / "mathlib"
    for folder in (built, pinned):
        folder.mkdir(parents=True)
        (folder / "Defs.olean").write_bytes(b"one")

    def version():
        return lake._fingerprint(tmp_path, (built, pinned))

    versions = [version()]
    (pinned / "Defs.olean").write_bytes(b"two")
    assert version() == versions[0]
    (built / "Defs.olean").write_bytes(b"two")
    versions.append(version())
    (built / "Defs.olean.hash").write_bytes(b"3")
    versions.append(version())
    (built / "Defs.olean.hash").write_bytes(b"4")
    versions.append(version())
    (built / "More.olean").write_bytes(b"")
    versions.append(version())
    (tmp_path / "lakefile.toml").write_text("[leanOptions]")
    versions.append(version())
    assert len(set(versions)) == len(versions)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_list_of_imports_is_loaded_once(native):
    """Whatever else the headers say; seen by the bytes that the process reads."""
    native.close()
    native.start()
    statistics = Path(f"/proc/{worker_of(native.pid)}/io")

    def read_for(header):
        before = int(statistics.read_text().split()[1])
        assert native.check(request(replace(TRUE, header=header), "  rfl")).target
        return int(statistics.read_text().split()[1]) - before

    first = read_for("import Init -- all\nopen Nat")
    assert read_for("/- Another. -/ import Init\nopen List") < first / 100


def test_a_hard_limit_ends_what_the_watchdog_cannot(native):
    native.check(request(TRUE, "  rfl"))
    first = native.pid
    report = native.check(request(SLOW, SLOW_PROOF, wall_s=1.0))
    assert report.timed_out
    assert 1.0 <= report.seconds <= 1.5
    assert not alive(first)
    assert native.check(request(TRUE, "  rfl")).target is not None


def test_a_worker_is_recycled(lake_project):
    backend = NativeBackend(
        lake_project, lake=str(lake_project / "lake"), recycle_after=2
    )
    backend.check(request(SWAP, "  exact ⟨h.2, h.1⟩"))
    first = backend.pid
    backend.check(request(SWAP, "  exact ⟨h.2, h.1⟩"))
    assert backend.pid is None
    assert not alive(first)


def test_the_kernel_looks_twice(lake_project, monkeypatch):
    # A policy that lets the kernel be switched off: only the second look is left.
    careless = replace(POLICY, options=(*POLICY.options, "debug.skipKernelTC"))
    monkeypatch.setattr(native_module, "POLICY", careless)
    proof = "  set_option debug.skipKernelTC true in decide +kernel"
    backend = NativeBackend(lake_project, lake=str(lake_project / "lake"))
    report = backend.check(request(FALSE, proof))
    backend.close()
    assert report.target is not None
    assert report.target.is_theorem
    assert report.target.matches_statement
    assert report.target.axioms == ()
    assert report.has_errors
    assert [m.text for m in report.messages] == [
        "checked again from the start: the kernel refuses target._proof_1"
    ]


def test_a_session_reports_the_same(native, repl):
    """Where it matters not that a session has imported `Lean`, too."""
    items = [
        *FAILURES[:6],
        *THEOREMS[:3],
        *((FALSE, proof) for proof, _ in BEHIND_THE_SCAN),
        *((FALSE, WholeFile(text)) for text in FALSE_FILES[Status.REJECTED]),
        *((target, WholeFile(text)) for target, text in FILES[:6]),
    ]
    for target, submission in items:
        asked = request(target, submission)
        here, there = (
            replace(backend.check(asked), seconds=0.0) for backend in (native, repl)
        )
        assert here == there, submission


def test_no_character_is_cut_in_two(native, repl):
    for output_bytes, shown in ((3, "é"), (4, "éé")):
        asked = request(TRUE, '  fail "ééé"', output_bytes=output_bytes)
        for backend in (native, repl):
            [message] = backend.check(asked).messages
            assert message.text == shown


def test_the_program_is_one_file_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = program_file()
    text = file.read_text()
    assert text.startswith("import Lean\n")
    assert "FDJAX" not in text
    written = file.stat().st_ino
    assert program_file().stat().st_ino == written
    file.write_text(text[:1000])
    assert program_file().read_text() == text
    assert list(file.parent.iterdir()) == [file]
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))
    with pytest.raises(InstallError, match="XDG_CACHE_HOME"):
        program_file()


def test_a_proof_that_uses_up_the_memory_twice_is_a_timeout(lake_project):
    backend = NativeBackend(lake_project, lake=str(lake_project / "lake"))
    proof = "  have : 2 ^ 99999999999 = 1 := by omega\n  rfl"
    with Verifier(lambda: backend, workers=1) as verifier:
        [verdict] = verifier.verify([(TRUE, proof)])
        deaths = verifier.statistics.restarts
    assert (verdict.status, deaths) == (Status.TIMEOUT, 2)
    assert verdict.reason == "the proof used up its memory"


@pytest.mark.parametrize(
    ("said", "status", "expected"),
    [
        ("\nStack overflow detected. Aborting.\n", -6, True),
        ("INTERNAL PANIC: out of memory", 1, True),
        ("INTERNAL PANIC: Nat.pow exponent is too big", 1, True),
        ("GNU MP: Cannot reallocate memory (old_size=8 new_size=9)", -6, True),
        ("terminating due to uncaught exception of type std::bad_alloc", 134, True),
        ("", -signal.SIGFPE, True),
        ("", -signal.SIGKILL, False),
        ("INTERNAL PANIC: unreachable code has been reached", 1, False),
        ("Segmentation fault", 139, False),
    ],
)
def test_last_words_of_a_lean_without_memory(said, status, expected):
    assert is_exhausted(said, status) is expected


def test_a_killed_process_is_a_death_not_a_rejection(native):
    native.check(request(TRUE, "  rfl"))
    # With all that it supervises, and ended before it is asked again.
    os.killpg(native.pid, signal.SIGKILL)
    os.waitid(os.P_PID, native.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(BackendError, match="exit status -9"):
        native.check(request(TRUE, "  rfl"))
