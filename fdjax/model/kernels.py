"""Causal attention by the kernels that JAX ships, and the choice among them."""

from functools import lru_cache, partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import (
    BlockSizes,
    CausalMask,
    MultiHeadMask,
    SegmentIds,
    make_splash_mha,
)
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int

from fdjax.model.attention import causal_attention
from fdjax.model.config import AttentionKind, ModelConfig

__all__ = ["Attend", "choose_attention", "splash_attention"]

_LANES = 128
"""Width of a TPU vector register; splash attention needs multiples of it."""

_SPLASH_BLOCK = 512
"""Tokens of a block of queries and of keys."""

_CUDNN_HEAD_DIM = 128
"""Widest head of cuDNN's kernel on every GPU that has it."""


@runtime_checkable
class Attend(Protocol):
    """A causal pass: what `fdjax.model.attention.causal_attention` computes."""

    def __call__(
        self,
        query: Float[Array, "B T N H"],
        key: Float[Array, "B T M H"],
        value: Float[Array, "B T M H"],
        *,
        segments: Int[Array, "B T"],
    ) -> Float[Array, "B T N H"]:
        """Mixes values over the tokens of a segment up to each position."""
        ...


def choose_attention(config: ModelConfig, mesh: Mesh | None = None) -> Attend:
    """The causal pass that a model uses.

    `config.attention` is one of:
      reference: `causal_attention`, on every platform.
      xla: `jax.nn.dot_product_attention`, compiled by XLA.
      cudnn: the same by cuDNN's fused kernel, for bfloat16 on NVIDIA GPUs.
      splash: JAX's splash attention for TPU, interpreted elsewhere (slow: for tests).
      auto: splash on TPU; cudnn on a GPU where type and head allow; else reference.

    Args:
      config: of the model.
      mesh: kernels run on each of its devices over the device's own rows and heads;
        its devices' platform decides "auto", else JAX's default backend.
    """
    platform = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
    kind = config.attention
    if kind == "auto":
        kind = _automatic(config, platform)
    match kind:
        case "reference":
            return causal_attention
        case "xla" | "cudnn":
            return partial(_dot_product_attention, kind)
        case _:
            return partial(splash_attention, mesh=mesh, interpret=platform != "tpu")


def _automatic(config: ModelConfig, platform: str) -> AttentionKind:
    if platform == "tpu":
        return "splash"
    fits = config.head_dim % 8 == 0 and config.head_dim <= _CUDNN_HEAD_DIM
    if platform in ("gpu", "cuda") and config.dtype == "bfloat16" and fits:
        return "cudnn"
    return "reference"


def _dot_product_attention(
    implementation: Any,
    query: Float[Array, "B T N H"],
    key: Float[Array, "B T M H"],
    value: Float[Array, "B T M H"],
    *,
    segments: Int[Array, "B T"],
) -> Float[Array, "B T N H"]:
    same = segments[:, None, :, None] == segments[:, None, None, :]
    return jax.nn.dot_product_attention(
        query, key, value, mask=same, is_causal=True, implementation=implementation
    )


def splash_attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B T M H"],
    value: Float[Array, "B T M H"],
    *,
    segments: Int[Array, "B T"],
    mesh: Mesh | None = None,
    interpret: bool = False,
) -> Float[Array, "B T N H"]:
    """`causal_attention` by JAX's splash attention, forward and backward, for TPU.

    Sequences are filled up to whole blocks and heads to whole registers; neither
    changes the result.

    Args:
      query: N query heads; query head n reads key/value head n // (N/M).
      key: M heads.
      value: M heads.
      segments: id of the sequence that a token belongs to; not negative.
      mesh: rows are cut over its data and fsdp axes, heads over tensor, where they
        divide; without one, everything runs where the arguments are.
      interpret: whether to interpret the kernel, for platforms other than TPU.
    """
    length, size = query.shape[1], query.shape[3]
    block = _SPLASH_BLOCK if length > _SPLASH_BLOCK else -(-length // _LANES) * _LANES
    spare, narrow = -length % block, -size % _LANES
    fill = ((0, 0), (0, 0), (0, spare), (0, narrow))
    own = jnp.pad(segments, ((0, 0), (0, spare)), constant_values=-1)
    query, key, value = (
        jnp.pad(jnp.swapaxes(array, 1, 2), fill)
        for array in (query * size**-0.5, key, value)
    )
    run = partial(_splash_rows, block=block, interpret=interpret)
    if mesh is not None:
        rows = ("data", "fsdp")
        count = mesh.shape["data"] * mesh.shape["fsdp"]
        cut = rows if query.shape[0] % count == 0 else None
        whole = PartitionSpec(cut, "tensor")
        run = jax.shard_map(
            run,
            mesh=mesh,
            in_specs=(whole, whole, whole, PartitionSpec(cut)),
            out_specs=whole,
            check_vma=False,
        )
    return jnp.swapaxes(run(query, key, value, own)[:, :, :length, :size], 1, 2)


def _splash_rows(
    query: Float[Array, "B N T H"],
    key: Float[Array, "B M T H"],
    value: Float[Array, "B M T H"],
    segments: Int[Array, "B T"],
    *,
    block: int,
    interpret: bool,
) -> Float[Array, "B N T H"]:
    kernel = _splash_kernel(query.shape[1], query.shape[2], block, interpret)

    def row(
        query: jax.Array, key: jax.Array, value: jax.Array, own: jax.Array
    ) -> jax.Array:
        return kernel(query, key, value, segment_ids=SegmentIds(own, own))

    return jax.vmap(row)(query, key, value, segments)


@lru_cache(maxsize=32)
def _splash_kernel(heads: int, length: int, block: int, interpret: bool) -> Any:
    """A kernel for so many heads on one device; making one walks over its mask."""
    sizes = BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=block,
        use_fused_bwd_kernel=True,
    )
    # Under jit the mask's arrays would be traced, and a cached tracer leaks.
    with jax.ensure_compile_time_eval():
        return make_splash_mha(
            MultiHeadMask([CausalMask((length, length))] * heads),
            head_shards=1,
            q_seq_shards=1,
            block_sizes=sizes,
            interpret=interpret,
        )
