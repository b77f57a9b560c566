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
from fdjax.lean import Status, Verifier, WasmBackend, installed
from fdjax.records import Problem

__all__ = ["Finding", "examine"]

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
    state: Literal["ok", "missing", "note"]
    """`missing` stops fdjax from working; `note` is worth knowing."""
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
    true = Problem(name="four", statement="theorem four : 2 + 2 = 4")
    false = Problem(name="five", statement="theorem five : 2 + 2 = 5")
    start = time.monotonic()
    try:
        with Verifier(WasmBackend, workers=1) as verifier:
            good, bad = verifier.verify([(true, "  decide"), (false, "  decide")])
            identity = verifier.identity
    except FdjaxError as error:
        return Finding(
            part=part,
            state="missing",
            found=str(error),
            remedy=f"delete {folder}, then fdjax lean install",
        )
    if not good.verified or bad.status is not Status.REJECTED:
        return Finding(
            part=part,
            state="missing",
            found=f"2 + 2 = 4: {good.status.value}, 2 + 2 = 5: {bad.status.value}",
            remedy=f"delete {folder}, then fdjax lean install",
        )
    seconds = time.monotonic() - start
    return Finding(
        part=part,
        state="ok",
        found=f"{identity}: verified and rejected in {seconds:.1f} s, start included",
    )


def _native_lean() -> Finding:
    lake = shutil.which("lake")
    if lake:
        return Finding(part="Lean, native", state="note", found=f"lake at {lake}")
    return Finding(
        part="Lean, native",
        state="note",
        found="no lake on PATH; the embedded Lean does not need it",
    )
