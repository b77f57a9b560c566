"""`fdjax verify`: order, resuming, stopping, exit codes; then with the real Lean."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fdjax import cli
from fdjax.errors import BackendError
from fdjax.lean import FakeBackend, WorkerDiedError, install
from fdjax.lean.backends.config import Fake
from fdjax.lean.backends.fake import accepted
from fdjax.lean.sandbox import machine
from fdjax.verify import VerifyOptions, display, run, verify_file

COMMAND = [sys.executable, "-c", "from fdjax.cli import main; main()", "verify"]
FAKE = VerifyOptions(backend="fake", workers=2)


def proof(number, tactic="trivial"):
    return {
        "name": "easy",
        "statement": "theorem easy : True",
        "proof": f"  -- {number}\n  {tactic}",
    }


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def statuses(path):
    return [row["status"] for row in read(path)]


@pytest.fixture
def files(tmp_path):
    return tmp_path / "in.jsonl", tmp_path / "out.jsonl"


@pytest.fixture
def answer(monkeypatch):
    """Let a function of the request stand for the fake backend's answer."""

    def use(function, backend=FakeBackend):
        monkeypatch.setattr(Fake, "make", lambda config: backend(function))

    return use


def command(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["verify", *map(str, arguments)])
    captured = capsys.readouterr()
    return stop.value.code, captured.out, captured.err


def test_one_row_for_each_in_order(files, capsys):
    source, out = files
    rows = [proof(n, "trivial" if n % 3 else "simp") for n in range(50)]
    rows.insert(7, proof(7, "native_decide"))
    rows.insert(9, {**proof(9), "statement": "theorem easy : broken"})
    rows[20] = {**proof(0), "name": "other", "source": "trivial"}
    del rows[20]["proof"]
    write(source, rows)
    code, table, errors = command([source, "--out", out, "--backend", "fake"], capsys)
    assert code == 0
    assert errors == ""
    written = read(out)
    assert [row["name"] for row in written] == [row["name"] for row in rows]
    for row, verdict in zip(rows, written, strict=True):
        text = row.get("proof", row.get("source"))
        if "broken" in row["statement"]:
            assert verdict["status"] == "rejected"
            assert "does not elaborate" in verdict["reason"]
        elif "native" in text:
            assert verdict["status"] == "unsafe"
        else:
            assert (verdict["status"] == "verified") == ("trivial" in text)
    fields = {"name", "digest", "status", "axioms", "diagnostics", "goals", "seconds"}
    assert set(written[0]) == fields | {"reason", "cached", "broken_statement"}
    broken = [row["broken_statement"] for row in written]
    assert broken == ["broken" in row["statement"] for row in rows]
    # 52 rows: 17 multiples of 3 below 50, less 18, plus the broken one; the unsafe one.
    cells = [line.replace("│", " ").split() for line in table.splitlines()]
    assert ["verified", "34", "65.4%"] in cells
    assert ["rejected", "17", "32.7%"] in cells
    assert ["unsafe", "1", "1.9%"] in cells
    assert ["all", "52"] in cells
    assert ["broken", "statements", "1"] in cells


def test_a_statement_with_a_proof_stops_before_anything_is_written(files, capsys):
    source, out = files
    statement = "theorem easy : True := by decide -- easy"
    write(source, [proof(0), {**proof(1), "statement": statement, "proof": ""}])
    code, _, errors = command([source, "--out", out, "--backend", "fake"], capsys)
    assert code == 2
    assert "line 2: expected a `statement` that ends before `:=`" in errors
    assert not out.exists()


def test_reasons_say_what_a_submission_is_instead(files):
    source, out = files
    rows = [proof(0, "simp"), {**proof(1), "proof": "by\n  simp"}]
    del rows[0]["proof"]
    rows[0]["source"] = "Here it is:\n```lean4\ntheorem easy : True := h\n```"
    assert verify_file(write(source, rows), out, FAKE) == 0
    prose, by = (row["reason"] for row in read(out))
    assert prose.endswith(
        "no Lean file: prose or a code fence before the first command"
    )
    assert by.endswith("begins with `by`, which is there already: leave it out")
    assert statuses(out) == ["rejected", "rejected"]


def test_a_killed_run_goes_on_where_it_ended(files):
    source, out = files
    rows = [proof(n, "trivial" if n % 3 else "simp") for n in range(12_000)]
    write(source, rows)
    arguments = [*COMMAND, source, "--out", out, "--backend", "fake", "--workers", "2"]
    for size in (100_000, 2_000_000):
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
        while not out.exists() or out.stat().st_size < size:
            assert process.poll() is None
            time.sleep(0.005)
        process.kill()
        process.wait()
    before = out.read_bytes()
    assert subprocess.run(arguments, capture_output=True, check=False).returncode == 0
    whole = before[: before.rfind(b"\n") + 1]
    assert out.read_bytes().startswith(whole)
    expected = ["verified" if n % 3 else "rejected" for n in range(12_000)]
    assert statuses(out) == expected
    # The digest names the proof: nothing is missing, doubled or out of place.
    assert len({row["digest"] for row in read(out)}) == 12_000


def test_a_finished_file_is_not_verified_again(files, answer):
    source, out = files
    write(source, [proof(n) for n in range(5)])
    assert verify_file(source, out, FAKE) == 0
    first = out.read_bytes()
    answer(lambda request: pytest.fail("nothing is left to check"))
    assert verify_file(source, out, FAKE) == 0
    assert out.read_bytes() == first
    # More rows at the input's end are more work, not another input.
    answer(lambda request: accepted("propext"))
    write(source, [proof(n) for n in range(8)])
    assert verify_file(source, out, FAKE) == 0
    assert out.read_bytes().startswith(first)
    assert [row["axioms"] for row in read(out)] == [[]] * 5 + [["propext"]] * 3


def test_the_output_of_another_input_is_only_replaced_on_demand(files, capsys):
    source, out = files
    write(source, [proof(n) for n in range(3)])
    assert verify_file(source, out, FAKE) == 0
    first = out.read_bytes()
    write(source, [proof(n, "simp") for n in range(3)])
    arguments = [source, "--out", out, "--backend", "fake"]
    code, _, errors = command(arguments, capsys)
    assert code == 2
    assert "--overwrite" in errors
    assert out.read_bytes() == first
    assert command([*arguments, "--overwrite"], capsys)[0] == 0
    assert statuses(out) == ["rejected"] * 3


def test_bad_rows_are_found_before_lean_starts(files, answer, capsys):
    source, out = files
    answer(lambda request: pytest.fail("nothing may be checked"))
    write(source, [*map(proof, range(5)), {**proof(5), "proof": 3}])
    out = out.parent / "new" / out.name
    code, _, errors = command([source, "--out", out, "--backend", "fake"], capsys)
    assert code == 2
    assert "line 6: expected text for `proof`, got 3" in errors
    assert not out.parent.exists()
    source.write_text("\n")
    code, _, errors = command([source, "--out", out, "--backend", "fake"], capsys)
    assert code == 2
    assert "at least one row" in errors


def test_no_file_is_lost_to_a_wrong_option(files, capsys):
    source, out = files
    write(source, [proof(0)])
    content = source.read_bytes()
    fake = ["--backend", "fake", "--overwrite"]
    for arguments, message in [
        (["--out", source], "another file than the input"),
        (["--out", out, "--cache", source], "expected a verdict cache"),
        (["--out", out, "--url", "http://127.0.0.1:1"], "no --url"),
        (["--out", out, "--cache", out.parent], "Is a directory"),
        (["--out", out, "--cache", source / "cache"], "may read and write"),
        (["--out", source / "out"], "name a file in a folder where you may write"),
        (["--out", out, "--timeout", "0"], "--timeout to be"),
        (["--out", out, "--workers", "0"], "workers to be"),
    ]:
        code, _, errors = command([source, *arguments, *fake], capsys)
        assert code == 2, errors
        assert message in errors
        assert source.read_bytes() == content
        assert not out.exists()


def test_the_cache_answers_a_second_file(files, tmp_path, capsys):
    source, out = files
    write(source, [proof(n) for n in range(10)])
    arguments = ["--backend", "fake", "--cache", tmp_path / "cache.sqlite"]
    command([source, "--out", out, *arguments], capsys)
    second = tmp_path / "second.jsonl"
    _, table, _ = command([source, "--out", second, *arguments], capsys)
    assert all(row["cached"] for row in read(second))
    assert ["from", "the", "cache", "10"] in [
        line.split() for line in table.split("\n")
    ]


def test_crashed_rows_are_said_and_tried_again(files, answer, capsys):
    source, out = files
    write(source, [proof(n) for n in range(9)])
    ill = {3, 8}

    def crash(request):
        if any(f"-- {number}\n" in request.proof for number in ill):
            raise WorkerDiedError("it died")
        return accepted()

    answer(crash)
    arguments = [source, "--out", out, "--backend", "fake"]
    code, _, errors = command(arguments, capsys)
    assert code == 1
    assert "2 of 9 rows are CRASHED" in errors
    assert "same command again" in errors
    assert [n for n, s in enumerate(statuses(out)) if s == "crashed"] == [3, 8]
    ill.remove(8)
    assert command(arguments, capsys)[0] == 1
    assert [n for n, s in enumerate(statuses(out)) if s == "crashed"] == [3]
    ill.clear()
    code, table, errors = command(arguments, capsys)
    assert code == 0
    assert errors == ""
    assert statuses(out) == ["verified"] * 9
    assert "1 rows in" in table


@pytest.mark.parametrize("kind", ["pipe", "folder", "missing"])
def test_an_input_that_is_no_file_is_refused_first(files, capsys, kind):
    source, out = files
    out = out.parent / "new" / out.name
    if kind == "pipe":
        reading, writing = os.pipe()
        os.write(writing, json.dumps(proof(0)).encode())
        os.close(writing)
        source = Path(f"/dev/fd/{reading}")
    elif kind == "folder":
        source.mkdir()
    code, _, errors = command([source, "--out", out, "--backend", "fake"], capsys)
    assert code == 2
    assert str(source) in errors
    remedy = "correct the path" if kind == "missing" else "write the rows to a file"
    assert remedy in errors
    assert not out.parent.exists()


@pytest.mark.parametrize("rows", [0, 2, 4])
def test_an_input_that_changes_meanwhile_is_an_error(files, answer, capsys, rows):
    source, out = files
    write(source, [proof(n) for n in range(3)])
    check = run.VerdictFile.check

    def change(self, submissions):
        standing = check(self, submissions)
        write(source, [proof(n) for n in range(rows)])
        return standing

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run.VerdictFile, "check", change)
        code, _, errors = command([source, "--out", out, "--backend", "fake"], capsys)
    assert code == 2
    assert f"Expected 3 rows in {source}" in errors
    assert f"got {rows}: the input changed while it was read" in errors
    if rows:
        assert statuses(out) == ["verified"] * rows


def test_a_file_without_a_final_newline_is_not_lost(files, capsys):
    source, out = files
    write(source, [proof(0)])
    out.write_text("hello no newline")
    arguments = [source, "--out", out, "--backend", "fake"]
    code, _, errors = command(arguments, capsys)
    assert code == 2
    assert "got hello no newline" in errors
    assert out.read_text() == "hello no newline"
    assert command([*arguments, "--overwrite"], capsys)[0] == 0


def crash_all(request):
    raise WorkerDiedError("it died")


@pytest.mark.parametrize(
    ("owner", "name"), [(shutil, "copymode"), (os, "replace"), (Path, "unlink")]
)
def test_a_stop_waits_for_the_rewriting(files, answer, owner, name):
    source, out = files
    write(source, [proof(n) for n in range(3)])
    answer(crash_all)
    assert verify_file(source, out, FAKE) == 1
    answer(lambda request: accepted())
    with pytest.MonkeyPatch.context() as patch:
        real = getattr(owner, name)

        def stop_meanwhile(*arguments, **options):
            patch.undo()
            signal.raise_signal(signal.SIGTERM)
            return real(*arguments, **options)

        patch.setattr(owner, name, stop_meanwhile)
        assert verify_file(source, out, FAKE) == 143
    assert statuses(out) == ["verified"] * 3
    assert set(out.parent.iterdir()) == {source, out}


def test_retried_rows_are_written_now_and_then(files, answer, monkeypatch):
    source, out = files
    write(source, [proof(n) for n in range(2)])
    answer(crash_all)
    assert verify_file(source, out, FAKE) == 1
    monkeypatch.setattr(run, "REWRITE_S", 0.0)

    def second_sees_first(request):
        end = time.monotonic() + 60
        while "-- 1\n" in request.proof and statuses(out)[0] == "crashed":
            assert time.monotonic() < end
            time.sleep(0.01)
        return accepted()

    answer(second_sees_first)
    assert verify_file(source, out, FAKE) == 0
    assert statuses(out) == ["verified"] * 2


def test_the_number_of_workers(monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 8)
    monkeypatch.setattr(machine, "available_memory_mb", lambda: 10_000)
    lake, server = {"project": Path("lake")}, {"url": "http://h"}
    for options, expected in [
        ({"backend": "wasm"}, 8),
        ({"backend": "wasm", "memory_mb": 2000}, 4),
        ({"backend": "native", **lake}, 1),
        ({"backend": "native", **lake, "memory_mb": 4000}, 2),
        ({"backend": "repl", **lake}, 1),
        ({"backend": "fake", "memory_mb": 4000}, 8),
        ({"backend": "remote", **server}, 16),
        ({"backend": "kimina", **server}, 16),
        ({"backend": "kimina", **server, "workers": 3}, 3),
    ]:
        assert VerifyOptions(**options).number_of_workers() == expected, options


class Endless(FakeBackend):
    """Does not answer about `endless` proofs until it is interrupted."""

    def __init__(self, answer):
        super().__init__(answer)
        self._interrupted = threading.Event()

    def check(self, request):
        if "endless" not in request.proof:
            return super().check(request)
        self._interrupted.wait()
        raise WorkerDiedError("interrupted")

    def interrupt(self):
        self._interrupted.set()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_a_stop_keeps_what_was_decided(
    files, answer, capsys, monkeypatch, number, code
):
    source, out = files
    endless = proof(0, "endless")
    rows = [proof(0), endless, proof(2), proof(3), proof(4), endless, proof(6)]
    write(source, rows)

    four = threading.Event()
    update = display.ProgressDisplay.update

    def count(self):
        update(self)
        if self.decided == 4:
            four.set()

    def stop_at_the_last(request):
        # The other worker is busy with the endless proof (rows 1 and 5 are equal).
        if "-- 6" in request.proof:
            assert four.wait(60)
            os.kill(os.getpid(), number)
        return accepted()

    monkeypatch.setattr(display.ProgressDisplay, "update", count)

    answer(stop_at_the_last, Endless)
    before = signal.getsignal(number)
    assert verify_file(source, out, FAKE) == code
    assert signal.getsignal(number) is before
    message = capsys.readouterr().err
    assert "same command again" in message
    assert len(message.splitlines()) == 1
    # Row 6 may have had its verdict when the signal came, or not.
    kept = ["verified", "crashed", "verified", "verified", "verified"]
    assert statuses(out)[:5] == kept
    assert statuses(out)[5:] in ([], ["crashed", "verified"])
    answer(lambda request: accepted())
    assert verify_file(source, out, FAKE) == 0
    assert statuses(out) == ["verified"] * 7


def test_a_stop_comes_between_rows_only(files, monkeypatch):
    source, out = files
    write(source, [proof(n) for n in range(40)])
    append = run.VerdictFile.append

    def stop_meanwhile(self, submission, verdict):
        if "-- 20\n" in submission.submission:
            signal.raise_signal(signal.SIGINT)
        append(self, submission, verdict)

    monkeypatch.setattr(run.VerdictFile, "append", stop_meanwhile)
    assert verify_file(source, out, FAKE) == 130
    assert len(read(out)) > 20
    monkeypatch.undo()
    assert verify_file(source, out, FAKE) == 0
    assert statuses(out) == ["verified"] * 40
    assert len({row["digest"] for row in read(out)}) == 40


def test_a_stop_waits_for_the_rows_after_an_error(files, answer, monkeypatch):
    source, out = files
    write(source, [proof(n) for n in range(3)])
    two = threading.Event()
    update = display.ProgressDisplay.update
    append = run.VerdictFile.append

    def count(self):
        update(self)
        if self.decided == 2:
            two.set()

    def fail_at_last(request):
        if "-- 0\n" in request.proof:
            assert two.wait(60)
            raise BackendError("there is no Lean any more")
        return accepted()

    def stop_meanwhile(self, submission, verdict):
        if "-- 0\n" in submission.submission:
            signal.raise_signal(signal.SIGTERM)
        append(self, submission, verdict)

    monkeypatch.setattr(display.ProgressDisplay, "update", count)
    monkeypatch.setattr(run.VerdictFile, "append", stop_meanwhile)
    answer(fail_at_last)
    assert verify_file(source, out, FAKE) == 143
    assert statuses(out) == ["crashed", "verified", "verified"]


def test_blocks_leave_no_trace(files, answer, monkeypatch):
    source, out = files
    monkeypatch.setattr(run, "BLOCK", 3)
    monkeypatch.setattr(run, "BLOCK_PER_WORKER", 1)
    write(source, [proof(n) for n in range(10)])
    died = []

    def die_first(request):
        if len(died) < 8 and request.proof.split()[1] in "1258":
            died.append(request)
            raise WorkerDiedError("it died")
        return accepted()

    answer(die_first)
    assert verify_file(source, out, FAKE) == 1
    assert verify_file(source, out, FAKE) == 0
    assert statuses(out) == ["verified"] * 10


def test_progress_is_a_line_now_and_then_without_a_terminal(files, capsys, monkeypatch):
    source, out = files
    monkeypatch.setattr(display, "LINE_S", 0.0)
    write(source, [proof(n, "trivial" if n else "simp") for n in range(4)])
    _, _, errors = command([source, "--out", out, "--backend", "fake"], capsys)
    lines = errors.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("1 of 4 rows, ")
    assert lines[-1].endswith("/s, 0 s left: verified 3, rejected 1")


def test_a_terminal_shows_a_bar(files, capsys, monkeypatch):
    source, out = files
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(display, "REDRAW_S", 0.0)
    write(source, [proof(n) for n in range(4)])
    _, _, errors = command([source, "--out", out, "--backend", "fake"], capsys)
    assert "━" in errors
    assert "4/4" in errors
    assert "verified 4" in errors


def test_help_does_not_wait_for_jax():
    code = "import sys, fdjax.cli; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_memory_does_not_grow_with_the_file(files):
    def peak_mb(count):
        source, out = files
        text = (
            json.dumps({**proof(0), "proof": "  trivial -- 0000" + "x" * 1000}) + "\n"
        )
        with source.open("w") as file:
            for number in range(count):
                file.write(text.replace("0000", str(number % 1000)))
        arguments = [*COMMAND, source, "--out", out, "--backend", "fake", "--overwrite"]
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
        _, code, usage = os.wait4(process.pid, 0)
        process.returncode = code
        assert code == 0
        assert len(out.read_bytes().splitlines()) == count
        scale = 1 if sys.platform == "darwin" else 1024
        return usage.ru_maxrss * scale / 1e6

    # The proofs alone are 60 MB; 10 MB of growth is what a block of them takes.
    assert peak_mb(60_000) < peak_mb(5_000) + 30


# ---- with the embedded Lean


def test_a_missing_lean_leaves_no_file(files, tmp_path, capsys, monkeypatch):
    source, out = files
    write(source, [proof(0)])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    code, _, errors = command([source, "--out", out], capsys)
    assert code == 2
    assert "embedded Lean was expected" in errors
    assert "`fdjax lean install`" in errors
    assert not out.exists()


@pytest.fixture(scope="module")
def lean():
    return install()


REAL = [
    (
        {"statement": "theorem swap (p q : Prop) (h : p ∧ q) : q ∧ p"},
        {"proof": "  exact ⟨h.2, h.1⟩"},
        "verified",
    ),
    (
        {"statement": "theorem lin (a b : Nat) (h : a < b) : a + 1 ≤ b"},
        {"proof": "  omega"},
        "verified",
    ),
    ({"statement": "theorem no : 2 + 2 = 5"}, {"proof": "  omega"}, "rejected"),
    ({"statement": "theorem no : 2 + 2 = 5"}, {"proof": "  sorry"}, "rejected"),
    ({"statement": "theorem no : 2 + 2 = 5"}, {"proof": "  native_decide"}, "unsafe"),
    ({"statement": "theorem odd (x : ℕ) : x = x"}, {"proof": "  rfl"}, "rejected"),
    (
        {
            "statement": "theorem six : twice 3 = 6",
            "header": "def twice (n : Nat) := n + n",
        },
        {"source": "theorem six : twice 3 = 6 := rfl"},
        "verified",
    ),
    (
        {"statement": "theorem six : 3 + 3 = 6"},
        {"source": "theorem six : 3 + 3 = 3 + 3 := rfl"},
        "rejected",
    ),
]


def real_rows():
    return [
        {"name": problem["statement"].split()[1], **problem, **body}
        for problem, body, _ in REAL
    ]


def test_real_rows(lean, files, capsys):
    source, out = files
    write(source, real_rows())
    code, table, errors = command([source, "--out", out, "--workers", 2], capsys)
    assert (code, errors) == (0, "")
    assert statuses(out) == [status for *_, status in REAL]
    rows = read(out)
    assert rows[3]["axioms"] == ["sorryAx"]
    assert rows[2]["diagnostics"][0]["line"] == 1
    assert "ℕ" in rows[5]["reason"]
    assert rows[0]["seconds"] > 0
    cells = [line.split() for line in table.splitlines()]
    assert ["broken", "statements", "1"] in cells


def test_a_stopped_process_leaves_rows_and_no_lean(lean, files):
    source, out = files
    slow = {
        "name": "slow",
        "statement": "theorem slow : ∀ a b c : Fin 60, a + b + c = c + b + a",
        "proof": "  set_option maxRecDepth 100000 in\n  set_option maxHeartbeats 0 in\n"
        "  decide",
    }
    write(source, [*real_rows(), slow])
    arguments = [*COMMAND, source, "--out", out, "--workers", "2", "--timeout", "60"]
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    while not out.exists() or out.read_bytes().count(b"\n") < len(REAL):
        assert process.poll() is None
        time.sleep(0.02)
    children = lean_processes(process.pid)
    assert children
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "same command again" in errors
    assert statuses(out) == [status for *_, status in REAL]
    assert not any(alive(child) for child in children)


def lean_processes(parent):
    """Process ids of the children."""
    listing = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    )
    pairs = [map(int, line.split()) for line in listing.stdout.splitlines()]
    return [pid for pid, owner in pairs if owner == parent]


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
