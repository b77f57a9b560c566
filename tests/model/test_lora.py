"""Adapters on a model: the same function as the merged weights, and its derivative."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdjax.errors import ConfigError
from fdjax.model import LoRA, Model, ModelConfig, adapt, init_adapters, merge
from fdjax.model.lora import Adapter, adapter_axes

CONFIG = ModelConfig(
    vocab_size=48,
    hidden_size=32,
    intermediate_size=40,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    max_position_embeddings=64,
    attention_bias=True,
)
LORA = LoRA(rank=3, alpha=12.0)
TOKENS = np.random.default_rng(0).integers(0, 48, (4, 12), np.int32)
VALID = np.arange(12)[None] >= np.array([0, 3, 7, 11])[:, None]


@functools.cache
def start(lora=LORA):
    """A model, its base, and adapters whose B is not zero."""
    model = Model(CONFIG)
    base = jax.jit(model.init)(jax.random.key(0))
    adapters = init_adapters(jax.random.key(1), base, lora)
    rng = np.random.default_rng(2)
    moved = jax.tree.map(
        lambda leaf: leaf + rng.normal(0, 0.1, leaf.shape).astype(np.float32), adapters
    )
    return model, base, adapters, moved


def logits(model, params):
    return np.asarray(jax.jit(model.apply)(params, TOKENS, valid=VALID))


def test_fresh_adapters_change_no_bit():
    model, base, fresh, _ = start()
    np.testing.assert_array_equal(
        logits(model, adapt(base, fresh)), logits(model, base)
    )


@pytest.mark.parametrize(
    "lora", [LORA, LoRA(rank=1, targets=("value", "output"))], ids=["all", "two"]
)
def test_adapted_and_merged_are_one_function(lora):
    model, base, _, moved = start(lora)
    adapted = logits(model, adapt(base, moved))
    # Another order of sums in float32, over logits of about 1.
    np.testing.assert_allclose(
        adapted, logits(model, merge(adapt(base, moved))), rtol=0, atol=2e-5
    )
    assert np.abs(adapted - logits(model, base)).max() > 0.05


def test_merged_by_hand():
    """One layer of down in float64: W + 12/3 · A B."""
    _, base, _, moved = start()
    weight = np.asarray(base["layers"]["mlp"]["down"], np.float64)
    adapter = moved["layers"]["mlp"]["down"]
    a, b = (np.asarray(part, np.float64) for part in (adapter.a, adapter.b))
    found = merge(adapt(base, moved))["layers"]["mlp"]["down"]
    np.testing.assert_allclose(found[1], weight[1] + 4 * a[1] @ b[1], atol=1e-6)


def test_merging_adds_in_float32_and_keeps_the_type():
    _, base, _, moved = start()
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), base)
    found = merge(adapt(half, moved))
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), half)
    exact = merge(adapt(wide, moved))
    jax.tree.map(
        lambda one, other: np.testing.assert_array_equal(
            one, other.astype(jnp.bfloat16)
        ),
        found,
        exact,
    )


@functools.cache
def gradients():
    """By the adapters, and by the merged weights in their place."""
    model, base, _, moved = start()

    def loss(params):
        valid = jnp.asarray(VALID)
        found = model.apply(params, jnp.asarray(TOKENS), valid=valid)
        return jnp.where(valid[..., None], jnp.sin(found), 0.0).sum()

    return (
        jax.jit(jax.grad(lambda adapters: loss(adapt(base, adapters))))(moved),
        jax.jit(jax.grad(loss))(merge(adapt(base, moved))),
    )


@pytest.mark.parametrize(
    ("module", "name", "inputs"),
    [
        ("attention", "query", 1),
        ("attention", "key", 1),
        ("attention", "value", 1),
        ("attention", "output", 2),
        ("mlp", "gate", 1),
        ("mlp", "up", 1),
        ("mlp", "down", 1),
    ],
)
def test_the_chain_rule_from_the_merged_weights(module, name, inputs):
    """dA = s dW Bᵀ and dB = s Aᵀ dW, in float64, with dW of the merged model."""
    of_adapters, of_weights = gradients()
    _, _, _, moved = start()
    adapter, found = (tree["layers"][module][name] for tree in (moved, of_adapters))
    slope = np.asarray(of_weights["layers"][module][name], np.float64)
    for layer in range(CONFIG.num_layers):
        a, b = (np.asarray(part[layer], np.float64) for part in (adapter.a, adapter.b))
        matrix = slope[layer].reshape(np.prod(a.shape[:inputs]), -1)
        a_matrix, b_matrix = a.reshape(-1, 3), b.reshape(3, -1)
        by_a = 4 * (matrix @ b_matrix.T).reshape(a.shape)
        by_b = 4 * (a_matrix.T @ matrix).reshape(b.shape)
        # Sums of a few hundred products in float32.
        np.testing.assert_allclose(found.a[layer], by_a, rtol=1e-3, atol=2e-4)
        np.testing.assert_allclose(found.b[layer], by_b, rtol=1e-3, atol=2e-4)
        assert np.abs(by_a).max() > 1e-2
        assert np.abs(by_b).max() > 1e-2


def test_a_begins_within_its_bound_and_b_at_zero():
    _, base, _, _ = start()
    fresh = init_adapters(jax.random.key(1), base, LoRA(rank=64))["layers"]
    for module, name, fan_in in (
        ("attention", "query", 32),
        ("attention", "output", 32),
        ("mlp", "down", 40),
    ):
        adapter = fresh[module][name]
        bound = fan_in**-0.5
        assert np.abs(adapter.a).max() <= bound
        # A uniform one deviates by bound/√3; 4,096 values tell within 5 %.
        assert np.std(adapter.a) == pytest.approx(bound / 3**0.5, rel=0.05)
        assert not np.any(adapter.b)
        assert adapter.scale == 0.5
    assert np.any(fresh["mlp"]["gate"].a != fresh["mlp"]["up"].a)


def test_a_target_begins_the_same_beside_any_others():
    _, base, _, _ = start()
    alone = init_adapters(jax.random.key(1), base, LoRA(targets=("down",)))
    beside = init_adapters(jax.random.key(1), base, LoRA())
    assert list(alone["layers"]) == ["mlp"]
    np.testing.assert_array_equal(
        alone["layers"]["mlp"]["down"].a, beside["layers"]["mlp"]["down"].a
    )


def test_axes_are_those_of_the_weight_and_the_rank():
    model, _, fresh, _ = start()
    axes = adapter_axes(model.logical_axes(), LORA)
    assert axes["layers"]["attention"]["output"] == Adapter(
        ("layer", "heads", "head_dim", "rank"), ("layer", "rank", "embed"), 4.0
    )
    shapes = jax.tree.map(lambda leaf: len(leaf.shape), fresh)
    lengths = jax.tree.map(len, axes, is_leaf=lambda node: isinstance(node, tuple))
    assert shapes == lengths


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rank": 0}, "LoRA.rank to be"),
        ({"alpha": 0.0}, "LoRA.alpha to be"),
        ({"targets": ("q_proj",)}, "LoRA.targets to be"),
        ({"targets": ()}, "LoRA.targets to name one or more"),
        ({"targets": ("up", "up")}, "each once"),
    ],
)
def test_bad_settings(settings, said):
    with pytest.raises(ConfigError, match=said):
        LoRA(**settings)
