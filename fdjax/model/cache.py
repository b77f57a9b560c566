"""Keys and values of the tokens seen so far: by row, or in pages that rows share."""

from typing import NamedTuple

from jaxtyping import Array, Bool, Float, Int32

__all__ = ["Cache", "Pages"]

Pages = Float[Array, "G Z 2 M X"] | Float[Array, "G Z page E H"]
"""Keys and values of G parts of a mesh's batch, in pages: one array for all layers.

Page z of layer l of a part with n pages a layer is [l·n + z]; page 0 of a layer is
nobody's, and takes what is written for no row. Keys are those after RoPE.
`Model.extend` writes and reads pages in one of two layouts:

- [2, M, H·page]: keys of each head as [H, page], values as [page, H]. Both are then
  dense matrices that a processor multiplies with as they are.
- [page, E, H], of JAX's ragged paged attention for TPU: of a token's E = 2M entries the
  even ones are keys, the odd ones values.
"""


class Cache(NamedTuple):
    """KV cache of B = P·G rows, G of which continue each of P prompts.

    A prompt is stored once and read by its whole group (arXiv:2402.05099), in row
    order: row b continues prompt b // G. New tokens go to the slots, one per step, the
    same slot in all rows.
    """

    prompt_keys: Float[Array, "L P M S H"]
    """Keys of the prompts, after RoPE."""
    prompt_values: Float[Array, "L P M S H"]
    """Values of the prompts."""
    prompt_valid: Bool[Array, "P S"]
    """False where a prompt is padding."""
    keys: Float[Array, "L B M T H"]
    """Keys of the slots, after RoPE."""
    values: Float[Array, "L B M T H"]
    """Values of the slots."""
    valid: Bool[Array, "B T"]
    """True where a slot holds a token."""
    positions: Int32[Array, " B"]
    """Position of each row's next token."""
    used: Int32[Array, ""]
    """Slots written."""

    @property
    def slots(self) -> int:
        """T, the tokens that can be decoded."""
        return self.valid.shape[1]
