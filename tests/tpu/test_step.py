"""Steps of an 8B model for TPUs, compiled ahead of time.

Nothing runs: what is held here is that a step compiles, that a chip's memory holds it,
and what crosses devices. Two layers of full width show all but how memory grows with
layers; the slow tests have all 36.
"""

import functools
import math
import re

import jax
import jax.numpy as jnp
import pytest

from benchmarks import tpu_losses
from fdjax.model import LoRA, Model, ModelConfig
from fdjax.ops import Chunking
from fdjax.rollout import Batch, TeacherPrompts
from fdjax.run import AttemptsConfig, PolicyConfig
from fdjax.run.memory import held_in
from fdjax.sharding import batch_sharding
from fdjax.train import (
    FD,
    GRPO,
    GSPO,
    EMATeacher,
    PhaseConfig,
    init_state,
    make_objective,
    make_optimizer,
    make_train_step,
    state_shardings,
)

tpu_losses.prepare()

GIB = 2**30
WIDTH, INNER, VOCABULARY = 4_096, 12_288, 151_936
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


def _qwen3_8b(mesh, layers=36):
    config = ModelConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_layers=layers,
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


def _batch(mesh, rows, width=ATTEMPTS.max_new_tokens, prompt=PROMPT):
    """What any term reads; by default of the widths that a run has."""

    def shaped(*shape, dtype=jnp.bool_):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(mesh))

    teacher = prompt + ATTEMPTS.feedback_tokens
    return Batch(
        prompts=shaped(rows, prompt, dtype=jnp.int32),
        prompt_valid=shaped(rows, prompt),
        responses=shaped(rows, width, dtype=jnp.int32),
        response_valid=shaped(rows, width),
        written=shaped(rows, width),
        known=shaped(rows),
        passed=shaped(rows),
        advantages=shaped(rows, dtype=jnp.float32),
        old_logprobs=shaped(rows, width, dtype=jnp.float32),
        version=shaped(rows, dtype=jnp.int32),
        feedback=TeacherPrompts(
            shaped(rows, teacher, dtype=jnp.int32),
            shaped(rows, teacher),
            shaped(rows, width),
        ),
    )


def _state(model, optimizer, mesh, teacher, lora):
    """Shapes and places of a state; a base has the type in which a run holds it."""
    settings = {"teacher": teacher, "lora": lora}
    layout = state_shardings(model, optimizer, mesh, **settings)
    state = jax.eval_shape(
        lambda key: init_state(model, optimizer, mesh, key, **settings),
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


def _compile(model, batch, *, terms=PHASE.terms, microbatches=1, lora=None):
    """The step of some terms, with a moving average for a teacher if they read one.

    At full width: narrower microbatches take less, and four times as long to compile.
    """
    mesh, optimizer = model.mesh, make_optimizer(PHASE.optimizer)
    objective = make_objective(model, terms)
    teacher = PHASE.teacher if objective.reads_teacher else None
    step = make_train_step(
        model,
        objective,
        optimizer,
        mesh,
        teacher=teacher,
        lora=lora,
        microbatches=microbatches,
        widths=1,
    )
    state = _state(model, optimizer, mesh, teacher, lora)
    return step.__wrapped__.lower(
        state._replace(base=None), state.base, batch
    ).compile()


def _peak(compiled):
    return compiled.memory_analysis().peak_memory_in_bytes / GIB


CHIPS, TOKENS, SHORT = 16, 2_048, 256
"""Of the tests with two layers: a row of a response on each chip, and its prompt."""
LAYER = 2 * (3 * WIDTH * INNER + 2 * WIDTH * (32 + 8) * 128)
"""Bytes of a layer's parameters, in bfloat16."""
TERMS = {"fd and grpo": (FD(), GRPO()), "gspo": (GSPO(),)}
CEILINGS = {"fd and grpo": 4.5, "gspo": 4.0}
"""GiB a chip."""


@functools.cache
def _two_layers(name):
    mesh = tpu_losses.mesh_on("v5e:4x4", fsdp=CHIPS)
    batch = _batch(mesh, 2 * CHIPS, width=TOKENS, prompt=SHORT)
    model = _qwen3_8b(mesh, layers=2)
    return _compile(model, batch, terms=TERMS[name], microbatches=2)


def _arrays(text):
    """Type and shape of each array in a piece of a program."""
    for dtype, shape in re.findall(r"\b([a-z]+\d+|pred)\[([\d,]*)\]", text):
        yield dtype, [int(size) for size in shape.split(",") if size]


def _moved(compiled):
    """What devices exchange: kind, type and shape."""
    kinds = "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter"
    for result, kind in re.findall(
        rf"= (.*?) ({kinds})(?:-start)?\(", compiled.as_text()
    ):
        for dtype, shape in _arrays(result):
            yield kind, dtype, shape


@pytest.mark.parametrize("name", TERMS)
def test_no_vocabulary_and_no_more_than_a_layer_is_moved(name):
    moved = list(_moved(_two_layers(name)))
    assert {"all-gather", "all-to-all"} <= {kind for kind, *_ in moved}
    for kind, dtype, shape in moved:
        size = math.prod(shape) * (2 if dtype == "bf16" else 4)
        assert VOCABULARY not in shape, (kind, dtype, shape)
        assert size <= LAYER, (kind, dtype, shape)
    # The head and its gradient change from parts of the width to parts of the
    # vocabulary: each chip moves its own sixteenth, and no chip adds up any of it.
    reduced = [math.prod(shape) for kind, _, shape in moved if kind == "all-reduce"]
    assert max(reduced) < VOCABULARY * WIDTH // CHIPS


@pytest.mark.parametrize("name", TERMS)
def test_logits_are_of_a_chunk_and_activations_of_own_rows(name, record_property):
    compiled = _two_layers(name)
    rows = Chunking(mesh=tpu_losses.mesh_on("v5e:4x4", fsdp=CHIPS)).size(
        TOKENS, vocabulary=VOCABULARY, width=WIDTH
    )
    assert rows < TOKENS
    whole, own = (VOCABULARY, VOCABULARY // CHIPS), SHORT + TOKENS
    seen = [shape for _, shape in _arrays(compiled.as_text())]
    for shape in seen:
        if shape and shape[-1] in whole:
            sizes = [size for size in shape if size > 1]
            assert math.prod(sizes[-2:]) <= rows * VOCABULARY, shape
            # Student's and teacher's may lie side by side.
            assert math.prod(sizes[:-2]) <= 2, shape
    # A layer's input is kept for each chip's own row, and never that of another chip.
    assert [1, own, WIDTH] in seen
    assert not any(
        math.prod(shape) >= CHIPS * own * WIDTH
        for shape in seen
        if shape[-1:] == [WIDTH]
    )
    peak = _peak(compiled)
    record_property(f"{name}, two layers", {"peak": peak})
    assert peak < CEILINGS[name]


def test_all_parameters_do_not_fit_eight_small_chips():
    """State alone takes 15.3 GiB of 15.75: the compiler refuses a step beside it."""
    mesh = tpu_losses.mesh_on("v5e:2x4", fsdp=8)
    model = _qwen3_8b(mesh)
    held = held_in(PHASE, model)
    assert 15 < (sum(held.values()) - held["pretrained"]) / GIB < 15.75
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        _compile(model, _batch(mesh, 8, width=SHORT, prompt=SHORT))


@pytest.mark.slow
def test_lora_trains_an_8b_on_eight_small_chips(record_property):
    """v5e:2x4, 15.75 GiB a chip; all parameters would need more than that to be held.

    5.5 GiB at the peak, 2.3 of them held.
    """
    model, lora = _qwen3_8b(tpu_losses.mesh_on("v5e:2x4", fsdp=8)), LoRA()
    batch = _batch(model.mesh, ATTEMPTS.batch_size)
    peak = _peak(_compile(model, batch, microbatches=32, lora=lora))
    held = sum(held_in(PHASE, model, lora).values()) / GIB
    record_property("v5e:2x4", {"peak": peak, "held": held})
    assert held < peak < 6


@pytest.mark.slow
def test_defaults_fit_an_8b_on_a_slice_of_v5p(record_property):
    """All parameters, v5p:2x4x4, 95 GiB a chip: 16.0 at the peak."""
    model = _qwen3_8b(tpu_losses.mesh_on("v5p:2x4x4", fsdp=32))
    peak = _peak(_compile(model, _batch(model.mesh, ATTEMPTS.batch_size)))
    held = sum(held_in(PHASE, model).values()) / GIB
    record_property("v5p:2x4x4", {"peak": peak, "held": held})
    assert held < peak < 17


@pytest.mark.slow
def test_long_episodes_fit_whole_on_a_slice_of_v5p(record_property):
    """An episode of 32,768 tokens a chip, v5p:2x4x4: no sequence is cut.

    34.4 GiB at the peak, of 95.
    """
    model = _qwen3_8b(tpu_losses.mesh_on("v5p:2x4x4", fsdp=32))
    peak = _peak(_compile(model, _batch(model.mesh, 32, width=32_768)))
    record_property("v5p:2x4x4, 32,768 tokens", {"peak": peak})
    assert peak < 37
