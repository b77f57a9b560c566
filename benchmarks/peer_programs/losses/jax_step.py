"""The step that all JAX libraries are measured by."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from common import Call, Inputs

Loss = Callable[[dict[str, Any]], tuple[Any, Any]]
"""Of the arrays of `Inputs` by name; the loss, and what else the library returns."""


def program(loss: Loss) -> Any:
    """Loss, metrics and both gradients; the teacher is constant."""

    def split(hidden: Any, head: Any, rest: dict[str, Any]) -> tuple[Any, Any]:
        return loss({"hidden": hidden, "head": head, **rest})

    return jax.jit(jax.value_and_grad(split, (0, 1), has_aux=True))


def compiled(loss: Loss, inputs: Inputs) -> Call:
    """`program`, compiled before it is called."""
    rest = {name: jnp.asarray(array) for name, array in vars(inputs).items()}
    hidden, head = rest.pop("hidden"), rest.pop("head")
    step = program(loss).lower(hidden, head, rest).compile()

    def call() -> tuple[Any, Any, Any]:
        (value, _), gradients = jax.block_until_ready(step(hidden, head, rest))
        return value, *gradients

    return call
