"""Tools that a model may call in an episode; see `docs/episodes.md`. No JAX."""

from fdjax.tools.lean_tools import LEAN_TOOLS, LeanTools
from fdjax.tools.library import Library
from fdjax.tools.tool import Parameter, Tool, ToolError, ToolSpec
from fdjax.tools.toolbox import CallLimits, Observation, Toolbox
from fdjax.tools.workspace import Workspace

__all__ = [
    "LEAN_TOOLS",
    "CallLimits",
    "LeanTools",
    "Library",
    "Observation",
    "Parameter",
    "Tool",
    "ToolError",
    "ToolSpec",
    "Toolbox",
    "Workspace",
]
