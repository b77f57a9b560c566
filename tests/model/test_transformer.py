import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdjax.errors import ConfigError
from fdjax.model import Model, ModelConfig
from fdjax.sharding import batch_sharding, init_sharded, make_mesh
from reference import qwen3

_TINY = ModelConfig(
    vocab_size=48,
    hidden_size=32,
    intermediate_size=48,
    num_layers=2,
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
    random = np.random.default_rng(1)
    params = jax.tree.map(
        lambda leaf: leaf + 0.2 * random.normal(size=leaf.shape).astype(np.float32),
        params,
    )
    return model, params, jax.jit(model.apply)


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
    return np.random.default_rng(seed).integers(
        0, _TINY.vocab_size, (rows, length), np.int32
    )


def _ragged(side):
    """Lengths 12, 9, 5, 1 in a [4, 12] mask, padded on `side`."""
    lengths = np.array([12, 9, 5, 1])
    valid = np.arange(12)[None] < lengths[:, None]
    return np.array(valid[:, ::-1] if side == "left" else valid)


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
    got = apply(params, tokens, valid=np.ones((2, 10), bool))
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


@functools.cache
def _gradient(config=_TINY):
    """Jitted `(params, tokens, valid) -> ((loss, logits), gradient)`."""
    model = Model(config)

    def loss(params, tokens, valid):
        logits = model.apply(params, tokens, valid=valid)
        return jnp.where(valid[..., None], logits, 0.0).std(), logits

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def _padded_batch():
    """Eight rows, four padded on the left and four on the right."""
    return _tokens(8, 12), np.concatenate([_ragged("left"), _ragged("right")])


def test_pad_ids_change_no_bit_of_logits_or_gradients():
    _, params, _ = _model()
    tokens, valid = _padded_batch()
    first = _gradient()(params, tokens, valid)
    second = _gradient()(params, np.where(valid, tokens, -7_000), valid)
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_rows_of_nothing_but_padding_are_finite():
    _, params, _ = _model()
    tokens, valid = _padded_batch()
    valid[2] = False
    result = _gradient()(params, tokens, valid)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result))


def test_later_tokens_leave_earlier_logits_bit_equal():
    _, params, apply = _model()
    tokens, valid = _tokens(4, 12), np.ones((4, 12), bool)
    changed = tokens.copy()
    changed[:, 7] = (changed[:, 7] + 1) % _TINY.vocab_size
    before, after = (apply(params, t, valid=valid) for t in (tokens, changed))
    np.testing.assert_array_equal(before[:, :7], after[:, :7])
    assert (np.abs(before[:, 7:] - after[:, 7:]).max(axis=-1) > 1e-3).all()


def test_given_positions_shift_nothing_but_rope():
    # RoPE sees only differences of positions, so a common shift changes nothing.
    model, params, _ = _model()
    tokens, valid = _tokens(2, 8), np.ones((2, 8), bool)
    run = jax.jit(model.hidden)
    plain = run(params, tokens, valid=valid)
    shift = np.broadcast_to(np.arange(8)[None] + 5, (2, 8))
    shifted = run(params, tokens, valid=valid, positions=shift)
    np.testing.assert_allclose(shifted, plain, rtol=1e-4, atol=1e-4)
    spread = run(params, tokens, valid=valid, positions=2 * shift)
    assert np.abs(spread - plain).max() > 1e-2


def test_rows_that_are_not_packed_leave_no_maxima_to_fold():
    """XLA would work out those of constant segments while it compiles, for a minute."""
    model, params, _ = _model()
    given = {"valid": np.ones((2, 8), bool)}

    def traced(**given):
        run = functools.partial(model.hidden, params)
        return str(jax.make_jaxpr(run)(_tokens(2, 8), **given))

    assert "cummax" in traced(**given, segments=np.zeros((2, 8), np.int32))
    assert "cummax" not in traced(**given)


def test_head_of_some_positions_equals_apply():
    model, params, apply = _model()
    tokens, valid = _tokens(4, 12), _ragged("left")
    hidden = jax.jit(model.hidden)(params, tokens, valid=valid)
    np.testing.assert_allclose(
        model.head(params, hidden[:, 8:]),
        apply(params, tokens, valid=valid)[:, 8:],
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize("unroll", [False, True])
def test_remat_changes_neither_value_nor_gradient(unroll):
    _, params, _ = _model()
    config = _config(remat="none", unroll=unroll)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
        _gradient(config)(params, *_padded_batch()),
        _gradient()(params, *_padded_batch()),
    )


def test_bfloat16_activations_keep_float32_logits_near_the_reference():
    _, params, _ = _model()
    tokens = _tokens(2, 10)
    model = Model(_config(dtype="bfloat16"))
    got = jax.jit(model.apply)(params, tokens, valid=np.ones((2, 10), bool))
    assert got.dtype == jnp.float32
    want = np.stack([_reference(_TINY, params, row) for row in tokens])
    # bfloat16 keeps 8 bits: a relative error of 2^-8 in each of some ten roundings.
    assert np.abs(got - want).max() < 0.04 * np.abs(want).max()
    assert np.abs(got - want).max() > 1e-4


@pytest.mark.parametrize(
    "config", [_TINY, _config(tie_word_embeddings=False, attention_bias=True)]
)
def test_logical_axes_match_the_parameters(config):
    model = Model(config)
    sizes = {
        "layer": 2,
        "vocab": 48,
        "embed": 32,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 8,
        "mlp": 48,
    }
    abstract = jax.eval_shape(model.init, jax.random.key(0))
    expected = jax.tree.map(
        lambda axes: tuple(sizes[axis] for axis in axes),
        model.logical_axes(),
        is_leaf=lambda node: isinstance(node, tuple),
    )
    assert jax.tree.map(lambda leaf: leaf.shape, abstract) == expected


def test_init_is_float32_and_depends_on_the_key_only():
    model = Model(_config(dtype="bfloat16"))
    init = jax.jit(model.init)
    first, again, other = (init(jax.random.key(seed)) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(first))
    assert np.abs(first["embedding"] - other["embedding"]).max() > 0.1
    query = first["layers"]["attention"]["query"]
    assert np.abs(query[0] - query[1]).max() > 0.1
    # Var = 1/fan-in = 1/32 over 2·32·4·8 = 2048 values: std error of the std 1.6 %.
    np.testing.assert_allclose(query.std(), 32**-0.5, rtol=0.08)


def test_eight_devices_equal_one():
    model, params, _ = _model()
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    sharded = init_sharded(
        mesh, lambda _: params, model.logical_axes(), jax.random.key(0)
    )
    up = sharded["layers"]["mlp"]["up"]
    # [2, 32, 48] with 32 over fsdp = 2 and 48 over tensor = 2.
    assert {shard.data.shape for shard in up.addressable_shards} == {(2, 16, 24)}
    batch = jax.device_put(_padded_batch(), batch_sharding(mesh))
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
        _gradient()(sharded, *batch),
        _gradient()(params, *_padded_batch()),
    )


def test_too_long_a_sequence_is_an_error():
    _, params, apply = _model()
    with pytest.raises(ConfigError, match="at most max_position_embeddings = 64"):
        apply(params, _tokens(1, 65), valid=np.ones((1, 65), bool))
