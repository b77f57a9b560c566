"""A policy's weights, put where and as sampling reads them best."""

import operator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, Sharding, SingleDeviceSharding

from fdjax.model import Adapted, Adapter, Model
from fdjax.sharding import DEFAULT_RULES, shardings

__all__ = ["place_weights", "weights_layout"]

_RULES = {**DEFAULT_RULES, "embed": None}
"""Every part of the batch has all weights: decoding gathers none."""


def place_weights(model: Model, params: Any) -> Any:
    """A copy of `params` for sampling, so that training may donate its own.

    Products get the type of the model's activations, which they are computed in;
    norms keep theirs. Adapters stay apart from the weights that they change: then the
    products are those of training, and a bfloat16 weight does not round the change
    away. On CPUs layers are taken apart. No array passes through the host.

    Args:
      model: with the mesh to sample on, or none for the first device.
      params: of `Model.init`, or of `adapt`.
    """
    dtype = jnp.dtype(model.config.dtype)
    apart = _device(model).platform == "cpu"
    if apart:
        # XLA would copy a layer's weights out of the stack for each token.
        layers = _apart(params["layers"], model.config.num_layers)
        params = {**params, "layers": layers}

    def place(path: Any, leaf: jax.Array, where: Sharding) -> jax.Array:
        is_norm = any("norm" in str(step) for step in path)
        wanted = leaf.dtype if is_norm else dtype
        own = apart and path[0].key == "layers"
        if own and leaf.dtype == wanted and leaf.sharding == where:
            return leaf
        if _devices(leaf.sharding) == _devices(where):
            return jax.jit(_copy, static_argnums=1, out_shardings=where)(leaf, wanted)
        own |= leaf.dtype != wanted
        return jax.device_put(leaf.astype(wanted), where, may_alias=own)

    layout = weights_layout(model, params)
    return jax.tree_util.tree_map_with_path(place, params, layout)


def _copy(leaf: jax.Array, dtype: Any) -> jax.Array:
    """Cut anew by a program: `device_put` would cut on the host."""
    return jnp.array(leaf, dtype, copy=True)


def _devices(sharding: Sharding) -> list[Any]:
    if isinstance(sharding, NamedSharding):
        return list(np.asarray(sharding.mesh.devices).flat)
    return list(sharding.device_set)


def weights_layout(model: Model, params: Any) -> Any:
    """Where each array goes: over a mesh cut along `tensor`, and nothing else."""
    if model.mesh is None:
        single = SingleDeviceSharding(_device(model))
        return jax.tree.map(lambda _: single, params)
    axes = _axes(model.logical_axes(), params)
    return shardings(model.mesh, axes, params, _RULES)


@partial(jax.jit, static_argnums=1)
def _apart(layers: Any, count: int) -> list[Any]:
    """Stacked layers as a list of them, in arrays of their own."""
    return [jax.tree.map(operator.itemgetter(index), layers) for index in range(count)]


def _device(model: Model) -> Any:
    return jax.local_devices()[0] if model.mesh is None else model.mesh.devices.flat[0]


def _axes(axes: Any, params: Any) -> Any:
    """Logical axes of parameters that may have adapters on, and layers apart."""
    if isinstance(params, Adapted):
        # A has the weight's inputs, stacked or not, then the rank.
        inputs = params.adapter.a.ndim - 1
        stack = ("layer",) if axes[0] == "layer" else ()
        adapter = Adapter(
            (*axes[:inputs], "rank"),
            (*stack, "rank", *axes[inputs:]),
            params.adapter.scale,
        )
        return Adapted(axes, adapter)
    if isinstance(params, list):
        layer = jax.tree.map(lambda names: names[1:], axes, is_leaf=_is_names)
        return [_axes(layer, one) for one in params]
    if isinstance(params, dict):
        return {name: _axes(axes[name], leaf) for name, leaf in params.items()}
    return axes


def _is_names(axes: Any) -> bool:
    return isinstance(axes, tuple)
