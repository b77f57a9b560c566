"""Completions of a batch of prompts: one prefill, then a step for each token."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float32, Int, Int32

from fdjax.errors import ConfigError, DataError
from fdjax.model import Cache, Model
from fdjax.sampling.logits import keep_top_k, keep_top_p, scale_temperature
from fdjax.sharding import batch_sharding

__all__ = ["Completions", "Generate", "SamplingConfig", "make_generate"]


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How tokens are drawn, and when a row ends."""

    max_new_tokens: int
    """T, tokens after which a row ends unfinished."""
    temperature: float = 1.0
    """Divides the logits; positive. Greedy decoding is `top_k=1`."""
    top_p: float = 1.0
    """Probability mass of the nucleus; 1 keeps all."""
    top_k: int = 0
    """Most probable tokens that are kept; 0 keeps all."""
    stop_tokens: tuple[int, ...] = ()
    """Tokens that end a row; the stop token itself belongs to the row."""
    pad_token: int = 0
    """Fills the row after its end."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(
                f"expected max_new_tokens to be at least 1, got {self.max_new_tokens}"
            )
        if not self.temperature > 0:
            raise ConfigError(
                f"expected a positive temperature, got {self.temperature}: for greedy "
                "decoding set top_k=1"
            )
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"expected top_p in (0, 1], got {self.top_p}")
        if self.top_k < 0:
            raise ConfigError(f"expected top_k >= 0 (0 keeps all), got {self.top_k}")


class Completions(NamedTuple):
    """Sampled rows and what the sampler knew about each token."""

    tokens: Int32[Array | np.ndarray, "B T"]
    """Sampled tokens, then `pad_token`."""
    mask: Bool[Array | np.ndarray, "B T"]
    """True on sampled tokens, the stop token included."""
    logprobs: Float32[Array | np.ndarray, "B T"]
    """Log-probability, nats, of the token under the distribution it was drawn from,
    after temperature, top-k and top-p; 0 outside the mask."""
    entropy: Float32[Array | np.ndarray, "B T"]
    """Entropy, nats, of the temperature-scaled distribution before top-k and top-p; 0
    outside the mask."""
    finished: Bool[Array | np.ndarray, " B"]
    """Whether the row ended with a stop token."""


@runtime_checkable
class Generate(Protocol):
    """What `make_generate` returns."""

    def __call__(
        self,
        params: Any,
        prompts: Int[Array | np.ndarray, "P S"],
        prompt_valid: Bool[Array | np.ndarray, "P S"],
        key: jax.Array,
        *,
        samples_per_prompt: int = 1,
    ) -> Completions:
        """Samples `samples_per_prompt` completions of each left-padded prompt."""
        ...


class _State(NamedTuple):
    """What the decoding loop carries."""

    step: Int32[Array, ""]
    cache: Cache
    token: Int32[Array, " B"]
    active: Bool[Array, " B"]
    rows: Completions


def make_generate(
    model: Model, config: SamplingConfig, mesh: Mesh | None = None
) -> Generate:
    """Builds `generate(params, prompts, prompt_valid, key, *, samples_per_prompt=1)`.

    Row b of the result is sample b mod G of prompt b // G, where G is
    `samples_per_prompt`; the prompt is read once and its cache shared. Row b draws its
    n-th token with `fold_in(fold_in(key, b), n)`: the same key gives the same tokens,
    and a row depends on its index and its prompt but on no other row. (To the last bit
    of the logits: a matrix product may round differently in a batch of another size.)

    The loop ends as soon as all rows have. One compilation for each shape and G.

    Args:
      model: the decoder.
      config: how to sample.
      mesh: the work is cut over its batch axes, filled up with copies of the last
        prompt where they do not divide; every process gets all completions. Without a
        mesh everything happens where the parameters are.
    """
    layout = None if mesh is None else batch_sharding(mesh)
    run = jax.jit(
        partial(_generate, model, config),
        static_argnames="samples_per_prompt",
        out_shardings=layout,
    )
    first_rows = jax.jit(
        lambda rows, count: jax.tree.map(lambda field: field[:count], rows),
        static_argnums=1,
        out_shardings=None if mesh is None else NamedSharding(mesh, PartitionSpec()),
    )

    def generate(
        params: Any,
        prompts: Int[Array | np.ndarray, "P S"],
        prompt_valid: Bool[Array | np.ndarray, "P S"],
        key: jax.Array,
        *,
        samples_per_prompt: int = 1,
    ) -> Completions:
        longest = prompts.shape[1] + config.max_new_tokens
        if longest > model.config.max_position_embeddings:
            raise DataError(
                f"expected prompt and completion to fit the model's "
                f"{model.config.max_position_embeddings} positions, got "
                f"{prompts.shape[1]} + {config.max_new_tokens} tokens"
            )
        count = prompts.shape[0]
        if mesh is not None:
            spare = -count % (mesh.size // mesh.shape["tensor"])
            prompts, prompt_valid = (
                np.concatenate([array, np.repeat(array[-1:], spare, axis=0)])
                for array in (prompts, prompt_valid)
            )
        prompts, prompt_valid = jax.device_put((prompts, prompt_valid), layout)
        rows = run(
            params, prompts, prompt_valid, key, samples_per_prompt=samples_per_prompt
        )
        return first_rows(rows, count * samples_per_prompt)

    return generate


def _generate(
    model: Model,
    config: SamplingConfig,
    params: Any,
    prompts: Int[Array, "P S"],
    prompt_valid: Bool[Array, "P S"],
    key: jax.Array,
    *,
    samples_per_prompt: int,
) -> Completions:
    logits, cache = model.prefill(
        params,
        prompts,
        valid=prompt_valid,
        # The last token is sampled but never read. XLA rejects a write to no slots.
        slots=max(config.max_new_tokens - 1, 1),
        samples_per_prompt=samples_per_prompt,
    )
    batch = logits.shape[0]
    row_keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(batch))
    shape = (batch, config.max_new_tokens)
    rows = Completions(
        tokens=jnp.full(shape, config.pad_token, jnp.int32),
        mask=jnp.zeros(shape, bool),
        logprobs=jnp.zeros(shape, jnp.float32),
        entropy=jnp.zeros(shape, jnp.float32),
        finished=jnp.zeros((batch,), bool),
    )

    def draw(state: _State, logits: Float32[Array, "B V"]) -> _State:
        """Appends one token to each active row."""
        keys = jax.vmap(partial(jax.random.fold_in, data=state.step))(row_keys)
        token, logprob, entropy = _sample(keys, logits, config)
        stop = jnp.isin(token, jnp.array(config.stop_tokens, jnp.int32))
        old, active = state.rows, state.active
        rows = Completions(
            tokens=_put(old.tokens, state.step, active, token),
            mask=_put(old.mask, state.step, active, active),
            logprobs=_put(old.logprobs, state.step, active, logprob),
            entropy=_put(old.entropy, state.step, active, entropy),
            finished=old.finished | (active & stop),
        )
        return state._replace(
            step=state.step + 1, token=token, active=active & ~stop, rows=rows
        )

    def proceed(state: _State) -> _State:
        logits, cache = model.decode(
            params, state.cache, state.token, valid=state.active
        )
        return draw(state._replace(cache=cache), logits)

    def unfinished(state: _State) -> Bool[Array, ""]:
        return (state.step < config.max_new_tokens) & state.active.any()

    start = _State(
        step=jnp.zeros((), jnp.int32),
        cache=cache,
        token=jnp.zeros((batch,), jnp.int32),
        active=jnp.ones((batch,), bool),
        rows=rows,
    )
    return jax.lax.while_loop(unfinished, proceed, draw(start, logits)).rows


def _put(column: Array | np.ndarray, step: Array, active: Array, new: Array) -> Array:
    """`column` [B, T] with `new` [B] at `step` of the active rows."""
    old = jax.lax.dynamic_index_in_dim(column, step, axis=1, keepdims=False)
    return jax.lax.dynamic_update_index_in_dim(
        column, jnp.where(active, new, old), step, axis=1
    )


def _sample(
    keys: Array, logits: Float32[Array, "B V"], config: SamplingConfig
) -> tuple[Int32[Array, " B"], Float32[Array, " B"], Float32[Array, " B"]]:
    """A token of each row with its own key, its log-probability and the entropy."""
    # Subtracting the largest first keeps rounding small at low temperatures.
    below = logits - logits.max(axis=-1, keepdims=True)
    whole = jax.nn.log_softmax(scale_temperature(below, config.temperature), axis=-1)
    entropy = -jnp.sum(jnp.exp(whole) * whole, axis=-1)
    kept = whole
    if config.top_k:
        kept = keep_top_k(kept, config.top_k)
    if config.top_p < 1.0:
        kept = keep_top_p(kept, config.top_p)
    if kept is not whole:
        kept = jax.nn.log_softmax(kept, axis=-1)
    noise = jax.vmap(partial(jax.random.gumbel, shape=logits.shape[-1:]))(keys)
    token = _argmax(kept + noise)
    logprob = jnp.take_along_axis(kept, token[:, None], axis=-1)[:, 0]
    return token, logprob, entropy


def _argmax(scores: Float32[Array, "B V"]) -> Int32[Array, " B"]:
    """First index of each row's maximum, from two plain reductions.

    XLA's CPU compiler does not vectorise the paired reduction of `jnp.argmax`.
    """
    size = scores.shape[-1]
    index = jnp.arange(size, dtype=jnp.int32)[None]
    best = scores == scores.max(axis=-1, keepdims=True)
    # A row of NaN has no best; the last token stands in, its log-probability is NaN.
    return jnp.min(jnp.where(best, index, size - 1), axis=-1)
