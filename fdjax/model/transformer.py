"""The decoder: stacked blocks under one scan, as pure functions of `params`."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Int32

from fdjax.errors import ConfigError
from fdjax.model.blocks import Block, Ends, recomputed
from fdjax.model.config import ModelConfig
from fdjax.model.kernels import Attend, choose_attention
from fdjax.model.paged import PagedAttention
from fdjax.model.pages import Pages
from fdjax.model.rope import rope_angles
from fdjax.model.spread import spread_rows
from fdjax.ops import head_logits

__all__ = ["Model"]


@dataclass(frozen=True)
class Model:
    """A decoder as pure functions; `params` is a nested dict of arrays.

    Products of the blocks take adapters as well (`fdjax.model.adapt`).
    `params["layers"]` holds the blocks stacked on a leading axis. Everywhere `valid`
    is False on padding, which may stand on either side; a token's position counts the
    valid tokens of its sequence before it. Padding ids change nothing.
    """

    config: ModelConfig
    mesh: Mesh | None = None
    """Devices over which attention kernels are cut (`fdjax.model.kernels`), and the
    rows of `hidden` (`fdjax.model.spread`); else what XLA compiles is cut as its
    arguments are, with or without."""

    @cached_property
    def _graphs(self) -> tuple[Any, Any]:
        """Graph definitions of a block and of the ends, split off once."""
        block, ends = self._modules
        return nnx.graphdef(block), nnx.graphdef(ends)

    @cached_property
    def _modules(self) -> tuple[Block, Ends]:
        """A block and the ends with shapes in place of arrays."""
        return (
            nnx.eval_shape(lambda: Block(self.config, nnx.Rngs(0))),
            nnx.eval_shape(lambda: Ends(self.config, nnx.Rngs(0))),
        )

    @cached_property
    def _attend(self) -> Attend:
        return choose_attention(self.config, self.mesh)

    @cached_property
    def _paged(self) -> PagedAttention:
        return PagedAttention.choose(self.config, self.mesh)

    def init(self, key: jax.Array) -> Any:
        """Fresh float32 parameters: fan-in normal weights, residual branches / √(2L).

        Args:
          key: typed PRNG key.
        """
        ends_key, layers_key = jax.random.split(key)

        def block(key: jax.Array) -> Any:
            return nnx.to_pure_dict(nnx.state(Block(self.config, nnx.Rngs(key))))

        ends = nnx.to_pure_dict(nnx.state(Ends(self.config, nnx.Rngs(ends_key))))
        keys = jax.random.split(layers_key, self.config.num_layers)
        return {**ends, "layers": jax.vmap(block)(keys)}

    def logical_axes(self) -> Any:
        """For each parameter, the tuple of its axes' logical names.

        Names: layer, vocab, embed, heads, kv_heads, head_dim, mlp.
        """
        block, ends = (
            nnx.to_pure_dict(
                jax.tree.map(
                    lambda param: param.get_metadata("axes"),
                    nnx.state(module),
                    is_leaf=lambda leaf: isinstance(leaf, nnx.Param),
                )
            )
            for module in self._modules
        )
        layers = jax.tree.map(
            lambda axes: ("layer", *axes), block, is_leaf=lambda x: isinstance(x, tuple)
        )
        return {**ends, "layers": layers}

    def apply(
        self,
        params: Any,
        tokens: Int[Array, "B T"],
        *,
        valid: Bool[Array, "B T"],
        segments: Int[Array, "B T"] | None = None,
    ) -> Float[Array, "B T V"]:
        """Logits of the token after each position, float32; arguments of `hidden`."""
        return self.head(
            params, self.hidden(params, tokens, valid=valid, segments=segments)
        )

    def hidden(
        self,
        params: Any,
        tokens: Int[Array, "B T"],
        *,
        valid: Bool[Array, "B T"],
        segments: Int[Array, "B T"] | None = None,
        positions: Int[Array, "B T"] | None = None,
    ) -> Float[Array, "B T D"]:
        """What `head` reads: the residual stream after the last norm.

        Args:
          params: of `init`, or loaded.
          tokens: ids below the vocabulary size, others make their rows NaN; anything
            where not valid.
          valid: False on padding.
          segments: for rows packed with several sequences, the id of each token's,
            at least 0; equal ids stand side by side. Sequences do not see one another.
          positions: for RoPE; the count of valid tokens of the sequence before each
            by default.

        Raises:
          ConfigError: there are more tokens than the model has positions.
        """
        if positions is None:
            positions = _positions(valid, segments)
        if segments is None:
            segments = jnp.zeros_like(tokens)
        config = self.config
        if tokens.shape[1] > config.max_position_embeddings:
            raise ConfigError(
                "expected at most max_position_embeddings = "
                f"{config.max_position_embeddings} tokens, got {tokens.shape[1]}"
            )
        angles = self._angles(positions)
        # Padding is a sequence of its own, which no token sees.
        seen = jnp.where(valid, segments + 1, 0)

        def layer(x: jax.Array, block_params: Any) -> tuple[jax.Array, None]:
            block = nnx.merge(self._graphs[0], block_params)
            query, key, value = block.attention.project(block.attention_norm(x), angles)
            mixed = block.attention.mix(self._attend(query, key, value, segments=seen))
            x = spread_rows(x + mixed, self.mesh)
            return spread_rows(x + block.mlp(block.mlp_norm(x)), self.mesh), None

        x = spread_rows(self._embed(params, tokens, valid), self.mesh)
        x, _ = jax.lax.scan(
            recomputed(layer, config), x, params["layers"], unroll=config.unroll
        )
        return spread_rows(self._last_norm(params, x), self.mesh)

    def head(
        self, params: Any, hidden: Float[Array, "*batch D"]
    ) -> Float[Array, "*batch V"]:
        """Logits of hidden states, float32."""
        return head_logits(hidden, self.output_embeddings(params))

    def output_embeddings(self, params: Any) -> Float[Array, "V D"]:
        """The table that `head` multiplies with, for losses that take it themselves."""
        return params["embedding" if self.config.tie_word_embeddings else "head"]

    def init_pages(self, count: int, page: int) -> Pages:
        """Empty pages for `extend`: `count` a layer, of `page` tokens, in each part."""
        config = self.config
        return self._paged.init(
            config.num_layers * count,
            page,
            kv_heads=config.num_kv_heads,
            size=config.head_dim,
            dtype=self._dtype,
        )

    def extend(
        self,
        params: Any,
        pages: Pages,
        tokens: Int[Array, "B Q"],
        *,
        tables: Int32[Array, "B P"],
        starts: Int32[Array, " B"],
    ) -> tuple[Float[Array, "B Q D"], Pages]:
        """Appends tokens to rows whose keys and values lie in pages.

        All rows are written before any is read: they may be pages of one sequence.

        Args:
          params: of `init`; "layers" may be a list with each layer's own instead.
          pages: of `init_pages`.
          tokens: one a row, or a page a row, to be written to a page of its own: what
            is appended behind a row's end is overwritten by what comes there next.
          tables: pages of each row in order, of the row's own part of the mesh.
          starts: tokens of each row so far; a multiple of the page for a page a row.

        Returns:
          What `head` reads, at each token, and the pages.
        """
        positions = starts[:, None] + jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]
        angles = self._angles(positions)

        def layer(carry: Any, inputs: Any) -> tuple[Any, None]:
            x, pages = carry
            index, block_params = inputs
            block = nnx.merge(self._graphs[0], block_params)
            query, key, value = block.attention.project(block.attention_norm(x), angles)
            own = tables + index * (pages.shape[1] // self.config.num_layers)
            heads, pages = self._paged(query, key, value, pages, own, starts)
            x += block.attention.mix(heads)
            return (x + block.mlp(block.mlp_norm(x)), pages), None

        carry = self._embed(params, tokens, jnp.ones(tokens.shape, bool)), pages
        if isinstance(params["layers"], list):
            for inputs in enumerate(params["layers"]):
                carry, _ = layer(carry, inputs)
        else:
            count = jnp.arange(self.config.num_layers, dtype=jnp.int32)
            carry, _ = jax.lax.scan(
                layer, carry, (count, params["layers"]), unroll=self.config.unroll
            )
        x, pages = carry
        return self._last_norm(params, x), pages

    @property
    def _dtype(self) -> Any:
        return jnp.dtype(self.config.dtype)

    def _embed(self, params: Any, tokens: jax.Array, valid: jax.Array) -> jax.Array:
        # Padding reads token 0, whatever id it carries: it is inert to the last bit.
        tokens = jnp.where(valid, tokens, 0)
        rows = params["embedding"][tokens].astype(self._dtype)
        # Indexing takes the nearest row for an id outside the table, in silence.
        known = (tokens >= 0) & (tokens < self.config.vocab_size)
        return jnp.where(known[..., None], rows, jnp.nan)

    def _last_norm(self, params: Any, x: jax.Array) -> jax.Array:
        ends = {name: leaf for name, leaf in params.items() if name != "layers"}
        return nnx.merge(self._graphs[1], ends).norm(x)

    def _angles(self, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
        config = self.config
        return rope_angles(
            positions,
            head_dim=config.head_dim,
            theta=config.rope_theta,
            scaling=config.rope_scaling,
        )


def _positions(
    valid: Bool[Array, "B T"], segments: Int[Array, "B T"] | None
) -> Int[Array, "B T"]:
    """The number of valid tokens of the same sequence before each token."""
    counted = jnp.cumsum(valid, axis=1, dtype=jnp.int32)
    if segments is None:
        # Of constant segments, XLA computes the maxima below while it compiles: with
        # the widths of an 8B's step that takes most of a minute.
        return counted - 1
    begins = jnp.diff(segments, axis=1, prepend=segments[:, :1]) != 0
    before = counted - valid.astype(jnp.int32)
    return counted - 1 - jax.lax.cummax(jnp.where(begins, before, 0), axis=1)
