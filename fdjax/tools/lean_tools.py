"""The five tools of the paper's environment, for one episode or one client."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fdjax.lean import Limits, Verifier
from fdjax.ranges import Number, require_fields
from fdjax.tools.declarations import embedded_library
from fdjax.tools.elaborator import Elaborator
from fdjax.tools.lean_files import (
    CHECK_FILE,
    RUN_LEAN,
    WRITE_FILE,
    CheckFile,
    RunLean,
    WriteFile,
)
from fdjax.tools.library import (
    READ_LIBRARY,
    SEARCH_LIBRARY,
    Library,
    ReadLibrary,
    SearchLibrary,
)
from fdjax.tools.tool import ToolSpec
from fdjax.tools.toolbox import CallLimits, Toolbox
from fdjax.tools.workspace import Workspace

__all__ = ["LEAN_TOOLS", "LeanTools"]

LEAN_TOOLS: tuple[ToolSpec, ...] = (
    *(RUN_LEAN, WRITE_FILE, CHECK_FILE),
    *(SEARCH_LIBRARY, READ_LIBRARY),
)
"""What a model is told about them."""


@dataclass(frozen=True, kw_only=True)
class LeanTools:
    """Opens toolboxes that share a verifier and a library."""

    verifier: Verifier
    library: Library
    wall_s: float = 20.0
    """Seconds of Lean's time for a file, at most the verifier's own."""
    limits: CallLimits = field(default_factory=CallLimits)

    def __post_init__(self) -> None:
        require_fields(self, wall_s=Number(least=0.001, most=86_400))

    @classmethod
    def embedded(cls, verifier: Verifier) -> "LeanTools":
        """Over the embedded Lean and its own library.

        Raises:
          InstallError: the embedded Lean is not installed.
        """
        return cls(verifier=verifier, library=embedded_library(verifier))

    @classmethod
    def of_project(cls, verifier: Verifier, project: Path) -> "LeanTools":
        """Over a Lake project's Lean and the sources below its folder."""
        return cls(verifier=verifier, library=Library(folder=project))

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the answers, wherever the library's folder is."""
        return {
            "verifier": self.verifier,
            "wall_s": self.wall_s,
            "limits": self.limits,
        }

    @contextmanager
    def open(self) -> Iterator[Toolbox]:
        """The tools on a workspace of their own, which goes at the end."""
        own = self.verifier.limits
        limits: Limits = replace(own, wall_s=min(self.wall_s, own.wall_s))
        lean = Elaborator(verifier=self.verifier, limits=limits)
        with Workspace.temporary() as workspace:
            tools = (
                RunLean(lean=lean),
                WriteFile(lean=lean, workspace=workspace),
                CheckFile(lean=lean, workspace=workspace),
                SearchLibrary(library=self.library),
                ReadLibrary(library=self.library),
            )
            yield Toolbox(tools, workspace, self.limits)
