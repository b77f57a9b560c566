"""Tools that run Lean: on code, on a file that is written, on one that was."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fdjax.tools.citations import Citations
from fdjax.tools.elaborator import Elaborator
from fdjax.tools.messages import messages_text
from fdjax.tools.tool import Parameter, ToolSpec
from fdjax.tools.workspace import FILE_BYTES, Workspace

__all__ = [
    "CHECK_FILE",
    "RUN_LEAN",
    "WRITE_FILE",
    "CheckFile",
    "RunLean",
    "WriteFile",
]

_PATH = Parameter(
    name="path",
    type="string",
    description="Name of the file, such as proof.lean.",
    most=200,
)


RUN_LEAN = ToolSpec(
    name="run_lean",
    description=(
        "Run Lean 4 code and read Lean's messages. Use it to try a tactic, or "
        "`#check` a lemma. The code is not kept."
    ),
    parameters=(
        Parameter(
            name="code",
            type="string",
            description="A whole Lean file, imports included.",
            most=FILE_BYTES,
        ),
    ),
)


@dataclass(frozen=True, kw_only=True)
class RunLean:
    """Elaborates code that is not kept."""

    lean: Elaborator
    spec: ToolSpec = RUN_LEAN

    async def call(self, arguments: Mapping[str, Any]) -> str:
        """Lean's messages (`Tool`)."""
        [found] = await self.lean.elaborate([arguments["code"]])
        return messages_text("code", found)


WRITE_FILE = ToolSpec(
    name="write_file",
    description=(
        "Write a Lean 4 file and compile it; read Lean's messages. The file that "
        "is written last counts as your answer where your last message has none."
    ),
    parameters=(
        _PATH,
        Parameter(
            name="content",
            type="string",
            description="The whole file, imports included.",
            most=FILE_BYTES,
        ),
    ),
)


@dataclass(frozen=True, kw_only=True)
class WriteFile:
    """Writes a file of the workspace and elaborates it."""

    lean: Elaborator
    workspace: Workspace
    spec: ToolSpec = WRITE_FILE

    async def call(self, arguments: Mapping[str, Any]) -> str:
        """Lean's messages (`Tool`)."""
        path, content = arguments["path"], arguments["content"]
        self.workspace.write(path, content)
        [found] = await self.lean.elaborate([content])
        return f"Wrote {path}. {messages_text(path, found)}"


CHECK_FILE = ToolSpec(
    name="check_file",
    description=(
        "Compile a Lean 4 file that you wrote; read Lean's messages, and which of "
        "the lemmas that it cites exist."
    ),
    parameters=(_PATH,),
)


@dataclass(frozen=True, kw_only=True)
class CheckFile:
    """Elaborates a file of the workspace and looks up the lemmas that it cites."""

    lean: Elaborator
    workspace: Workspace
    spec: ToolSpec = CHECK_FILE

    async def call(self, arguments: Mapping[str, Any]) -> str:
        """Lean's messages, then what was found about the names (`Tool`)."""
        path = arguments["path"]
        text = self.workspace.read(path)
        cited = Citations.of(text)
        sources = [text, cited.source] if cited.readings else [text]
        found, *looked_up = await self.lean.elaborate(sources)
        said = messages_text(path, found)
        if not looked_up:
            return f"{said}\nIt cites no lemmas by name."
        return f"{said}\n{cited.text(looked_up[0])}"
