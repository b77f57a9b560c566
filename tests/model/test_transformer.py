import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import qwen3

from fdjax.errors import ConfigError
from fdjax.model import Model, ModelConfig
from fdjax.sharding import batch_sharding, init_sharded, make_mesh

_TINY = ModelConfig(
    vocab_size=48,
    hidden_size=32,
    intermediate_size=48,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    max_position_embeddings=64,
)


def _config(**changes):
    return ModelConfig(**{**vars(_TINY), **changes})


@functools.cache
def _model(config=_TINY):
    """A model and parameters in which no scale is 1 and no bias 0."""
    model = Model(config)
    params = jax.jit(model.init)(jax.random.key(0))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    leaves = [
        leaf + 0.2 * jax.random.normal(key, leaf.shape)
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    return model, jax.tree.unflatten(tree, leaves), jax.jit(model.apply)


def _reference(config, params, tokens):
    return qwen3.logits(
        params,
        tokens,
        layers=config.num_layers,
        heads=config.num_heads,
        kv_heads=config.num_kv_heads,
        theta=config.rope_theta,
        eps=config.rms_norm_eps,
    )


def _tokens(rows, length, seed=2):
    return jax.random.randint(
        jax.random.key(seed), (rows, length), 0, _TINY.vocab_size, jnp.int32
    )


def _ragged(side):
    """Lengths 12, 9, 5, 1 in a [4, 12] mask, padded on `side`."""
    lengths = np.array([12, 9, 5, 1])
    valid = np.arange(12)[None] < lengths[:, None]
    return jnp.array(valid[:, ::-1] if side == "left" else valid)


@pytest.mark.parametrize(
    "config",
    [
        _TINY,
        _config(tie_word_embeddings=False),
        _config(attention_bias=True),
        _config(qk_norm=False, num_kv_heads=1),
        _config(num_kv_heads=4, rope_theta=1e6, rms_norm_eps=1e-3),
        _config(unroll=True),
    ],
    ids=["gqa", "untied", "bias", "no-qk-norm", "mha", "unrolled"],
)
def test_logits_equal_the_numpy_reference(config):
    _, params, apply = _model(config)
    tokens = _tokens(2, 10)
    got = apply(params, tokens, valid=jnp.ones((2, 10), bool))
    for row in range(2):
        want = _reference(config, params, tokens[row])
        np.testing.assert_allclose(got[row], want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_row_equals_the_reference_without_padding(side):
    _, params, apply = _model()
    tokens, valid = _tokens(4, 12), _ragged(side)
    got = apply(params, tokens, valid=valid)
    for row in range(4):
        kept = np.asarray(valid[row])
        want = _reference(_TINY, params, tokens[row][kept])
        np.testing.assert_allclose(got[row][kept], want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_pad_ids_change_no_bit_of_logits_or_gradients(side):
    model, params, _ = _model()
    tokens, valid = _tokens(4, 12), _ragged(side)

    @jax.jit
    def loss(params, tokens):
        logits = model.apply(params, tokens, valid=valid)
        return jnp.where(valid[..., None], logits, 0.0).std(), logits

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    first = run(params, tokens)
    second = run(params, jnp.where(valid, tokens, -7_000))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(first))


def test_rows_of_nothing_but_padding_are_finite():
    model, params, apply = _model()
    tokens, valid = _tokens(2, 6), jnp.array([[True] * 6, [False] * 6])
    assert np.isfinite(apply(params, tokens, valid=valid)).all()
    gradient = jax.grad(lambda p: model.apply(p, tokens, valid=valid).mean())(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_later_tokens_leave_earlier_logits_bit_equal():
    _, params, apply = _model()
    tokens, valid = _tokens(4, 12), jnp.ones((4, 12), bool)
    changed = tokens.at[:, 7].set((tokens[:, 7] + 1) % _TINY.vocab_size)
    before, after = (apply(params, t, valid=valid) for t in (tokens, changed))
    np.testing.assert_array_equal(before[:, :7], after[:, :7])
    assert (np.abs(before[:, 7:] - after[:, 7:]).max(axis=-1) > 1e-3).all()


def test_given_positions_shift_nothing_but_rope():
    # RoPE sees only differences of positions, so a common shift changes nothing.
    model, params, _ = _model()
    tokens, valid = _tokens(2, 8), jnp.ones((2, 8), bool)
    plain = model.hidden(params, tokens, valid=valid)
    shift = jnp.broadcast_to(jnp.arange(8)[None] + 5, (2, 8))
    shifted = model.hidden(params, tokens, valid=valid, positions=shift)
    np.testing.assert_allclose(shifted, plain, rtol=1e-4, atol=1e-4)
    spread = model.hidden(params, tokens, valid=valid, positions=2 * shift)
    assert np.abs(spread - plain).max() > 1e-2


def test_head_of_some_positions_equals_apply():
    model, params, apply = _model()
    tokens, valid = _tokens(4, 12), _ragged("left")
    hidden = model.hidden(params, tokens, valid=valid)
    np.testing.assert_allclose(
        model.head(params, hidden[:, 8:]),
        apply(params, tokens, valid=valid)[:, 8:],
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize("unroll", [False, True])
def test_remat_changes_neither_value_nor_gradient(unroll):
    tokens, valid = _tokens(2, 8), jnp.ones((2, 8), bool)
    _, params, _ = _model()
    results = []
    for remat in ("none", "full"):
        model = Model(_config(remat=remat, unroll=unroll))
        loss = jax.jit(
            jax.value_and_grad(
                lambda p, m=model: m.apply(p, tokens, valid=valid).std()
            )
        )
        results.append(loss(params))
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), *results
    )


def test_bfloat16_activations_keep_float32_logits_near_the_reference():
    _, params, _ = _model()
    tokens = _tokens(2, 10)
    model = Model(_config(dtype="bfloat16"))
    got = jax.jit(model.apply)(params, tokens, valid=jnp.ones((2, 10), bool))
    assert got.dtype == jnp.float32
    want = np.stack([_reference(_TINY, params, row) for row in tokens])
    # bfloat16 keeps 8 bits: a relative error of 2^-8 in each of some ten roundings.
    assert np.abs(got - want).max() < 0.04 * np.abs(want).max()
    assert np.abs(got - want).max() > 1e-4


def test_logical_axes_match_the_parameters():
    for config in (_TINY, _config(tie_word_embeddings=False, attention_bias=True)):
        model = Model(config)
        sizes = {
            "layer": 3,
            "vocab": 48,
            "embed": 32,
            "heads": 4,
            "kv_heads": 2,
            "head_dim": 8,
            "mlp": 48,
        }
        shapes = jax.tree.map(
            lambda leaf: leaf.shape, jax.eval_shape(model.init, jax.random.key(0)),
        )
        is_tuple = lambda node: isinstance(node, tuple)  # noqa: E731
        expected = jax.tree.map(
            lambda axes: tuple(sizes[axis] for axis in axes),
            model.logical_axes(),
            is_leaf=is_tuple,
        )
        assert shapes == expected


def test_init_is_float32_and_depends_on_the_key_only():
    model = Model(_config(dtype="bfloat16"))
    first, again, other = (model.init(jax.random.key(seed)) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(first))
    assert np.abs(first["embedding"] - other["embedding"]).max() > 0.1
    query = first["layers"]["attention"]["query"]
    assert np.abs(query[0] - query[1]).max() > 0.1
    # Var = 1/fan-in = 1/32 over 3·32·4·8 = 3072 values: std error of the std 1.3 %.
    np.testing.assert_allclose(query.std(), 32**-0.5, rtol=0.06)


def test_eight_devices_equal_one():
    model, params, apply = _model()
    tokens, valid = _tokens(8, 12), jnp.concatenate([_ragged("left")] * 2)
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    sharded = init_sharded(mesh, lambda _: params, model.logical_axes(), jax.random.key(0))
    assert sharded["layers"]["mlp"]["up"].sharding.shard_shape((3, 32, 48)) == (3, 16, 24)

    def loss(params, tokens, valid):
        logits = model.apply(params, tokens, valid=valid)
        return jnp.where(valid[..., None], logits, 0.0).std(), logits

    run = jax.jit(jax.grad(loss, has_aux=True))
    batch = jax.device_put((tokens, valid), batch_sharding(mesh))
    got_gradient, got = run(sharded, *batch)
    want_gradient, want = run(params, tokens, valid)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
        got_gradient,
        want_gradient,
    )


def test_too_long_a_sequence_is_an_error():
    model, params, _ = _model()
    with pytest.raises(ConfigError, match="at most max_position_embeddings = 64"):
        model.apply(params, _tokens(1, 65), valid=jnp.ones((1, 65), bool))
