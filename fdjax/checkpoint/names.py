"""Where each parameter stands in a Hugging Face checkpoint, as data."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import jax
import numpy as np

from fdjax.checkpoint.paths import find
from fdjax.model import Model, ModelConfig

__all__ = ["Weight", "weights"]

Index = tuple[slice, ...]


@dataclass(frozen=True, kw_only=True)
class Weight:
    """One layer's array of a parameter, and its tensor in Hugging Face.

    A tensor of transformers has at most two axes: all outputs, all inputs.
    """

    path: tuple[str, ...]
    """Keys in `params`; arrays in "layers" are stacked there."""
    layer: int | None
    """Number of the layer, if it belongs to one."""
    shape: tuple[int, ...]
    """Of our array, the layers' axis left out."""
    tensor: str
    """Name of the tensor."""
    inputs: int
    """Leading axes of ours that are inputs, which stand last in the tensor; 0 where
    the order is the same."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys in a tree whose layers are apart, by number."""
        if self.layer is None:
            return self.path
        return ("layers", str(self.layer), *self.path[1:])

    @property
    def tensor_shape(self) -> tuple[int, ...]:
        """Of the tensor in Hugging Face."""
        if not self.inputs:
            return self.shape if self.path in _TABLES else (math.prod(self.shape),)
        inputs, outputs = self.shape[: self.inputs], self.shape[self.inputs :]
        return math.prod(outputs), math.prod(inputs)

    def to_hf(self, array: np.ndarray) -> np.ndarray:
        """The array as the tensor, contiguous."""
        if self.inputs:
            array = array.reshape(math.prod(self.shape[: self.inputs]), -1).T
        return np.ascontiguousarray(array.reshape(self.tensor_shape))

    def from_hf(self, read: Callable[[Index], np.ndarray], index: Index) -> np.ndarray:
        """Part `index` of the array, from no more of the tensor than it needs.

        Args:
          read: gives a part of the tensor, from slices with a start and a stop.
          index: a slice for each of our axes.
        """
        bounds = [
            part.indices(size)[:2] for part, size in zip(index, self.shape, strict=True)
        ]
        if self.path in _TABLES:
            return read(tuple(slice(*bound) for bound in bounds))
        groups = [list(range(self.inputs)), list(range(self.inputs, len(self.shape)))]
        asked, rest, shape = [], [], []
        for axes in filter(None, groups):
            # Along the first axis of a group only the part is read; the others, such
            # as the width of a head, are read whole and cut afterwards.
            inner = math.prod(self.shape[axis] for axis in axes[1:])
            start, stop = bounds[axes[0]]
            asked.append(slice(start * inner, stop * inner))
            shape += [stop - start, *(self.shape[axis] for axis in axes[1:])]
            rest += [slice(None), *(slice(*bounds[axis]) for axis in axes[1:])]
        part = read(tuple(reversed(asked)))
        return (part.T if self.inputs else part).reshape(shape)[tuple(rest)]


_TABLES = {("embedding",), ("head",)}
"""Parameters that are two-dimensional in both, with the same order of axes."""

_PREFIX = "model.layers.{layer}."

_TENSORS: dict[tuple[str, ...], tuple[str, int]] = {
    ("embedding",): ("model.embed_tokens.weight", 0),
    ("norm", "scale"): ("model.norm.weight", 0),
    ("head",): ("lm_head.weight", 0),
    ("layers", "attention_norm", "scale"): (_PREFIX + "input_layernorm.weight", 0),
    ("layers", "attention", "query"): (_PREFIX + "self_attn.q_proj.weight", 1),
    ("layers", "attention", "query_bias"): (_PREFIX + "self_attn.q_proj.bias", 0),
    ("layers", "attention", "query_norm", "scale"): (
        _PREFIX + "self_attn.q_norm.weight",
        0,
    ),
    ("layers", "attention", "key"): (_PREFIX + "self_attn.k_proj.weight", 1),
    ("layers", "attention", "key_bias"): (_PREFIX + "self_attn.k_proj.bias", 0),
    ("layers", "attention", "key_norm", "scale"): (
        _PREFIX + "self_attn.k_norm.weight",
        0,
    ),
    ("layers", "attention", "value"): (_PREFIX + "self_attn.v_proj.weight", 1),
    ("layers", "attention", "value_bias"): (_PREFIX + "self_attn.v_proj.bias", 0),
    ("layers", "attention", "output"): (_PREFIX + "self_attn.o_proj.weight", 2),
    ("layers", "attention", "output_bias"): (_PREFIX + "self_attn.o_proj.bias", 0),
    ("layers", "mlp_norm", "scale"): (_PREFIX + "post_attention_layernorm.weight", 0),
    ("layers", "mlp", "gate"): (_PREFIX + "mlp.gate_proj.weight", 1),
    ("layers", "mlp", "gate_bias"): (_PREFIX + "mlp.gate_proj.bias", 0),
    ("layers", "mlp", "up"): (_PREFIX + "mlp.up_proj.weight", 1),
    ("layers", "mlp", "up_bias"): (_PREFIX + "mlp.up_proj.bias", 0),
    ("layers", "mlp", "down"): (_PREFIX + "mlp.down_proj.weight", 1),
    ("layers", "mlp", "down_bias"): (_PREFIX + "mlp.down_proj.bias", 0),
}
"""Path in `params` to the tensor's name and the number of our input axes."""


def weights(config: ModelConfig) -> list[Weight]:
    """All that a model has, in the order of computation."""
    abstract = jax.eval_shape(Model(config).init, jax.random.key(0))

    def found(layered: bool, layer: int | None) -> Iterator[Weight]:
        for path, (tensor, inputs) in _TENSORS.items():
            if (path[0] == "layers") == layered and (leaf := find(abstract, path)):
                yield Weight(
                    path=path,
                    layer=layer,
                    shape=leaf.shape[1:] if layered else leaf.shape,
                    tensor=tensor.format(layer=layer),
                    inputs=inputs,
                )

    embedding, *ends = found(layered=False, layer=None)
    layers = [
        weight
        for layer in range(config.num_layers)
        for weight in found(layered=True, layer=layer)
    ]
    return [embedding, *layers, *ends]
