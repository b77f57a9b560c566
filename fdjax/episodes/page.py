"""An episode as people read it: every token, and which of them are trained on."""

from itertools import groupby
from typing import cast

from transformers import PreTrainedTokenizerFast

from fdjax.episodes.records import Episode

__all__ = ["episode_text"]

_NAMES = {"user": "prompt", "assistant": "the policy", "tool": "between turns"}
_OWN, _OTHER = "▌ ", "  "


def episode_text(tokenizer: PreTrainedTokenizerFast, episode: Episode) -> str:
    """The whole conversation with control tokens; lines of the policy's are marked.

    Turns begin and end with tokens, so the marks are the mask. Under them stands the
    mask itself, as runs of 0 and 1.
    """
    parts = []
    for number, turn in enumerate(episode.turns):
        own = turn.role == "assistant"
        ids = turn.tokens.tolist()
        text = cast(str, tokenizer.decode(ids, skip_special_tokens=False))
        mark = _OWN if own else _OTHER
        parts.append(
            f"── {number} · {_NAMES[turn.role]} · {len(turn.tokens)} tokens · mask "
            f"{int(own)}"
        )
        parts += [f"{mark}{line}".rstrip() for line in text.split("\n")]
    row = episode.row
    runs = [f"{len(list(run))}×{int(own)}" for own, run in groupby(row.mask.tolist())]
    mask = " ".join([f"{len(episode.prompt)}×0", *runs])
    judged = "the file written last" if episode.from_file else "the last turn"
    parts.append(f"── ended: {episode.ended} · judged: {judged} · mask: {mask}")
    return "\n".join(parts)
