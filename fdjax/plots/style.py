"""Names, colours and markers of arms, the same in every figure and table."""

from typing import NamedTuple

__all__ = ["COLOURS", "STATUS_COLOURS", "ArmStyle", "arm_label", "arm_styles"]

# Okabe and Ito's colours for all kinds of colour vision, with a neutral one first
# and the pale ones darkened to stand on white.
COLOURS = (
    ("#6b7280", "#a7b0bd"),
    ("#d55e00", "#f5924a"),
    ("#0072b2", "#5db3ec"),
    ("#009e73", "#3fd0a8"),
    ("#b0508f", "#e592c6"),
    ("#a07800", "#e6b94a"),
    ("#2f97d6", "#9adcff"),
)
"""Of lines, each on a white background and on a dark one."""
STATUS_COLOURS = {
    "verified": "#12946a",
    "rejected": "#c5cad1",
    "timeout": "#d99a1c",
    "unsafe": "#a44fb5",
    "crashed": "#c8372d",
}
"""Of verdicts, on a white background; report.css has those for a dark one."""
_MARKERS = ("o", "s", "D", "^", "v", "P", "X")
_ACRONYMS = frozenset({"ema", "fd", "grpo", "jsd", "kl", "llm", "rl", "sft"})


class ArmStyle(NamedTuple):
    """How an arm is drawn."""

    arm: str
    """Name in the files."""
    label: str
    """Name for people."""
    colour: str
    """Colour on a white background, as #rrggbb."""
    dark_colour: str
    """Colour on a dark background, as #rrggbb."""
    marker: str
    """Matplotlib marker."""
    place: int
    """Place of its colours in `COLOURS`."""


def arm_label(arm: str) -> str:
    """The arm's name for people: `fd_then_grpo` becomes `FD→GRPO`.

    >>> arm_label("sft_references")
    'SFT references'
    """
    words = [
        word.upper() if word in _ACRONYMS else word for word in arm.split("_") if word
    ]
    return " ".join(words).replace(" then ", "→") or arm


def arm_styles(arms: list[str]) -> dict[str, ArmStyle]:
    """A style for each arm; colours repeat after seven arms.

    Args:
      arms: names in the order of the tables.
    """
    styles = {}
    for place, arm in enumerate(arms):
        place %= len(COLOURS)
        styles[arm] = ArmStyle(
            arm, arm_label(arm), *COLOURS[place], _MARKERS[place], place
        )
    return styles
