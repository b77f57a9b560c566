"""Completions of a batch of prompts: one prefill, then a step for each token."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float32, Int, Int32, Key

from fdjax.errors import ConfigError, DataError
from fdjax.model import Cache, Model
from fdjax.ranges import Whole, require
from fdjax.sampling.config import SamplingConfig
from fdjax.sampling.draw import draw
from fdjax.sharding import batch_sharding

__all__ = ["Completions", "Generate", "make_generate"]


class Completions(NamedTuple):
    """Sampled rows and what the sampler knew about each token.

    Top-k, top-p and min-p cut the policy's distribution, so a token has two
    log-probabilities.
    """

    tokens: Int32[Array | np.ndarray, "B T"]
    """Sampled tokens, then `pad_token`."""
    mask: Bool[Array | np.ndarray, "B T"]
    """True on sampled tokens, the stop token included."""
    logprobs: Float32[Array | np.ndarray, "B T"]
    """Log-probability, nats, of the token under the policy: softmax(logits / τ) of the
    whole vocabulary, as `ops.token_logprobs` has it. The losses' `old_logprobs`: their
    ratio is 1 on policy whatever was cut. 0 outside the mask."""
    entropy: Float32[Array | np.ndarray, "B T"]
    """Entropy, nats, of the policy at τ, before any cut; 0 outside the mask."""
    finished: Bool[Array | np.ndarray, " B"]
    """Whether the row ended with a stop token."""
    behaviour_logprobs: Float32[Array | np.ndarray, "B T"] | None = None
    """Log-probability, nats, of the token under the distribution it was drawn from:
    the policy cut by top-k, top-p and min-p and normalised anew. More than `logprobs`
    where something was cut, else the same. 0 outside the mask; None where the sampler
    does not say."""
    sampling: SamplingConfig | None = None
    """How they were drawn, τ among it; no leaf of the tree. Unknown with None: then no
    objective can check its temperature."""


@runtime_checkable
class Generate(Protocol):
    """What `make_generate` returns."""

    def __call__(
        self,
        params: Any,
        prompts: Int[Array | np.ndarray, "P S"],
        prompt_valid: Bool[Array | np.ndarray, "P S"],
        key: Key[Array, ""] | Key[Array, " P"],
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
    With a key for each prompt, [P], its sample g has `fold_in(key[b // G], g)` instead:
    then a row does not depend on its index either.

    The loop ends as soon as all rows have. One compilation for each shape and G, shared
    by all that was made from an equal model, config and mesh; the key may come from
    anywhere, parameters that lie elsewhere are another program.

    Args:
      model: the decoder.
      config: how to sample.
      mesh: the work is cut over its batch axes, filled up with copies of the last
        prompt where they do not divide; every process gets all completions. Without a
        mesh everything happens where the parameters are.

    Raises:
      ConfigError: a stop token or the padding is not in the model's vocabulary.
    """
    size = model.config.vocab_size
    if beyond := {t for t in (*config.stop_tokens, config.pad_token) if t >= size}:
        raise ConfigError(
            f"expected stop_tokens and pad_token below the model's vocabulary size, "
            f"{size}, got {sorted(beyond)}: they are those of another tokenizer"
        )
    layout = None if mesh is None else batch_sharding(mesh)
    run = _program(model, config, mesh)

    def generate(
        params: Any,
        prompts: Int[Array | np.ndarray, "P S"],
        prompt_valid: Bool[Array | np.ndarray, "P S"],
        key: Key[Array, ""] | Key[Array, " P"],
        *,
        samples_per_prompt: int = 1,
    ) -> Completions:
        require("samples_per_prompt", samples_per_prompt, Whole(1))
        host = jax.device_get((prompts, prompt_valid))
        _check_prompts(model, config, *host)
        count, spare = prompts.shape[0], 0
        if mesh is not None:
            spare = -count % (mesh.size // mesh.shape["tensor"])
            host = tuple(_filled(array, spare) for array in host)
        rows = run(
            params,
            *jax.device_put(host, layout),
            _unplaced(key, count, spare),
            samples_per_prompt=samples_per_prompt,
        )
        if mesh is None:
            return rows
        return _first_rows(mesh)(rows, count * samples_per_prompt)

    return generate


@cache
def _program(
    model: Model, config: SamplingConfig, mesh: Mesh | None
) -> Callable[..., Completions]:
    """Jitted `_generate`: one for equal arguments, since each jit compiles its own."""
    return jax.jit(
        partial(_generate, model, config),
        static_argnames="samples_per_prompt",
        out_shardings=None if mesh is None else batch_sharding(mesh),
    )


@cache
def _first_rows(mesh: Mesh) -> Callable[[Completions, int], Completions]:
    """Jitted `(rows, count)`: the first rows of all over the mesh, on every device."""
    return jax.jit(
        lambda rows, count: jax.tree.map(lambda field: field[:count], rows),
        static_argnums=1,
        out_shardings=NamedSharding(mesh, PartitionSpec()),
    )


def _filled(array: np.ndarray, spare: int) -> np.ndarray:
    """The array with its last row so many times more."""
    return np.concatenate([array, np.repeat(array[-1:], spare, axis=0)])


def _unplaced(
    key: Array, prompts: int, spare: int
) -> Key[Array, ""] | Key[Array, " P"]:
    """The key or keys, bound to no device: those on a mesh would be another program.

    Args:
      key: typed.
      prompts: how many there are.
      spare: how many more copies of the last one.

    Raises:
      ConfigError: it is neither one typed key nor one for each prompt.
    """
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if not typed or key.shape not in ((), (prompts,)):
        raise ConfigError(
            "expected one typed PRNG key, such as jax.random.key(0), or one for each "
            f"of {prompts} prompts, got {key.dtype}{list(key.shape)}"
        )
    data = np.asarray(jax.device_get(jax.random.key_data(key)))
    placed = jax.device_put(_filled(data, spare) if key.shape else data)
    return jax.random.wrap_key_data(placed, impl=jax.random.key_impl(key))


def _check_prompts(
    model: Model, config: SamplingConfig, prompts: np.ndarray, prompt_valid: np.ndarray
) -> None:
    """Raises DataError where prompts cannot be continued."""
    if prompts.dtype.kind not in "iu" or prompt_valid.dtype != bool:
        raise DataError(
            "expected prompts of integers and prompt_valid of booleans, got "
            f"{prompts.dtype} and {prompt_valid.dtype}"
        )
    if prompts.ndim != 2 or not prompts.size or prompts.shape != prompt_valid.shape:
        raise DataError(
            "expected prompts and prompt_valid [P, S] with at least one prompt and one "
            f"token, got {prompts.shape} and {prompt_valid.shape}"
        )
    size, most = model.config.vocab_size, model.config.max_position_embeddings
    if prompts.shape[1] + config.max_new_tokens > most:
        raise DataError(
            f"expected prompt and completion to fit the model's {most} positions, got "
            f"{prompts.shape[1]} + {config.max_new_tokens} tokens"
        )
    if rows := np.flatnonzero(~prompt_valid[:, -1]).tolist():
        raise DataError(
            "expected every prompt to end at the right edge, got no valid token there "
            f"in rows {rows[:8]}: pad on the left (data.packing.pad_left)"
        )
    beyond = prompts[prompt_valid & ((prompts < 0) | (prompts >= size))]
    if beyond.size:
        raise DataError(
            f"expected token ids from 0 to {size - 1}, the model's vocabulary, got "
            f"{np.unique(beyond)[:8].tolist()}: tokenizer and model do not belong "
            "together"
        )


def _generate(
    model: Model,
    config: SamplingConfig,
    params: Any,
    prompts: Int[Array, "P S"],
    prompt_valid: Bool[Array, "P S"],
    key: Key[Array, ""] | Key[Array, " P"],
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
    row_keys = _row_keys(key, batch, samples_per_prompt)
    temperature = jnp.full((batch,), config.temperature, jnp.float32)
    shape = (batch, config.max_new_tokens)
    rows = Completions(
        tokens=jnp.full(shape, config.pad_token, jnp.int32),
        mask=jnp.zeros(shape, bool),
        logprobs=jnp.zeros(shape, jnp.float32),
        behaviour_logprobs=jnp.zeros(shape, jnp.float32),
        entropy=jnp.zeros(shape, jnp.float32),
        finished=jnp.zeros((batch,), bool),
        sampling=config,
    )

    def append(state: _State, logits: Float32[Array, "B V"]) -> _State:
        """Appends one token to each active row."""
        keys = jax.vmap(partial(jax.random.fold_in, data=state.step))(row_keys)
        token, logprob, behaviour, entropy = draw(keys, logits, temperature, config)
        stop = jnp.isin(token, jnp.array(config.stop_tokens, jnp.int32))
        old, active = state.rows, state.active
        assert old.behaviour_logprobs is not None
        rows = Completions(
            tokens=_put(old.tokens, state.step, active, token),
            mask=_put(old.mask, state.step, active, active),
            logprobs=_put(old.logprobs, state.step, active, logprob),
            behaviour_logprobs=_put(
                old.behaviour_logprobs, state.step, active, behaviour
            ),
            entropy=_put(old.entropy, state.step, active, entropy),
            finished=old.finished | (active & stop),
            sampling=config,
        )
        return state._replace(
            step=state.step + 1, token=token, active=active & ~stop, rows=rows
        )

    def proceed(state: _State) -> _State:
        logits, cache = model.decode(
            params, state.cache, state.token, valid=state.active
        )
        return append(state._replace(cache=cache), logits)

    def unfinished(state: _State) -> Bool[Array, ""]:
        return (state.step < config.max_new_tokens) & state.active.any()

    start = _State(
        step=jnp.zeros((), jnp.int32),
        cache=cache,
        token=jnp.zeros((batch,), jnp.int32),
        active=jnp.ones((batch,), bool),
        rows=rows,
    )
    return jax.lax.while_loop(unfinished, proceed, append(start, logits)).rows


def _row_keys(
    key: Key[Array, ""] | Key[Array, " P"], batch: int, group: int
) -> Key[Array, " B"]:
    """A key for each row: by its index, or by its prompt's key and its place in it."""
    rows = jnp.arange(batch)
    if not key.shape:
        return jax.vmap(partial(jax.random.fold_in, key))(rows)
    return jax.vmap(jax.random.fold_in)(jnp.repeat(key, group), rows % group)


def _put(column: Array | np.ndarray, step: Array, active: Array, new: Array) -> Array:
    """`column` [B, T] with `new` [B] at `step` of the active rows."""
    old = jax.lax.dynamic_index_in_dim(column, step, axis=1, keepdims=False)
    return jax.lax.dynamic_update_index_in_dim(
        column, jnp.where(active, new, old), step, axis=1
    )
