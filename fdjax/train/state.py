"""The one pytree that decides the next step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int32, Key

from fdjax.errors import CheckpointError, ConfigError
from fdjax.model import LoRA, Model, adapt, init_adapters
from fdjax.model.lora import adapter_axes
from fdjax.sharding import shardings
from fdjax.train.teacher import LiveTeacher, Teacher, init_teacher

__all__ = [
    "TrainState",
    "check_finite",
    "hand_over",
    "init_state",
    "on_base",
    "restart",
    "state_shardings",
]


_ADAPTERS = 2**32 - 1
"""Folded into a phase's key for fresh adapters; no step has this number."""


class TrainState(NamedTuple):
    """Policy, optimizer, teacher, step and randomness.

    The leaves are arrays; a tree of their shardings has the same shape.
    """

    params: Any
    """What is trained, θ, float32: the policy's parameters, or its adapters."""
    opt_state: Any
    """Optimizer state."""
    teacher: Any
    """Teacher parameters φ, or its adapters; None where no term reads them, or the
    teacher is live."""
    step: Int32[Array, ""]
    """Optimizer steps taken."""
    key: Key[Array, ""]
    """Root PRNG key (typed); the key of step n is `fold_in(key, n)`."""
    base: Any = None
    """With LoRA the frozen parameters that all adapters are on, in any type; they are
    neither donated nor saved."""

    @property
    def policy(self) -> Any:
        """The policy's parameters, as a model reads them."""
        return on_base(self.base, self.params)

    @property
    def teacher_policy(self) -> Any:
        """The teacher's, as a model reads them: the policy's where it holds none."""
        return on_base(self.base, self.params if self.teacher is None else self.teacher)


def on_base(base: Any, params: Any) -> Any:
    """What a model reads of trained parameters; copies no array.

    Args:
      base: that of the state.
      params: the policy's or the teacher's: all parameters, or adapters of the base.
    """
    return params if base is None else adapt(base, params)


def state_shardings(
    model: Model,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    teacher: Teacher | None = None,
    lora: LoRA | None = None,
) -> TrainState:
    """Where each leaf of the state lives: parameters by rule, moments beside them.

    Args:
      model: for its parameters' layout.
      optimizer: for its moments.
      mesh: the device mesh.
      teacher: where its weights come from; None where the objective reads none.
      lora: the adapters that are trained; None for all parameters.

    Raises:
      ConfigError: the mesh does not fit the model (`fdjax.sharding.shardings`).
    """
    axes, key = model.logical_axes(), jax.random.key(0)
    abstract_params = jax.eval_shape(model.init, key)
    base = None
    if lora is not None:
        base = shardings(mesh, axes, abstract_params)
        axes = adapter_axes(axes, lora)
        abstract_params = jax.eval_shape(
            lambda key, base: init_adapters(key, base, lora), key, abstract_params
        )
    params = shardings(mesh, axes, abstract_params)
    replicated: Any = NamedSharding(mesh, PartitionSpec())
    abstract_opt_state = jax.eval_shape(optimizer.init, abstract_params)
    opt_state = optax.tree.map_params(
        optimizer,
        lambda _, sharding: sharding,
        abstract_opt_state,
        params,
        transform_non_params=lambda _: replicated,
    )
    held = teacher is not None and not isinstance(teacher, LiveTeacher)
    return TrainState(
        params, opt_state, params if held else None, replicated, replicated, base
    )


def init_state(
    model: Model,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    key: Key[Array, ""],
    *,
    teacher: Teacher | None = None,
    lora: LoRA | None = None,
) -> TrainState:
    """A fresh state, each shard made on its own device.

    Args:
      model: makes the parameters.
      optimizer: makes its own state.
      mesh: the device mesh.
      key: typed PRNG key, of the parameters and of the run.
      teacher: where its weights come from, if the objective reads one
        (`Objective.reads_teacher`); they begin as a copy of the policy.
      lora: adapters to train on the fresh model; None to train all of it.
    """

    def init(key: Key[Array, ""]) -> TrainState:
        init_key, run_key = jax.random.split(key)
        params = model.init(init_key)
        if lora is None:
            return _begin(params, optimizer, run_key, teacher)
        adapters = _fresh_adapters(run_key, params, lora)
        return _begin(adapters, optimizer, run_key, teacher)._replace(base=params)

    layout = state_shardings(model, optimizer, mesh, teacher=teacher, lora=lora)
    return jax.jit(init, out_shardings=layout)(key)


def restart(
    params: Any,
    model: Model,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    key: Key[Array, ""],
    *,
    teacher: Teacher | None = None,
    lora: LoRA | None = None,
) -> TrainState:
    """A state that begins from another phase's policy, teacher and optimizer anew.

    Moments and learning rate start from nothing, the teacher from `params`: what the
    phase before had of them is dropped.

    Args:
      params: the policy; copied. With `lora` it is the base, of any type, and becomes
        the state's as it is: no step donates it.
      model: for its parameters' layout.
      optimizer: of the phase that begins.
      mesh: the device mesh.
      key: typed PRNG key of the phase, and of fresh adapters.
      teacher: see `init_state`.
      lora: adapters to train on the policy; None to train all of it.

    Raises:
      ConfigError: the parameters to train are not float32.
      CheckpointError: some are not finite.
    """
    layout = state_shardings(model, optimizer, mesh, teacher=teacher, lora=lora)

    def begin(params: Any, key: Key[Array, ""]) -> TrainState:
        if lora is not None:
            params = _fresh_adapters(key, params, lora)
        # Copies: the step donates its state, and the caller keeps its parameters.
        return _begin(jax.tree.map(jnp.copy, params), optimizer, jnp.copy(key), teacher)

    shardings = layout._replace(base=None)
    state = jax.jit(begin, out_shardings=shardings)(params, key)
    check_finite(params)
    if lora is None:
        return state
    return state._replace(base=jax.device_put(params, layout.base))


def hand_over(
    state: TrainState,
    model: Model,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    key: Key[Array, ""],
    *,
    teacher: Teacher | None,
    keep_moments: bool = False,
    keep_teacher: bool = False,
    lora: LoRA | None = None,
) -> TrainState:
    """The state of the next phase, made of the one before without copying the policy.

    Steps are counted from 0 and the learning rate's schedule begins anew, whatever is
    kept. What is not kept is freed before its successor is made, so that no device
    holds two of either.

    Args:
      state: at the end of the phase before; its arrays go over or are deleted, so use
        it no more.
      model: for its parameters' layout.
      optimizer: of the phase that begins.
      mesh: the device mesh.
      key: typed PRNG key of the phase.
      teacher: where its weights come from; None where no term reads one.
      keep_moments: whether Adam goes on with its moments and their bias correction.
      keep_teacher: whether the teacher's weights stay; else they begin as the policy.
      lora: the adapters that the state trains; None where it trains all parameters.

    Raises:
      ConfigError: there are no weights of a teacher to keep, before or after, or the
        moments to keep are of another optimizer; the state is whole.
      CheckpointError: parameters are not finite; likewise.
    """
    layout = state_shardings(model, optimizer, mesh, teacher=teacher, lora=lora)
    if keep_teacher and (state.teacher is None or layout.teacher is None):
        raise ConfigError(
            "expected teachers with weights of their own before and after to keep "
            "them, got none " + ("before" if state.teacher is None else "after")
        )
    wanted = jax.eval_shape(optimizer.init, state.params)
    if keep_moments and jax.tree.structure(wanted) != jax.tree.structure(
        state.opt_state
    ):
        raise ConfigError(
            "expected the optimizer of the phase before to keep its moments, got "
            "another: keep the optimizer or begin without moments"
        )
    check_finite(state.params)
    begun = None if keep_teacher else teacher

    def made(fresh: TrainState) -> TrainState:
        """What of a fresh state is made anew; the rest goes over as it is."""
        if keep_moments:
            fresh = fresh._replace(opt_state=_without_moments(fresh.opt_state))
        if keep_teacher:
            fresh = fresh._replace(teacher=None)
        return fresh._replace(params=None, base=None)

    def begin(params: Any, key: Key[Array, ""]) -> TrainState:
        return made(_begin(params, optimizer, jnp.copy(key), begun))

    if not keep_moments:
        _release(state.opt_state)
    if not keep_teacher:
        _release(state.teacher)
    fresh = jax.jit(begin, out_shardings=made(layout))(state.params, key)
    fresh = fresh._replace(params=state.params, base=state.base)
    if keep_moments:
        moments = _with_moments(fresh.opt_state, state.opt_state, wanted)
        fresh = fresh._replace(opt_state=moments)
    if keep_teacher and teacher is not None and not isinstance(teacher, LiveTeacher):
        dtype = jnp.dtype(teacher.dtype)
        weights = jax.tree.map(lambda leaf: _cast(leaf, dtype), state.teacher)
        fresh = fresh._replace(teacher=weights)
    return fresh


def _without_moments(opt_state: Any) -> Any:
    """Nothing in place of Adam's moments and count."""
    return jax.tree.map(
        lambda node: None if _is_adam(node) else node, opt_state, is_leaf=_is_adam
    )


def _with_moments(fresh: Any, old: optax.OptState, wanted: Any) -> Any:
    """Adam's moments and count of `old`, typed as `wanted`; all else of `fresh`."""

    def kept(shape: Any, new: Any, past: Any) -> Any:
        if not _is_adam(shape):
            return new
        return jax.tree.map(lambda a, b: _cast(b, a.dtype), shape, past)

    return jax.tree.map(kept, wanted, fresh, old, is_leaf=_is_adam)


def _is_adam(node: Any) -> bool:
    return isinstance(node, optax.ScaleByAdamState)


def _cast(leaf: Array, dtype: Any) -> Array:
    """An array in a type; one of another is let go of."""
    if leaf.dtype == dtype:
        return leaf
    cast = leaf.astype(dtype)
    _release(leaf)
    return cast


def _release(tree: Any) -> None:
    """Frees arrays, whoever refers to them."""
    for leaf in jax.tree.leaves(tree):
        leaf.delete()


def check_finite(params: Any) -> None:
    """Sees to it that training begins from numbers.

    Raises:
      CheckpointError: a parameter is NaN or infinite.
    """
    flawed = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, finite in jax.tree_util.tree_leaves_with_path(_finite(params))
        if not finite
    ]
    if flawed:
        raise CheckpointError(
            f"Expected finite parameters to train, got NaN or infinity in "
            f"{', '.join(flawed)}; begin from another checkpoint."
        )


@jax.jit
def _finite(params: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.isfinite(leaf).all(), params)


def _fresh_adapters(key: Key[Array, ""], params: Any, lora: LoRA) -> Any:
    return init_adapters(jax.random.fold_in(key, _ADAPTERS), params, lora)


def _begin(
    params: Any,
    optimizer: optax.GradientTransformation,
    key: Key[Array, ""],
    teacher: Teacher | None,
) -> TrainState:
    dtypes = {str(leaf.dtype) for leaf in jax.tree.leaves(params)}
    if dtypes != {"float32"}:
        raise ConfigError(
            f"Expected float32 parameters to train, got {', '.join(sorted(dtypes))}: "
            "in fewer bits small steps round away. Load them with "
            "param_dtype='float32'; dtype='bfloat16' computes in bfloat16 with them."
        )
    return TrainState(
        params=params,
        opt_state=optimizer.init(params),
        teacher=init_teacher(params, teacher),
        step=jnp.zeros((), jnp.int32),
        key=key,
    )
