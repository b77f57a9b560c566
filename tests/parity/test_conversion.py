"""What we write, read by transformers; run by `make parity`."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from fdjax.checkpoint import (
    CheckpointStore,
    convert,
    load_pretrained,
    open_source,
    save_pretrained,
)
from fdjax.train import OptimizerConfig, init_state, make_optimizer
from parity.models import CASES, saved, theirs
from tiny import mesh_of

every_family = pytest.mark.parametrize("case", CASES, ids=str)
_TOKENS = np.random.default_rng(5).integers(0, 99, (2, 30))


def _their_logits(model, tokens=_TOKENS):
    with torch.no_grad():
        return model.eval()(torch.tensor(tokens)).logits.float().numpy()


def _our_logits(loaded, params=None, tokens=_TOKENS):
    return jax.jit(loaded.model.apply)(
        loaded.params if params is None else params,
        tokens.astype(np.int32),
        valid=np.ones(tokens.shape, bool),
    )


@every_family
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_there_and_back_loads_as_the_same_model(case, dtype, tmp_path):
    source = saved(case, dtype)
    convert(open_source(source), tmp_path / "orbax", to="orbax")
    convert(
        open_source(tmp_path / "orbax"),
        tmp_path / "hf",
        to="hf",
        max_shard_bytes=50_000,
    )
    before, after = (
        AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
        for folder in (source, tmp_path / "hf")
    )
    assert type(before) is type(after)
    assert before.dtype == after.dtype == getattr(torch, dtype)
    for (name, one), other in zip(
        before.state_dict().items(), after.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), name
    np.testing.assert_array_equal(_their_logits(before), _their_logits(after))


@every_family
def test_a_trained_model_is_exported_with_equal_logits(case, tmp_path):
    loaded = load_pretrained(saved(case), mesh_of(fsdp=2, tensor=2))

    @jax.jit
    def step(params):
        def loss(params):
            logits = loaded.model.apply(
                params,
                jnp.asarray(_TOKENS, jnp.int32),
                valid=jnp.ones(_TOKENS.shape, bool),
            )
            labels = jnp.asarray(_TOKENS[:, 1:], jnp.int32)
            return optax.softmax_cross_entropy_with_integer_labels(
                logits[:, :-1], labels
            ).mean()

        return jax.tree.map(lambda p, g: p - 0.5 * g, params, jax.grad(loss)(params))

    with jax.numpy_dtype_promotion("standard"):
        trained = step(loaded.params)
    save_pretrained(
        trained,
        loaded.model.config,
        tmp_path / "hf",
        description=loaded.folder,
        max_shard_bytes=50_000,
    )
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    got = _their_logits(exported)
    assert np.abs(got - _their_logits(theirs(case))).max() > 1e-2
    np.testing.assert_allclose(got, _our_logits(loaded, trained), atol=1e-4)


@pytest.mark.parametrize("which", ["student", "teacher"])
def test_student_and_teacher_of_a_training_checkpoint(which, tmp_path):
    case = next(case for case in CASES if case.name == "qwen3")
    loaded = load_pretrained(saved(case), mesh_of())
    with jax.numpy_dtype_promotion("standard"):
        optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-2))
        state = init_state(loaded.model, optimizer, mesh_of(), jax.random.key(0))
    teacher = jax.tree.map(lambda leaf: 0.9 * leaf, loaded.params)
    state = state._replace(params=loaded.params, teacher=teacher)
    with CheckpointStore(tmp_path / "run") as store:
        store.save(1, state, {})
        store.wait()
    source = open_source(tmp_path / "run", model=saved(case))
    convert(source, tmp_path / "hf", to="hf", which=which)
    got = _their_logits(AutoModelForCausalLM.from_pretrained(tmp_path / "hf"))
    params = teacher if which == "teacher" else loaded.params
    np.testing.assert_allclose(got, _our_logits(loaded, params), atol=1e-4)


def test_a_checkpoint_in_the_shape_of_qwen_0_5b(tmp_path, record_property):
    """494 million parameters, tied, saved by transformers in bfloat16."""
    config = AutoConfig.for_model(
        "qwen2",
        vocab_size=151_936,
        hidden_size=896,
        intermediate_size=4_864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        max_position_embeddings=32_768,
        tie_word_embeddings=True,
        rope_theta=1e6,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "hf", max_shard_size="400MB")
    assert (
        json.loads((tmp_path / "hf" / "config.json").read_text())["dtype"] == "bfloat16"
    )
    tokens = np.random.default_rng(0).integers(0, 151_936, (1, 128))
    want = _their_logits(model.float(), tokens)
    del model
    loaded = load_pretrained(tmp_path / "hf", mesh_of())
    got = np.asarray(_our_logits(loaded, tokens=tokens))
    difference = float(np.abs(got - want).max())
    record_property("parity", ("0.5B, tied", "logits", difference))
    assert difference < 1e-4
    np.testing.assert_array_equal(got.argmax(-1), want.argmax(-1))
