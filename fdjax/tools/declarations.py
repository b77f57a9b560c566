"""The embedded Lean's library as files to search: names, which Lean itself explains.

It comes without sources. So each module is a file of the names that it declares, a line
each; of those that are shown, Lean says what they state.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fdjax.errors import InstallError
from fdjax.files import cache_folder
from fdjax.lean import Limits, Verifier, default_target, installed
from fdjax.tools.elaborator import Elaborator
from fdjax.tools.library import Library
from fdjax.tools.olean import declared_names

__all__ = ["declarations_folder", "embedded_library"]

_VERSION = 1
"""Raise it when the files' content changes."""
_IMPORTS = "import Init\nimport Std\nset_option pp.universes false\n"
_INTERNAL = re.compile(
    r"(?:_.*|\d+|(?:eq|match|proof|splitter)_\d+|eq_def|rec|recOn|casesOn|brecOn|below"
    r"|binductionOn|ibelow|noConfusion(?:Type)?|sizeOf_spec|injEq|ctorIdx|ctorElim.*"
    r"|toCtorIdx|elim|term.*_.*|inst\w*_\d+|Lean|Internal|Impl|Raw)"
)
"""Parts of names that nobody cites: Lean makes them, or they are no mathematics."""


def embedded_library(verifier: Verifier, install_dir: Path | None = None) -> Library:
    """The library of the embedded Lean; its files are made once, in about 2 s.

    Args:
      verifier: over the embedded Lean; explains what is shown.
      install_dir: what `install` returned; the user's cache by default.

    Raises:
      InstallError: the embedded Lean is not installed.
    """
    limits = Limits(wall_s=20.0, output_bytes=32_768)
    statements = _Statements(lean=Elaborator(verifier=verifier, limits=limits))
    return Library(folder=declarations_folder(install_dir), explain=statements.of)


def declarations_folder(install_dir: Path | None = None) -> Path:
    """A folder with a file of names for each module; made where it is not there.

    Raises:
      InstallError: the embedded Lean is not installed.
    """
    source = installed(install_dir)
    if source is None:
        raise InstallError(
            "expected the embedded Lean in "
            f"{install_dir or default_target()}, got none: run `fdjax lean install`"
        )
    folder = cache_folder() / f"declarations-{_VERSION}-{source.name}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        library = source / "lib" / "lean"
        for module in sorted(library.rglob("*.olean")):
            names = sorted(filter(_citable, declared_names(module)))
            if names:
                path = partial / module.relative_to(library).with_suffix(".lean")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("".join(f"{name}\n" for name in names), "utf-8")
        try:
            os.rename(partial, folder)
        except OSError:
            if not folder.is_dir():  # else another process was first
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


@dataclass(frozen=True, kw_only=True)
class _Statements:
    """What Lean prints for names, remembered."""

    lean: Elaborator
    known: dict[str, str] = field(default_factory=dict)

    async def of(self, names: Sequence[str]) -> list[str]:
        """Each name with what it states; alone where Lean does not say."""
        asked = [name for name in dict.fromkeys(names) if name not in self.known]
        # One name a request: of several, only what Lean prints in a given time is told.
        sources = [f"{_IMPORTS}#check {name}" for name in asked]
        found = await self.lean.elaborate(sources) if sources else []
        for name, elaboration in zip(asked, found, strict=True):
            texts = [
                said.text
                for said in elaboration.diagnostics
                if said.severity == "information"
            ]
            if texts:
                self.known[name] = " ".join(texts[0].split())
        return [self.known.get(name, name) for name in names]


def _citable(name: str) -> bool:
    return not any(map(_INTERNAL.fullmatch, name.split(".")))
