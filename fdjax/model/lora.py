"""LoRA (arXiv:2106.09685): a frozen weight, and the product of two thin ones on top."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Key

from fdjax.errors import ConfigError
from fdjax.ranges import Among, Number, TupleOf, Whole, require_fields

__all__ = [
    "Adapted",
    "Adapter",
    "LoRA",
    "adapt",
    "adapter_axes",
    "init_adapters",
    "merge",
    "merged",
    "split",
]

_TARGETS = {
    "query": ("attention", 1),
    "key": ("attention", 1),
    "value": ("attention", 1),
    "output": ("attention", 2),
    "gate": ("mlp", 1),
    "up": ("mlp", 1),
    "down": ("mlp", 1),
}
"""Each product of a block to the module it stands in, and its axes that are inputs."""


@dataclass(frozen=True, kw_only=True)
class LoRA:
    """Trains W + α/r · A B in place of W: A has r columns, B r rows, W stands still.

    Activations stand left of weights here: A and B are the paper's, transposed.
    """

    rank: int = 16
    """r."""
    alpha: float = 32.0
    """α; α/r scales the product, so that another rank needs no other learning rate."""
    targets: tuple[str, ...] = (
        *("query", "key", "value", "output"),
        *("gate", "up", "down"),
    )
    """Which products of each block."""
    base_dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Type in which a run holds the frozen weights; adapters are float32."""

    def __post_init__(self) -> None:
        require_fields(
            self,
            rank=Whole(1),
            alpha=Number(above=0),
            targets=TupleOf(Among(*_TARGETS)),
            base_dtype=Among("bfloat16", "float32"),
        )
        if not self.targets or len(set(self.targets)) < len(self.targets):
            raise ConfigError(
                f"expected LoRA.targets to name one or more of {', '.join(_TARGETS)}, "
                f"each once, got {self.targets}"
            )

    @property
    def scale(self) -> float:
        """α/r."""
        return self.alpha / self.rank


# Fields are Any: trees of shardings or of axes' names have the same nodes.
@partial(
    jax.tree_util.register_dataclass, data_fields=("a", "b"), meta_fields=("scale",)
)
@dataclass(frozen=True)
class Adapter:
    """What is trained of one product: A [L, *inputs, r] and B [L, r, *outputs]."""

    a: Any
    b: Any
    scale: float
    """Of the product A B."""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("weight", "adapter"),
    meta_fields=(),
)
@dataclass(frozen=True)
class Adapted:
    """A parameter that is W + scale · A B and is never written out as such.

    It stands where a model's parameters have an array; `fdjax.model.layers.dense`
    computes x W + scale · (x A) B.
    """

    weight: Any
    """W [L, *inputs, *outputs]."""
    adapter: Adapter


def adapt(base: Any, adapters: Any) -> Any:
    """A model's parameters with adapters on; copies no array.

    Args:
      base: parameters of the model; layers may be a list with each layer's own.
      adapters: as `init_adapters` makes them; layers as those of the base.
    """
    if isinstance(adapters, Adapter):
        return Adapted(base, adapters)
    if isinstance(adapters, list):
        return [adapt(*layer) for layer in zip(base, adapters, strict=True)]
    return {
        name: adapt(leaf, adapters[name]) if name in adapters else leaf
        for name, leaf in base.items()
    }


def split(params: Any) -> tuple[Any, Any]:
    """Base and adapters of what `adapt` made; None in place of adapters without any.

    Args:
      params: of the model, perhaps with adapters; arrays are passed on as they are.
    """
    if isinstance(params, Adapted):
        return params.weight, params.adapter
    if not isinstance(params, dict):
        return params, None
    parts = {name: split(leaf) for name, leaf in params.items()}
    base = {name: weight for name, (weight, _) in parts.items()}
    adapters = {name: own for name, (_, own) in parts.items() if own is not None}
    return base, adapters or None


def init_adapters(key: Key[Array, ""], params: Any, lora: LoRA) -> Any:
    """Adapters that change nothing yet: A uniform in ±1/√inputs, B zero.

    The paper leaves A's distribution open ("random Gaussian"); this is the one of its
    code and of PEFT.

    Args:
      key: typed PRNG key.
      params: of the model, or their shapes.
      lora: rank and targets.
    """

    def fresh(weight: Any, inputs: int, number: int) -> Adapter:
        layers, *shape = weight.shape
        bound = math.prod(shape[:inputs]) ** -0.5
        a = jax.random.uniform(
            jax.random.fold_in(key, number),
            (layers, *shape[:inputs], lora.rank),
            jnp.float32,
            -bound,
            bound,
        )
        b = jnp.zeros((layers, lora.rank, *shape[inputs:]), jnp.float32)
        return Adapter(a, b, lora.scale)

    return _for_each_target(fresh, params, lora)


def adapter_axes(axes: Any, lora: LoRA) -> Any:
    """For each adapter's array, the tuple of its axes' logical names.

    The rank's is "rank", the others are those of the weight.

    Args:
      axes: of the model, `Model.logical_axes()`.
      lora: rank and targets.
    """

    def named(axes: tuple[str, ...], inputs: int, number: int) -> Adapter:
        layer, *names = axes
        return Adapter(
            (layer, *names[:inputs], "rank"),
            (layer, "rank", *names[inputs:]),
            lora.scale,
        )

    return _for_each_target(named, axes, lora)


def merged(adapted: Adapted) -> Float32[Array, "..."]:
    """W + scale · A B of one layer, [*inputs, *outputs], in float32."""
    adapter = adapted.adapter
    product = jnp.tensordot(adapter.a, adapter.b, 1, precision="highest")
    return adapted.weight.astype(jnp.float32) + adapter.scale * product


def merge(params: Any) -> Any:
    """Parameters with every adapter added to its weight, in the type of the weight.

    A bfloat16 weight takes up no less than 1/512 of itself: what `save_pretrained`
    writes goes from float32 to the folder's type, once.

    Args:
      params: of `adapt`; arrays are passed on as they are.
    """

    def whole(leaf: Any) -> Any:
        if not isinstance(leaf, Adapted):
            return leaf
        return jax.vmap(merged)(leaf).astype(leaf.weight.dtype)

    return jax.tree.map(whole, params, is_leaf=lambda leaf: isinstance(leaf, Adapted))


def _for_each_target(
    make: Callable[[Any, int, int], Adapter], tree: Any, lora: LoRA
) -> dict[str, Any]:
    """`make(leaf, input axes, number)` for the leaf of each target."""
    layers: dict[str, Any] = {}
    for number, (name, (module, inputs)) in enumerate(_TARGETS.items()):
        if name in lora.targets:
            leaf = tree["layers"][module][name]
            layers.setdefault(module, {})[name] = make(leaf, inputs, number)
    return {"layers": layers}
