"""A policy's weights, put where and as sampling reads them best."""

import operator
from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, Sharding, SingleDeviceSharding

from fdjax.model import Adapter, Model, adapt, split
from fdjax.sampling.published import Published
from fdjax.sharding import DEFAULT_RULES, shardings

__all__ = [
    "Weights",
    "copy_shapes",
    "place_weights",
    "placing_program",
    "weights_layout",
]

_RULES = {**DEFAULT_RULES, "embed": None}
"""Every part of the batch has all weights: decoding gathers none."""


class Weights:
    """A sampler's copies of a policy: a base under adapters is copied once."""

    def __init__(self, model: Model) -> None:
        """None yet.

        Args:
          model: with the mesh to sample on, or none for the first device.
        """
        self._model = model
        self._noted, self._base = Published(), None

    def copy(self, params: Any) -> Any:
        """`params` for sampling, after the copy of another base was dropped.

        What a policy without adapters is made of counts as its base.

        Args:
          params: of `Model.init`, or of `adapt`.
        """
        base, adapters = split(params)
        if not self._noted.has(base):
            self.drop()
            self._base = place_weights(self._model, base)
            self._noted.note(base)
        if adapters is None:
            return self._base
        return adapt(self._base, place_weights(self._model, adapters))

    def drop(self) -> None:
        """It has none; arrays that nobody else holds are freed."""
        self._noted.forget()
        self._base = None


def place_weights(model: Model, params: Any) -> Any:
    """A copy of `params` for sampling, so that training may donate its own.

    Products get the type of the model's activations, which they are computed in;
    norms keep theirs. Adapters stay apart from the weights that they change: then the
    products are those of training, and a bfloat16 weight does not round the change
    away. On CPUs layers are taken apart. On the devices of training, in their order,
    no array passes through the host.

    Args:
      model: with the mesh to sample on, or none for the first device.
      params: of `Model.init`, or adapters of it.
    """
    program = placing_program(model, params)
    if program is not None:
        # Cut anew by the program: `device_put` would cut on the host.
        return program(params)
    _, layout = copy_shapes(model, params)
    return jax.device_put(jax.jit(_copying(model))(params), layout, may_alias=True)


def placing_program(model: Model, params: Any) -> Callable[[Any], Any] | None:
    """The jitted program by which `place_weights` copies.

    Args:
      model: with the mesh to sample on, or none for the first device.
      params: as there, or their shapes with shardings.

    Returns:
      None where they lie on other devices, or in another order: then none does it all.
    """
    _, layout = copy_shapes(model, params)
    wanted = _devices(jax.tree.leaves(layout)[0])
    if any(_devices(leaf.sharding) != wanted for leaf in jax.tree.leaves(params)):
        return None
    leaves, structure = jax.tree.flatten(layout)
    return _placing(_copying(model), tuple(leaves), structure)


def copy_shapes(model: Model, params: Any) -> tuple[Any, Any]:
    """Shapes of the arrays that `place_weights` makes, and where they go.

    Args:
      model: with the mesh to sample on, or none for the first device.
      params: as there, or their shapes.

    Raises:
      ConfigError: `tensor` does not divide heads, inner layer or vocabulary.
    """
    shapes = jax.eval_shape(_copying(model), params)
    return shapes, weights_layout(model, shapes)


def _copying(model: Model) -> Callable[[Any], Any]:
    # On CPUs XLA would copy a layer's weights out of the stack for each token.
    layers = model.config.num_layers if _device(model).platform == "cpu" else 0
    return _taking(model.config.dtype, layers)


@cache
def _taking(dtype: Any, layers: int) -> Callable[[Any], Any]:
    """From a policy's parameters to copies of them, cast and apart."""

    def take(params: Any) -> Any:
        if layers:
            stack = params["layers"]
            apart = [
                jax.tree.map(operator.itemgetter(index), stack)
                for index in range(layers)
            ]
            params = {**params, "layers": apart}
        return jax.tree_util.tree_map_with_path(copied, params)

    def copied(path: Any, leaf: jax.Array) -> jax.Array:
        is_norm = any("norm" in str(step) for step in path)
        return jnp.array(leaf, leaf.dtype if is_norm else dtype, copy=True)

    return take


@cache
def _placing(
    take: Callable[[Any], Any], layout: tuple[Sharding, ...], structure: Any
) -> Callable[[Any], Any]:
    """Jitted `take`, its results where they belong: one program for all arrays."""
    return jax.jit(take, out_shardings=jax.tree.unflatten(structure, layout))


def _devices(sharding: Sharding) -> list[Any]:
    if isinstance(sharding, NamedSharding):
        return list(np.asarray(sharding.mesh.devices).flat)
    return list(sharding.device_set)


def weights_layout(model: Model, params: Any) -> Any:
    """Where each array goes: over a mesh cut along `tensor`, and nothing else.

    Args:
      model: with the mesh to sample on.
      params: of `Model.init` or adapters of it, or their shapes; layers may be a list
        with each layer's own.

    Raises:
      ConfigError: `tensor` does not divide heads, inner layer or vocabulary.
    """
    if model.mesh is None:
        single = SingleDeviceSharding(_device(model))
        return jax.tree.map(lambda _: single, params)
    axes = _axes(model.logical_axes(), params)
    return shardings(model.mesh, axes, params, _RULES)


def _device(model: Model) -> Any:
    return jax.local_devices()[0] if model.mesh is None else model.mesh.devices.flat[0]


def _axes(axes: Any, params: Any) -> Any:
    """Logical axes of parameters or of their adapters; layers may lie apart."""
    if isinstance(params, Adapter):
        # A has the weight's inputs, stacked or not, then the rank.
        inputs = params.a.ndim - 1
        stack = ("layer",) if axes[0] == "layer" else ()
        a, b = (*axes[:inputs], "rank"), (*stack, "rank", *axes[inputs:])
        return Adapter(a, b, params.scale)
    if isinstance(params, list):
        layer = jax.tree.map(lambda names: names[1:], axes, is_leaf=_is_names)
        return [_axes(layer, one) for one in params]
    if isinstance(params, dict):
        return {name: _axes(axes[name], leaf) for name, leaf in params.items()}
    return axes


def _is_names(axes: Any) -> bool:
    return isinstance(axes, tuple)
