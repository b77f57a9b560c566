"""The learning rate of each step, and what weight decay shrinks."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fdjax.model import Model
from fdjax.train import OptimizerConfig, make_optimizer
from tiny import MODEL


@pytest.mark.parametrize(
    ("settings", "rates"),
    [
        ({}, [8, 8, 8]),
        ({"warmup_steps": 1}, [8, 8, 8]),
        ({"warmup_steps": 4}, [2, 4, 6, 8, 8, 8]),
        # Half a cosine from 8 to 0.1 · 8: after a half of its steps, 8 · (1 + 0.1)/2.
        ({"decay_steps": 2}, [8, 4.4, 0.8, 0.8]),
        ({"warmup_steps": 2, "decay_steps": 4}, [4, 8, 8, 4.4, 0.8, 0.8]),
    ],
)
def test_learning_rate_of_each_step(settings, rates):
    """Adam's first steps along one gradient have the length of the learning rate."""
    optimizer = make_optimizer(OptimizerConfig(learning_rate=8.0, **settings))
    params = {"weight": jnp.zeros(1)}
    state = optimizer.init(params)
    for rate in rates:
        updates, state = optimizer.update({"weight": jnp.ones(1)}, state, params)
        np.testing.assert_allclose(updates["weight"], [-rate], rtol=1e-5)


def test_weight_decay_spares_norms_and_biases():
    config = replace(
        MODEL.config,
        attention_bias=True,
        output_bias=True,
        mlp_bias=True,
        tie_word_embeddings=False,
    )
    params = jax.tree.map(jnp.ones_like, Model(config).init(jax.random.key(0)))
    optimizer = make_optimizer(OptimizerConfig(learning_rate=0.5, weight_decay=0.25))
    updates, _ = optimizer.update(
        jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params
    )
    shrunk = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, update in jax.tree_util.tree_leaves_with_path(updates)
        if (np.asarray(update) == -0.125).all()
    }
    assert shrunk == {
        "embedding",
        "head",
        *(f"layers/attention/{name}" for name in ("query", "key", "value", "output")),
        *(f"layers/mlp/{name}" for name in ("gate", "up", "down")),
    }
    assert sum(np.asarray(u).any() for u in jax.tree.leaves(updates)) == len(shrunk)


def test_the_first_moment_may_have_fewer_bits():
    params = {"weight": jnp.ones(2)}
    gradient = {"weight": jnp.full(2, 1 + 2.0**-9)}

    def moments(**settings):
        optimizer = make_optimizer(OptimizerConfig(**settings))
        _, state = optimizer.update(gradient, optimizer.init(params), params)
        return (optax.tree.get(state, name)["weight"] for name in ("mu", "nu"))

    mu, nu = moments(mu_dtype="bfloat16")
    assert (mu.dtype, nu.dtype) == (jnp.bfloat16, jnp.float32)
    exact, same = moments()
    assert exact.dtype == jnp.float32
    np.testing.assert_array_equal(nu, same)
    np.testing.assert_array_equal(mu, exact.astype(jnp.bfloat16))
