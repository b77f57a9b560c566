"""How problems are put to a model and its answers are found; see `docs/formats.md`."""

from fdjax.data.formats.format import PromptFormat
from fdjax.data.formats.places import PLACES
from fdjax.data.formats.ready import (
    CHAT,
    CHAT_THINKING,
    COMPLETION,
    DEEPSEEK_V1,
    DEEPSEEK_V2,
    GOEDEL_V2,
    KIMINA,
    PLAIN,
    QWEN3,
    QWEN3_NO_THINKING,
)

__all__ = [
    "CHAT",
    "CHAT_THINKING",
    "COMPLETION",
    "DEEPSEEK_V1",
    "DEEPSEEK_V2",
    "GOEDEL_V2",
    "KIMINA",
    "PLACES",
    "PLAIN",
    "QWEN3",
    "QWEN3_NO_THINKING",
    "PromptFormat",
]
