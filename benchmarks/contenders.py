"""Ways to check proofs with the same embedded Lean, side by side.

A contender is a context manager that yields a function from rows to what it holds for
proved. The peers' judgement is their own: they look at messages.
"""

import json
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any

from benchmarks.peers import peer_python
from fdjax.lean import Verifier, WasmBackend
from fdjax.lean.embedded.location import HOST_DIR, node_executable, runtime_file
from fdjax.lean.facts.source import splice
from fdjax.verify.rows import SubmissionRow
from tests.lean.standin.kimina import KiminaStandIn

__all__ = [
    "Check",
    "Contender",
    "kimina",
    "lean_interact",
    "one_process",
    "pool",
    "repl_client",
    "served",
]

Check = Callable[[Sequence[SubmissionRow]], list[bool]]
Contender = AbstractContextManager[Check]

PROGRAMS = Path(__file__).parent / "peer_programs"
REPL = Path(__file__).parent.parent / "tests" / "lean" / "standin" / "repl.js"
LEAN_INTERACT = ("lean-interact==0.11.6",)
KIMINA = ("kimina-client==0.2.1", "pygments==2.20.0")
LEAVE_S = 3.0
"""How long a process may take to end when its input does."""


def source(row: SubmissionRow) -> str:
    """The proof as the peers take it: one text."""
    assert isinstance(row.submission, str)
    header = f"{row.problem.header}\n" if row.problem.header else ""
    return header + splice(row.problem.statement, row.submission).text


@contextmanager
def pool(lean: Path, workers: int) -> Iterator[Check]:
    """This library."""
    with Verifier(lambda: WasmBackend(lean), workers=workers) as verifier:
        verifier.start()

        def check(rows: Sequence[SubmissionRow]) -> list[bool]:
            items = [(row.problem, row.submission) for row in rows]
            return [verdict.verified for verdict in verifier.verify(items)]

        yield check


@contextmanager
def one_process(lean: Path) -> Iterator[Check]:
    """A new Lean process for each proof, as `lake env lean FILE` is used."""

    def check(rows: Sequence[SubmissionRow]) -> list[bool]:
        proved = []
        for row in rows:
            with Verifier(lambda: WasmBackend(lean), workers=1) as verifier:
                [verdict] = verifier.verify([(row.problem, row.submission)])
                proved.append(verdict.verified)
        return proved

    yield check


@contextmanager
def repl_client(lean: Path) -> Iterator[Check]:
    """One REPL process, one proof after the other on a header that is kept.

    Judged as such clients do: no error and no `sorry` among the messages.
    """
    with _running(_repl_command(lean)) as (requests, replies):

        def ask(request: dict[str, Any]) -> dict[str, Any]:
            requests.write(json.dumps(request) + "\n\n")
            requests.flush()
            lines = []
            while (line := replies.readline()).strip():
                lines.append(line)
            return json.loads("".join(lines))

        header = ask({"cmd": "import Init"})["env"]

        def check(rows: Sequence[SubmissionRow]) -> list[bool]:
            answers = [ask({"cmd": source(row), "env": header}) for row in rows]
            return [
                not answer.get("sorries")
                and all(m["severity"] != "error" for m in answer.get("messages", ()))
                for answer in answers
            ]

        yield check


@contextmanager
def lean_interact(lean: Path, processes: int) -> Iterator[Check]:
    """LeanInteract's `AutoLeanServer` over REPL processes."""
    python = peer_python("lean-interact", LEAN_INTERACT)
    with tempfile.TemporaryDirectory() as name:
        project = Path(name)
        (project / "lean-toolchain").write_text("leanprover/lean4:v4.28.0\n")
        lake = project / "lake"
        lake.write_text(f"#!/bin/sh\nexec {shlex.join(_repl_command(lean))}\n")
        lake.chmod(0o755)
        script = str(PROGRAMS / "lean_interact_pool.py")
        with _peer([str(python), script, name, str(processes)]) as check:
            yield check


@contextmanager
def kimina(lean: Path) -> Iterator[Check]:
    """Kimina's client, and a server with its interface over one REPL process."""
    python = peer_python("kimina", KIMINA)
    with KiminaStandIn(_repl_command(lean)) as server:
        script = str(PROGRAMS / "kimina_http.py")
        with _peer([str(python), script, server.url]) as check:
            yield check


@contextmanager
def served(lean: Path, workers: int) -> Iterator[Check]:
    """Kimina's client, and `fdjax serve`."""
    del lean  # the command finds it by itself
    program = "import sys; from fdjax.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", program, "serve", "--port", "0"]
    python = peer_python("kimina", KIMINA)
    command = [*command, "--workers", str(workers)]
    with _running(command, errors=subprocess.DEVNULL) as (_, lines):
        found = None
        while found is None:
            line = lines.readline()
            if not line:
                raise RuntimeError("`fdjax serve` ended; run it to see why.")
            found = re.search(r"Listening on (http://\S+)", line)
        script = str(PROGRAMS / "kimina_http.py")
        with _peer([str(python), script, found[1]]) as check:
            yield check


def _repl_command(lean: Path) -> list[str]:
    settings = {
        "host": str(HOST_DIR),
        "install": str(lean),
        "runtime": str(runtime_file(lean)),
        "memory_mb": 2048,
    }
    return [str(node_executable()), str(REPL), json.dumps(settings)]


@contextmanager
def _peer(command: Sequence[str]) -> Iterator[Check]:
    with _running(command) as (requests, replies):

        def answer() -> Any:
            line = replies.readline()
            if not line:
                raise RuntimeError(f"{shlex.join(command)} ended in the middle.")
            return json.loads(line)

        answer()  # ready

        def check(rows: Sequence[SubmissionRow]) -> list[bool]:
            requests.write(json.dumps([source(row) for row in rows]) + "\n")
            requests.flush()
            return answer()

        yield check


@contextmanager
def _running(
    command: Sequence[str], errors: int | None = None
) -> Iterator[tuple[IO[str], IO[str]]]:
    """A process's input and output as text; its input ends with the block."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdin, process.stdout
        finally:
            process.stdin.close()
            try:
                process.wait(LEAVE_S)
            except subprocess.TimeoutExpired:
                process.terminate()
