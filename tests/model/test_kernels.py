import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdjax.model.attention as attention_module
from fdjax.errors import ConfigError
from fdjax.model import Model, ModelConfig
from fdjax.model.attention import causal_attention
from fdjax.model.kernels import choose_attention, splash_attention
from tiny import mesh_of


def _config(**changes):
    sizes = {
        "vocab_size": 48,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_layers": 2,
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 8,
    }
    return ModelConfig(**sizes | changes)


def _inputs(batch=2, length=40, heads=4, kv_heads=2, size=8):
    rng = np.random.default_rng(0)

    def draw(count):
        return rng.normal(size=(batch, length, count, size)).astype(np.float32)

    # A packed row: padding, two sequences, padding; and a plain one.
    segments = np.ones((batch, length), np.int32)
    segments[0, :3] = segments[0, -5:] = 0
    segments[0, length // 2 :][: length // 2 - 5] = 2
    return draw(heads), draw(kv_heads), draw(kv_heads), segments


def _float64(query, key, value, segments):
    """Attention of one position at a time, in NumPy float64."""
    query, key, value = (x.astype(np.float64) for x in (query, key, value))
    out = np.zeros_like(query)
    share = query.shape[2] // key.shape[2]
    for b, t, n in np.ndindex(query.shape[:3]):
        seen = np.flatnonzero(segments[b, : t + 1] == segments[b, t])
        scores = key[b, seen, n // share] @ query[b, t, n] / np.sqrt(query.shape[3])
        weights = np.exp(scores - scores.max())
        out[b, t, n] = weights @ value[b, seen, n // share] / weights.sum()
    return out


_KINDS = {
    "reference": causal_attention,
    "xla": choose_attention(_config(attention="xla")),
    "splash": functools.partial(splash_attention, interpret=True),
}


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_kernels_equal_float64(kind, kv_heads):
    query, key, value, segments = _inputs(kv_heads=kv_heads)
    got = jax.jit(_KINDS[kind])(query, key, value, segments=segments)
    want = _float64(query, key, value, segments)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def _gradients(attend, query, key, value, segments):
    def loss(query, key, value, segments):
        heads = attend(query, key, value, segments=segments)
        weight = jnp.where(segments[..., None, None] > 0, 1.0, 0.0)
        return jnp.sum(weight * jnp.sin(heads))

    return jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(query, key, value, segments)


@pytest.mark.parametrize("kind", ["xla", "splash"])
def test_gradients_of_kernels_equal_the_reference(kind):
    # 600 tokens are two blocks of splash attention, the last one not full.
    inputs = _inputs(batch=1, length=600, size=16)
    want = _gradients(causal_attention, *inputs)
    got = _gradients(_KINDS[kind], *inputs)
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_blocks_of_queries_equal_the_whole(monkeypatch):
    inputs = _inputs(length=40)
    query, key, value, segments = inputs
    want = jax.jit(causal_attention)(query, key, value, segments=segments)
    wanted = _gradients(causal_attention, *inputs)
    monkeypatch.setattr(attention_module, "_WHOLE", 8)
    monkeypatch.setattr(attention_module, "_BLOCK", 16)  # 40 = 16 + 16 + 8
    jax.clear_caches()
    got = jax.jit(causal_attention)(query, key, value, segments=segments)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
    for one, other in zip(_gradients(causal_attention, *inputs), wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_blocks_of_queries_bound_memory():
    def peak(length):
        shapes = [
            jax.ShapeDtypeStruct((1, length, count, 8), jnp.float32)
            for count in (2, 1, 1)
        ]
        segments = jax.ShapeDtypeStruct((1, length), jnp.int32)

        def loss(query, key, value, segments):
            return causal_attention(query, key, value, segments=segments).sum()

        compiled = jax.jit(jax.grad(loss)).lower(*shapes, segments).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    # [T, T] scores of two heads would be 2 GiB at 16,384 tokens.
    assert peak(16_384) < 3 * peak(8_192) < 1 << 30


@pytest.mark.parametrize("kind", ["reference", "splash"])
@pytest.mark.parametrize("sizes", [{"data": 2, "fsdp": 2, "tensor": 2}, {"fsdp": 8}])
def test_kernels_on_a_mesh_equal_one_device(kind, sizes):
    tokens = np.random.default_rng(1).integers(0, 48, (8, 20), np.int32)
    valid = np.arange(20) >= np.arange(8)[:, None]
    plain = Model(_config())
    params = jax.jit(plain.init)(jax.random.key(0))
    want = jax.jit(plain.apply)(params, tokens, valid=valid)
    model = Model(_config(attention=kind), mesh_of(**sizes))
    apply = jax.jit(model.apply)
    got = apply(params, tokens, valid=valid)
    kept = np.where(valid[..., None], got - want, 0.0)
    np.testing.assert_allclose(kept, 0.0, atol=1e-5)
    # Rows that do not divide over the mesh are computed everywhere.
    odd = apply(params, tokens[:3], valid=valid[:3])
    np.testing.assert_allclose(
        np.where(valid[:3, :, None], odd - want[:3], 0.0), 0.0, atol=1e-5
    )


def test_the_kernel_goes_by_the_platform():
    class Device:
        def __init__(self, platform):
            self.platform = platform

    class Mesh:
        def __init__(self, platform):
            self.devices = np.array([Device(platform)])

    def name(platform, **changes):
        chosen = choose_attention.__wrapped__(_config(**changes), Mesh(platform))
        return getattr(chosen, "func", chosen).__name__, getattr(chosen, "args", ())

    assert name("cpu")[0] == "causal_attention"
    assert name("tpu")[0] == "splash_attention"
    assert name("gpu")[0] == "causal_attention"
    assert name("gpu", dtype="bfloat16") == ("_dot_product_attention", ("cudnn",))
    assert name("gpu", dtype="bfloat16", head_dim=256)[0] == "causal_attention"


@pytest.mark.parametrize(
    "changes",
    [
        {"remat": "dots"},
        {"remat": "named"},
        {"remat": "named", "remat_names": ("query", "key", "value", "inner")},
    ],
)
def test_remat_keeps_what_it_names(changes):
    everything, nothing = _saved(remat="none"), _saved()
    assert nothing <= _saved(**changes) < everything


@functools.cache
def _saved(**changes):
    """Bytes that a gradient through twelve layers needs beside its arguments."""
    model = Model(_config(num_layers=12, **changes))
    params = jax.eval_shape(model.init, jax.random.key(0))
    tokens = jax.ShapeDtypeStruct((2, 16), jnp.int32)

    def loss(params, tokens):
        return model.apply(params, tokens, valid=tokens >= 0).sum()

    compiled = jax.jit(jax.grad(loss)).lower(params, tokens).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_packed_sequences_equal_separate_rows():
    model = Model(_config())
    params = jax.jit(model.init)(jax.random.key(0))
    rng = np.random.default_rng(3)
    rows = [rng.integers(0, 48, size, np.int32) for size in (5, 9, 1)]
    packed = np.concatenate([*rows, np.zeros(3, np.int32)])[None]
    segments = np.repeat([7, 0, 4, 4], [5, 9, 1, 3])[None].astype(np.int32)
    valid = np.arange(18)[None] < 15
    apply = jax.jit(model.apply)
    got = apply(params, packed, valid=valid, segments=segments)[0]
    start = 0
    for row in rows:
        want = apply(params, row[None], valid=np.ones((1, len(row)), bool))[0]
        np.testing.assert_allclose(
            got[start : start + len(row)], want, rtol=1e-5, atol=1e-5
        )
        start += len(row)


@pytest.mark.slow
def test_context_up_to_32768_tokens():
    """The full forward in blocks of queries equals a step over pages at the far end."""
    config = _config(
        num_layers=1,
        num_heads=1,
        num_kv_heads=1,
        max_position_embeddings=32_768,
        remat="full",
    )
    model = Model(config)
    params = jax.jit(model.init)(jax.random.key(0))
    tokens = np.random.default_rng(0).integers(0, 48, (1, 32_768), np.int32)
    valid = np.ones(tokens.shape, bool)
    got = jax.jit(model.hidden)(params, tokens, valid=valid)
    # All pages but the last token's, each a row of its own; then that token.
    page = 64
    pages = model.init_pages(1 + 32_768 // page, page)
    table = 1 + np.arange(32_768 // page, dtype=np.int32)
    extend = jax.jit(model.extend)
    _, pages = extend(
        params,
        pages,
        tokens.reshape(-1, page),
        tables=np.tile(table, (len(table), 1)),
        starts=page * np.arange(len(table), dtype=np.int32),
    )
    hidden, _ = extend(
        params,
        pages,
        tokens[:, -1:],
        tables=table[None],
        starts=np.array([32_767], np.int32),
    )
    last = model.head(params, hidden[:, 0])
    np.testing.assert_allclose(
        model.head(params, got[:, -1]), last, rtol=1e-4, atol=1e-4
    )


def test_a_sequence_beyond_the_model_is_refused():
    model = Model(_config(max_position_embeddings=16))
    params = jax.eval_shape(model.init, jax.random.key(0))
    tokens = jax.ShapeDtypeStruct((1, 17), jnp.int32)
    with pytest.raises(ConfigError, match="at most max_position_embeddings = 16"):
        jax.eval_shape(lambda p, t: model.apply(p, t, valid=t >= 0), params, tokens)
