"""What a machine has of what fdjax needs."""

import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

import jax

import fdjax
from fdjax.errors import FdjaxError
from fdjax.lean import BackendConfig, Embedded, Limits, Status, Verifier, installed
from fdjax.records import Problem

__all__ = ["Finding", "examine", "try_lean"]

_PACKAGES = (
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "transformers",
    "tokenizers",
)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report."""

    part: str
    state: Literal["ok", "missing", "fail", "note"]
    """`missing` and `fail` stop fdjax from working; `note` is worth knowing."""
    found: str
    remedy: str = ""


def examine() -> Iterator[Finding]:
    """Looks at Python, packages, devices and Lean backends, one finding each."""
    yield Finding(part="fdjax", state="ok", found=fdjax.__version__)
    yield Finding(
        part="Python", state="ok", found=f"{sys.version.split()[0]}, {sys.executable}"
    )
    yield from (_package(name) for name in _PACKAGES)
    yield _devices()
    yield _embedded_lean()
    yield _native_lean()


def _package(name: str) -> Finding:
    try:
        return Finding(part=name, state="ok", found=metadata.version(name))
    except metadata.PackageNotFoundError:
        return Finding(
            part=name, state="missing", found="—", remedy=f"pip install {name}"
        )


def _devices() -> Finding:
    try:
        devices = jax.devices()
    except RuntimeError as error:
        return Finding(
            part="jax",
            state="missing",
            found=f"{jax.__version__}: {error}",
            remedy="set JAX_PLATFORMS=cpu, or install the plugin of the accelerator",
        )
    kinds = sorted({device.device_kind for device in devices})
    return Finding(
        part="jax",
        state="ok",
        found=f"{jax.__version__}: {len(devices)} × {', '.join(kinds)} "
        f"({jax.default_backend()}), process {jax.process_index()} of "
        f"{jax.process_count()}",
    )


def _embedded_lean() -> Finding:
    part = "Lean, embedded"
    folder = installed()
    if folder is None:
        return Finding(
            part=part, state="missing", found="—", remedy="fdjax lean install"
        )
    try:
        works, found = try_lean(Embedded())
    except FdjaxError as error:
        works, found = False, str(error)
    if works:
        return Finding(part=part, state="ok", found=found)
    return Finding(
        part=part,
        state="missing",
        found=found,
        remedy=f"delete {folder}, then fdjax lean install",
    )


def try_lean(lean: BackendConfig, *, header: str = "") -> tuple[bool, str]:
    """Whether a Lean verifies a true theorem and rejects a false one, and its words.

    Args:
      lean: which.
      header: Lean before both, such as "import Mathlib".

    Raises:
      FdjaxError: it cannot be started.
    """
    true = Problem(name="four", statement="theorem four : 2 + 2 = 4", header=header)
    false = Problem(name="five", statement="theorem five : 2 + 2 = 5", header=header)
    start = time.monotonic()
    limits = Limits(memory_mb=lean.default_memory_mb)
    with Verifier(lean.make, workers=1, limits=limits) as verifier:
        good, bad = verifier.verify([(true, "  decide"), (false, "  decide")])
        identity = verifier.identity
    if not good.verified or bad.status is not Status.REJECTED:
        return False, f"2 + 2 = 4: {good.status.value}, 2 + 2 = 5: {bad.status.value}"
    seconds = time.monotonic() - start
    return True, f"{identity}: verified and rejected in {seconds:.1f} s, start included"


def _native_lean() -> Finding:
    lake = shutil.which("lake")
    if lake:
        return Finding(part="Lean, native", state="note", found=f"lake at {lake}")
    return Finding(
        part="Lean, native",
        state="note",
        found="no lake on PATH; the embedded Lean does not need it",
    )
