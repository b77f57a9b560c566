"""Strings that end a row, found in the text of what was drawn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32

from fdjax.errors import ConfigError

__all__ = ["StopStrings"]


@dataclass(frozen=True, kw_only=True)
class StopStrings:
    """Ends a row with the token that completes one of some strings.

    What was drawn behind that token is dropped: devices look at tokens alone, and draw
    on until the host looks at the text (`SlotsConfig.steps`).
    """

    strings: tuple[str, ...]
    decode: Callable[[Sequence[int]], str]
    """Text of token ids, such as a tokenizer's `decode`."""

    def __post_init__(self) -> None:
        if not self.strings or not all(self.strings):
            raise ConfigError(
                f"expected StopStrings.strings that are not empty, got {self.strings}"
            )

    def end(self, tokens: Int32[np.ndarray, " N"]) -> int | None:
        """How many tokens there are up to the end of the first string, if any is there.

        Args:
          tokens: all that a row has drawn.
        """
        if not self._found(tokens):
            return None
        least, most = 1, len(tokens)
        while least < most:
            middle = (least + most) // 2
            if self._found(tokens[:middle]):
                most = middle
            else:
                least = middle + 1
        return least

    def _found(self, tokens: Int32[np.ndarray, " N"]) -> bool:
        text = self.decode(tokens.tolist())
        return any(string in text for string in self.strings)
