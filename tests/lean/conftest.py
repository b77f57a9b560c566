"""The real embedded Lean, installed once into the user's cache."""

import fcntl
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fdjax.lean import (
    NativeBackend,
    RemoteBackend,
    ReplBackend,
    Verifier,
    WasmBackend,
    install,
)
from fdjax.lean.backends.kimina import KiminaBackend, Patience
from fdjax.lean.backends.program import program_file
from fdjax.lean.backends.session import Program
from fdjax.lean.embedded.location import (
    HOST_DIR,
    default_target,
    host_version,
    node_executable,
    node_folder,
    runtime_file,
)
from lean.standin.kimina import KiminaStandIn
from serving import Server

STANDIN = Path(__file__).parent / "standin"
ROOT = Path(__file__).parents[2]
WORD = f"fdjax_{'0' * 16}"
"""What the program in a session is kept under, see `repl.js`."""
SHORT_LIVED = ("--liftoff-only", "--wasm-lazy-validation")
"""Options of Node.js: optimizing what a stand-in runs costs more than it saves."""


@pytest.fixture(scope="session")
def lean_folder():
    return install()


@pytest.fixture(scope="session")
def verifier(lean_folder):
    """Two workers that most tests share; nothing in it may be killed."""
    with Verifier(lambda: WasmBackend(lean_folder), workers=2) as verifier:
        verifier.start()
        yield verifier


@pytest.fixture(scope="module")
def wasm(lean_folder):
    """A single worker without the textual scan in front of it."""
    backend = WasmBackend(lean_folder)
    yield backend
    backend.close()


@pytest.fixture(scope="session")
def full_lean_folder():
    """The embedded Lean with the library that metaprograms import."""
    target = default_target()
    return install(
        target.with_name(f"{target.name}-full"), libraries=("Init", "Std", "Lean")
    )


@pytest.fixture(scope="session")
def lean_command(full_lean_folder):
    """Starts the stand-in for a toolchain's `lean`, with our programs compiled."""
    compiled = ROOT / ".pytest_cache" / "lean" / host_version()
    compiled.mkdir(parents=True, exist_ok=True)
    session = compiled / "session.lean"
    arguments = [
        *(node_executable(), *SHORT_LIVED, STANDIN / "lean.js"),
        *(HOST_DIR, full_lean_folder, runtime_file(full_lean_folder), compiled),
    ]
    with (compiled / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        session.write_text(Program(word=WORD).begin(""))
        subprocess.run([*arguments, "--compile", program_file(), session], check=True)
    return arguments


@pytest.fixture(scope="session")
def lake_project(tmp_path_factory, full_lean_folder, lean_command, repl_command):
    """A Lake project whose toolchain is the embedded Lean, its `lake` and its REPL."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "lakefile.toml").write_text('name = "standin"\n')
    (folder / "bin").mkdir()
    command = shlex.join(map(str, lean_command))
    script(
        folder / "bin" / "lean",
        'if [ "$1" = --version ]; then echo "Lean (version 4.28.0)"; exit; fi',
        f'exec {command} "$@"',
    )
    (folder / "programs").mkdir()
    script(folder / "programs" / "repl", f"exec {shlex.join(repl_command)}")
    # What a toolchain's `lean` may read is named by Lake; the stand-in reads these.
    compiled = lean_command[-1]
    readable = [full_lean_folder, node_folder(), STANDIN, HOST_DIR, compiled]
    says = [
        f"echo LEAN_PATH={shlex.quote(':'.join(map(str, readable)))}",
        f"echo LEAN_SYSROOT={shlex.quote(str(folder))}",
    ]
    script(folder / "lake-without-programs", *says)
    script(folder / "lake", *says, f"echo PATH={shlex.quote(str(folder / 'programs'))}")
    return folder


def script(path, *lines):
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)


@pytest.fixture(scope="module")
def native(lake_project):
    """A single worker that runs the program for Lake projects."""
    backend = NativeBackend(lake_project, lake=str(lake_project / "lake"))
    yield backend
    backend.close()


@pytest.fixture(scope="session")
def repl_command(full_lean_folder, lean_command):
    """Starts a process with the community REPL's protocol and a real Lean behind it."""
    settings = {
        "host": str(HOST_DIR),
        "install": str(full_lean_folder),
        "runtime": str(runtime_file(full_lean_folder)),
        "memory_mb": 2048,
        "compiled": str(lean_command[-1]),
        "word": WORD,
    }
    program = [node_executable(), *SHORT_LIVED, STANDIN / "repl.js"]
    return [*map(str, program), json.dumps(settings)]


@pytest.fixture(scope="module")
def repl(lake_project):
    """A single worker that talks to the project's REPL."""
    backend = ReplBackend(lake_project, lake=str(lake_project / "lake"))
    yield backend
    backend.close()


@pytest.fixture(scope="module")
def kimina_server(repl_command):
    """A server with Kimina's interface over such a process."""
    with KiminaStandIn(repl_command) as server:
        yield server


@pytest.fixture(scope="module")
def kimina(kimina_server):
    """A single client, so that the server's Lean meets one program of ours."""
    backend = KiminaBackend(kimina_server.url, patience=Patience(failures=1))
    yield backend
    backend.close()


@pytest.fixture(scope="module")
def remote(lean_folder):
    """A single client of `fdjax serve` with one worker."""
    with Server.command("--workers", "1", "--trust-headers") as server:
        backend = RemoteBackend(server.url)
        yield backend
        backend.close()


@pytest.fixture(scope="session")
def scripted_command():
    """Starts a process with that protocol and no Lean; see the script."""
    return [sys.executable, str(STANDIN / "scripted_repl.py")]
