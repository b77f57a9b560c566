"""What runs on the devices: blocks of prompts, and some steps of all slots."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float32, Int32, UInt32

from fdjax.model import Model, Pages, pages_sharding
from fdjax.sampling.config import SamplingConfig
from fdjax.sampling.draw import Drawn, draw
from fdjax.sharding import batch_sharding

__all__ = ["Blocks", "Slots", "decode_program", "prefill_program"]


class Blocks(NamedTuple):
    """Some pages of prompts; those of a part of the mesh side by side.

    Arrays of NumPy on the host.
    """

    tokens: Int32[Array, "B page"]
    starts: Int32[Array, " B"]
    """Position of each block's first token."""
    tables: Int32[Array, "B P"]
    ends: Int32[Array, " B"]
    """Index of each block's last token."""
    keys: UInt32[Array, "B words"]
    numbers: Int32[Array, " B"]
    """Of the token that follows, among those that its request draws."""
    temperature: Float32[Array, " B"]


class Slots(NamedTuple):
    """What decoding knows of each slot; arrays of NumPy on the host."""

    token: Int32[Array, " B"]
    """Drawn last, and not yet written."""
    length: Int32[Array, " B"]
    """Tokens written."""
    number: Int32[Array, " B"]
    """Of the token that follows, among those that its request draws."""
    budget: Int32[Array, " B"]
    """Tokens that its request may draw."""
    active: Bool[Array, " B"]
    temperature: Float32[Array, " B"]
    keys: UInt32[Array, "B words"]
    tables: Int32[Array, "B P"]


class _State(NamedTuple):
    """What the loop of decoding carries."""

    step: Int32[Array, ""]
    pages: Pages
    slots: Slots
    drawn: Drawn


@cache
def prefill_program(model: Model, config: SamplingConfig) -> Callable[..., Any]:
    """Jitted `(params, pages, blocks) -> (pages, Drawn [B])`; pages are donated."""
    return _jit(partial(_prefill, model, config), model, outputs=1)


@cache
def decode_program(
    model: Model, config: SamplingConfig, most: int
) -> Callable[..., Any]:
    """Jitted `(params, pages, slots, steps, wake)` to pages, Drawn [K, B], counts [B].

    Up to `steps` of at most K = `most` steps; with `wake` no more after one in which a
    row has ended. Pages are donated.
    """
    return _jit(partial(_decode, model, config, most), model, outputs=2)


def _jit(function: Callable[..., Any], model: Model, outputs: int) -> Any:
    """Jitted: pages stay where they are, all other outputs go to every device."""
    layout: Any = None
    if model.mesh is not None:
        whole = NamedSharding(model.mesh, PartitionSpec())
        layout = (pages_sharding(model.mesh), *[whole] * outputs)
    return jax.jit(function, donate_argnums=1, out_shardings=layout)


def _prefill(
    model: Model, config: SamplingConfig, params: Any, pages: Pages, blocks: Blocks
) -> tuple[Pages, Drawn]:
    blocks = _cut(model, blocks)
    hidden, pages = model.extend(
        params, pages, blocks.tokens, tables=blocks.tables, starts=blocks.starts
    )
    last = jnp.take_along_axis(hidden, blocks.ends[:, None, None], axis=1)[:, 0]
    drawn = draw(
        _token_keys(blocks.keys, blocks.numbers),
        model.head(params, last),
        blocks.temperature,
        config,
    )
    return pages, drawn


def _decode(
    model: Model,
    config: SamplingConfig,
    most: int,
    params: Any,
    pages: Pages,
    slots: Slots,
    steps: Int32[Array, ""],
    wake: Bool[Array, ""],
) -> tuple[Pages, Drawn, Int32[Array, " B"]]:
    slots = began = _cut(model, slots)
    stops = jnp.array(config.stop_tokens, jnp.int32)

    def proceed(state: _State) -> _State:
        now = state.slots
        # Rows that have ended write to the page that is nobody's.
        hidden, pages = model.extend(
            params,
            state.pages,
            now.token[:, None],
            tables=jnp.where(now.active[:, None], now.tables, 0),
            starts=jnp.where(now.active, now.length, 0),
        )
        new = draw(
            _token_keys(now.keys, now.number),
            model.head(params, hidden[:, 0]),
            now.temperature,
            config,
        )
        one = now.active.astype(jnp.int32)
        number = now.number + one
        ended = jnp.isin(new.token, stops) | (number >= now.budget)
        return _State(
            step=state.step + 1,
            pages=pages,
            slots=now._replace(
                token=jnp.where(now.active, new.token, now.token),
                length=now.length + one,
                number=number,
                active=now.active & ~ended,
            ),
            drawn=jax.tree.map(
                lambda rows, row: rows.at[state.step].set(row), state.drawn, new
            ),
        )

    def goes_on(state: _State) -> Bool[Array, ""]:
        active = state.slots.active
        ended = (began.active & ~active).any()
        return (state.step < steps) & active.any() & ~(wake & ended)

    shape = (most, *slots.token.shape)
    empty = jnp.zeros(shape, jnp.float32)
    start = _State(
        step=jnp.zeros((), jnp.int32),
        pages=pages,
        slots=slots,
        drawn=Drawn(jnp.zeros(shape, jnp.int32), empty, empty, empty),
    )
    end = jax.lax.while_loop(goes_on, proceed, start)
    return end.pages, end.drawn, end.slots.number - began.number


def _token_keys(words: UInt32[Array, "B words"], numbers: Int32[Array, " B"]) -> Array:
    return jax.vmap(jax.random.fold_in)(jax.random.wrap_key_data(words), numbers)


def _cut(model: Model, rows: Any) -> Any:
    """The same, each device of a mesh with its own part of the batch."""
    if model.mesh is None:
        return rows
    return jax.lax.with_sharding_constraint(rows, batch_sharding(model.mesh))
