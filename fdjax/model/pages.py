"""Keys and values of the tokens seen so far, in pages that rows share."""

from jaxtyping import Array, Float

__all__ = ["Pages"]

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
