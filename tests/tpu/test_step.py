"""Whole steps of an 8B model for TPUs, compiled ahead of time.

Nothing runs: what is held here is that a step compiles, and that a chip's memory holds
it. A step takes minutes to compile on two cores, so these tests are slow ones.
"""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import tpu_losses
from fdjax.model import LoRA, Model, ModelConfig
from fdjax.rollout import Batch, TeacherPrompts
from fdjax.run import AttemptsConfig, PolicyConfig
from fdjax.run.plan import held_in
from fdjax.sharding import batch_sharding
from fdjax.train import (
    FD,
    EMATeacher,
    PhaseConfig,
    init_state,
    make_objective,
    make_optimizer,
    make_train_step,
    state_shardings,
)

tpu_losses.prepare()
pytestmark = pytest.mark.slow

GIB = 2**30
PROMPT = 1_024
"""Tokens of a problem, room for half a page of Lean."""
POLICY, ATTEMPTS = PolicyConfig(source="8B"), AttemptsConfig()
"""The defaults of a run."""
PHASE = PhaseConfig(name="fd", terms=(FD(),), steps=1, teacher=EMATeacher())


@pytest.fixture(autouse=True)
def optax_promotes():
    """optax raises a Python float to an integer step; our own code stays strict."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def _qwen3_8b(mesh):
    config = ModelConfig(
        vocab_size=151_936,
        hidden_size=4_096,
        intermediate_size=12_288,
        num_layers=36,
        num_heads=32,
        num_kv_heads=8,
        head_dim=128,
        rope_theta=1e6,
        tie_word_embeddings=False,
        max_position_embeddings=40_960,
        dtype=POLICY.dtype,
        remat=POLICY.remat,
        attention=POLICY.attention,
    )
    return Model(config, mesh)


def _batch(mesh, rows):
    """A batch for FD, of the widths that a run has by default."""

    def shaped(*shape, dtype=jnp.bool_):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(mesh))

    width, teacher = ATTEMPTS.max_new_tokens, PROMPT + ATTEMPTS.feedback_tokens
    return Batch(
        prompts=shaped(rows, PROMPT, dtype=jnp.int32),
        prompt_valid=shaped(rows, PROMPT),
        responses=shaped(rows, width, dtype=jnp.int32),
        response_valid=shaped(rows, width),
        written=shaped(rows, width),
        known=shaped(rows),
        passed=shaped(rows),
        old_logprobs=shaped(rows, width, dtype=jnp.float32),
        version=shaped(rows, dtype=jnp.int32),
        feedback=TeacherPrompts(
            shaped(rows, teacher, dtype=jnp.int32),
            shaped(rows, teacher),
            shaped(rows, width),
        ),
    )


def _state(model, optimizer, mesh, lora):
    """Shapes and places of a state; a base has the type in which a run holds it."""
    layout = state_shardings(model, optimizer, mesh, teacher=PHASE.teacher, lora=lora)
    state = jax.eval_shape(
        lambda key: init_state(
            model, optimizer, mesh, key, teacher=PHASE.teacher, lora=lora
        ),
        jax.random.key(0),
    )
    if lora is not None:
        dtype = jnp.dtype(lora.base_dtype)
        base = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), state.base
        )
        state = state._replace(base=base)
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=place
        ),
        state,
        layout,
    )


def _compile(topology, chips, *, rows, microbatches=PHASE.microbatches, lora=None):
    """GiB a chip: the compiled step's peak, and what the dry run says is held."""
    mesh = tpu_losses.mesh_on(topology, fsdp=chips)
    model, optimizer = _qwen3_8b(mesh), make_optimizer(PHASE.optimizer)
    step = make_train_step(
        model,
        make_objective(model, PHASE.terms),
        optimizer,
        mesh,
        teacher=PHASE.teacher,
        lora=lora,
        microbatches=microbatches,
    )
    state = _state(model, optimizer, mesh, lora)
    lowered = step.__wrapped__.lower(
        state._replace(base=None), state.base, _batch(mesh, rows)
    )
    peak = lowered.compile().memory_analysis().peak_memory_in_bytes
    held = held_in(PHASE, model, lora)
    return peak / GIB, sum(held.values()) / GIB


def test_lora_trains_an_8b_on_eight_small_chips(record_property):
    """v5e:2x4, 15.75 GiB a chip; all parameters would need more than that to be held.

    6.0 GiB at the peak, 2.3 of them held.
    """
    peak, held = _compile(
        "v5e:2x4", 8, rows=ATTEMPTS.batch_size, microbatches=32, lora=LoRA()
    )
    record_property("v5e:2x4", {"peak": peak, "held": held})
    assert held < peak < 7
    mesh = tpu_losses.mesh_on("v5e:2x4", fsdp=8)
    whole = held_in(PHASE, _qwen3_8b(mesh))
    assert sum(whole.values()) / GIB > 15.75


def test_defaults_fit_an_8b_on_a_slice_of_v5p(record_property):
    """All parameters, v5p:2x4x4, 95 GiB a chip: 18.2 at the peak."""
    peak, held = _compile("v5p:2x4x4", 32, rows=ATTEMPTS.batch_size)
    record_property("v5p:2x4x4", {"peak": peak, "held": held})
    assert held < peak < 20
