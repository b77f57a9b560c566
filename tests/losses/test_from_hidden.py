import functools
import math
import re

import jax
import jax.numpy as jnp
import jaxtyping
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import loss_contract
from fdjax.errors import ConfigError
from fdjax.losses import (
    cispo_loss,
    dual_clip_grpo_loss,
    feedback_distillation_loss,
    feedback_distillation_loss_from_hidden,
    grpo_loss,
    gspo_loss,
    sampled_distillation_loss,
    sft_loss,
    token_loss_from_hidden,
)
from fdjax.ops import (
    BY_RULE,
    Chunking,
    chunked_logprobs,
    chunked_rows,
    entropy,
    forward_kl,
    generalized_jsd,
    head_logits,
    reverse_kl,
    token_logprobs,
    top_k_divergence,
)
from reference import divergence as reference
from tiny import mesh_of

VOCABULARY, WIDTH, TEACHER_WIDTH = 40, 8, 6
DIVERGENCES = {
    "forward": forward_kl,
    "reverse": reverse_kl,
    "jsd": functools.partial(generalized_jsd, alpha=0.3),
    "top-k": functools.partial(top_k_divergence, k=5, divergence=reverse_kl),
}
EXACT = {
    "forward": (reference.forward_kl, reference.forward_kl_gradient),
    "reverse": (reference.reverse_kl, reference.reverse_kl_gradient),
    "jsd": (
        functools.partial(reference.generalized_jsd, alpha=0.3),
        functools.partial(reference.generalized_jsd_gradient, alpha=0.3),
    ),
}


def _inputs(seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    mask = loss_contract.scored_mask()
    shapes = {
        "hidden": (*mask.shape, WIDTH),
        "head": (VOCABULARY, WIDTH),
        "teacher_hidden": (*mask.shape, TEACHER_WIDTH),
        "teacher_head": (VOCABULARY, TEACHER_WIDTH),
    }
    arrays = {name: rng.normal(0, 1, shape) for name, shape in shapes.items()}
    return {
        **{name: array.astype(dtype) for name, array in arrays.items()},
        "mask": mask,
        "weights": rng.uniform(0.5, 2.0, mask.shape).astype(np.float32),
        "tokens": rng.integers(0, VOCABULARY, mask.shape),
        "old_logprobs": -rng.gamma(4.0, 1.0, mask.shape).astype(np.float32),
        "advantages": rng.normal(0, 1, mask.shape[0]).astype(np.float32),
    }


def _normalizer(batch):
    return jnp.float32(batch["mask"].sum())


def _distillation(batch, *, divergence, chunking=BY_RULE, **settings):
    """The loss of student's hidden states and head, from them and from logits."""

    def chunked(hidden, head):
        return feedback_distillation_loss_from_hidden(
            hidden,
            head,
            teacher_hidden=batch["teacher_hidden"],
            teacher_head=batch["teacher_head"],
            mask=batch["mask"],
            normalizer=_normalizer(batch),
            divergence=divergence,
            weights=batch["weights"],
            chunking=chunking,
            **settings,
        )

    def whole(hidden, head):
        cap = {"soft_cap": settings.get("soft_cap")}
        return feedback_distillation_loss(
            head_logits(hidden, head, **cap),
            teacher_logits=head_logits(
                batch["teacher_hidden"], batch["teacher_head"], **cap
            ),
            mask=batch["mask"],
            normalizer=_normalizer(batch),
            divergence=divergence,
            weights=batch["weights"],
            temperature=settings.get("temperature", 1.0),
        )

    return chunked, whole


def _slopes(loss, batch):
    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    return step(batch["hidden"], batch["head"])


def _assert_same(got, want, rtol=2e-5, atol=2e-7):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), got, want
    )


@functools.cache
def _of_the_whole(name):
    """Loss with its slopes, and loss alone, from whole logits: of all chunks' sizes."""
    batch = jax.tree.map(jnp.asarray, _inputs())
    _, whole = _distillation(batch, divergence=DIVERGENCES[name])
    return _slopes(whole, batch), jax.jit(whole)(batch["hidden"], batch["head"])


@pytest.mark.parametrize("rows", [None, 1, 7, 48, 100])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_chunks_equal_the_whole(name, rows):
    batch = jax.tree.map(jnp.asarray, _inputs())
    chunked, _ = _distillation(
        batch, divergence=DIVERGENCES[name], chunking=Chunking(rows=rows)
    )
    with_slopes, alone = _of_the_whole(name)
    _assert_same(_slopes(chunked, batch), with_slopes)
    # Without a gradient another path computes the same.
    _assert_same(jax.jit(chunked)(batch["hidden"], batch["head"]), alone)


@pytest.mark.parametrize("settings", [{"soft_cap": 3.0}, {"temperature": 0.7}])
def test_soft_cap_and_temperature(settings):
    batch = jax.tree.map(jnp.asarray, _inputs(1))
    chunked, whole = _distillation(
        batch, divergence=forward_kl, chunking=Chunking(rows=10), **settings
    )
    got = _slopes(chunked, batch)
    _assert_same(got, _slopes(whole, batch))
    plain, _ = _distillation(batch, divergence=forward_kl)
    assert abs(float(got[0][0]) - float(plain(batch["hidden"], batch["head"])[0])) > 0.1


def _exact(batch, name):
    """Loss and gradients in float64, token by token."""
    value, slope = EXACT[name]
    wide = {
        key: np.asarray(array, np.float64)
        for key, array in batch.items()
        if key not in ("mask", "tokens")
    }
    total, by_hidden = 0.0, np.zeros(wide["hidden"].shape)
    by_head = np.zeros(wide["head"].shape)
    scored = batch["mask"].sum()
    for place in zip(*np.nonzero(batch["mask"]), strict=True):
        student = wide["head"] @ wide["hidden"][place]
        teacher = wide["teacher_head"] @ wide["teacher_hidden"][place]
        weight = wide["weights"][place] / scored
        total += weight * value(student, teacher)
        by_logits = weight * slope(student, teacher)
        by_hidden[place] = by_logits @ wide["head"]
        by_head += np.outer(by_logits, wide["hidden"][place])
    return total, (by_hidden, by_head)


@pytest.mark.parametrize("name", EXACT)
def test_equals_float64(name):
    batch = _inputs(2)
    chunked, _ = _distillation(
        jax.tree.map(jnp.asarray, batch),
        divergence=DIVERGENCES[name],
        chunking=Chunking(rows=9),
    )
    (loss, _), slopes = _slopes(chunked, batch)
    want, exact = _exact(batch, name)
    assert float(loss) == pytest.approx(want, rel=2e-6)
    _assert_same(slopes, exact, rtol=2e-5, atol=2e-7)


@pytest.mark.parametrize("name", EXACT)
def test_bfloat16_rounds_products_and_nothing_else(name):
    """Logits, sums and the head's gradient are float32; slopes are rounded once.

    A slope rounded to 8 bits is off by up to 2⁻⁸ of itself, at random, so that the
    gradients are off by less in norm; the loss itself is as exact as in float32.
    """
    batch = _inputs(3, ml_dtypes.bfloat16)
    batch["head"] = batch["head"].astype(np.float32)
    chunked, _ = _distillation(
        jax.tree.map(jnp.asarray, batch),
        divergence=DIVERGENCES[name],
        chunking=Chunking(rows=9),
    )
    (loss, _), (by_hidden, by_head) = _slopes(chunked, batch)
    want, exact = _exact(batch, name)
    assert float(loss) == pytest.approx(want, rel=1e-5)
    assert by_hidden.dtype == jnp.bfloat16
    assert by_head.dtype == jnp.float32
    for got, right in zip((by_hidden, by_head), exact, strict=True):
        error = np.linalg.norm(np.asarray(got, np.float64) - right)
        assert error < 2**-8 * np.linalg.norm(right)


def test_masked_rows_are_inert():
    batch = _inputs(4)
    clean, dirty = dict(batch), dict(batch)
    for name in ("hidden", "teacher_hidden", "weights"):
        dirty[name] = batch[name].copy()
        dirty[name][~batch["mask"]] = np.nan
    results = []
    for each in (clean, dirty):
        each = jax.tree.map(jnp.asarray, each)
        loss, _ = _distillation(each, divergence=reverse_kl, chunking=Chunking(rows=10))
        results.append(_slopes(loss, each))
    jax.tree.map(np.testing.assert_array_equal, *results)
    assert not np.asarray(results[0][1][0])[~batch["mask"]].any()


def test_nothing_scored_is_no_step():
    batch = jax.tree.map(jnp.asarray, _inputs(5))
    batch["mask"] = jnp.zeros_like(batch["mask"])
    chunked, _ = _distillation(batch, divergence=forward_kl)
    (loss, _), slopes = _slopes(chunked, batch)
    assert float(loss) == 0.0
    assert not any(np.asarray(slope).any() for slope in slopes)


def test_a_factor_outside_scales_the_gradient():
    batch = jax.tree.map(jnp.asarray, _inputs(6))
    chunked, _ = _distillation(batch, divergence=forward_kl)
    once = _slopes(chunked, batch)[1]

    def tripled(hidden, head):
        loss, metrics = chunked(hidden, head)
        return 3.0 * loss, metrics

    thrice = _slopes(tripled, batch)[1]
    _assert_same(thrice, jax.tree.map(lambda x: 3.0 * x, once))


TOKEN_LOSSES = {
    "grpo": (grpo_loss, ("old_logprobs", "advantages", "weights")),
    "dual-clip": (dual_clip_grpo_loss, ("old_logprobs", "advantages")),
    "cispo": (
        functools.partial(cispo_loss, ratio_cap=3.0),
        ("old_logprobs", "advantages", "weights"),
    ),
    "sft": (sft_loss, ()),
    "sampled": (
        lambda logprobs, *, old_logprobs, **rest: sampled_distillation_loss(
            logprobs, teacher_logprobs=old_logprobs, **rest
        ),
        ("old_logprobs", "weights"),
    ),
}


@pytest.mark.parametrize("rows", [None, 7])
@pytest.mark.parametrize("name", TOKEN_LOSSES)
def test_token_losses_equal_those_of_the_whole(name, rows):
    batch = jax.tree.map(jnp.asarray, _inputs(7))
    loss, names = TOKEN_LOSSES[name]
    arrays = {each: batch[each] for each in names}
    common = {"mask": batch["mask"], "normalizer": _normalizer(batch)}

    def chunked(hidden, head):
        return token_loss_from_hidden(
            loss,
            hidden,
            head,
            batch["tokens"],
            temperature=0.8,
            chunking=Chunking(rows=rows),
            **common,
            **arrays,
        )

    def whole(hidden, head):
        logits = head_logits(hidden, head)
        logprobs = token_logprobs(logits, batch["tokens"], temperature=0.8)
        return loss(logprobs, **common, **arrays)

    (value, metrics), slopes = _slopes(chunked, batch)
    spread = metrics.pop("train/entropy")
    _assert_same(((value, metrics), slopes), _slopes(whole, batch))
    logits = head_logits(batch["hidden"], batch["head"])
    every = entropy(logits, temperature=0.8)
    assert spread.value() == pytest.approx(float(every[batch["mask"]].mean()), rel=1e-5)


def test_logprobs_of_chunks_serve_any_loss():
    """GSPO looks at whole sequences; an entropy bonus is differentiated as well."""
    batch = jax.tree.map(jnp.asarray, _inputs(8))

    def loss(logprobs, spread):
        policy, metrics = gspo_loss(
            logprobs,
            old_logprobs=batch["old_logprobs"],
            advantages=batch["advantages"],
            mask=batch["mask"],
            normalizer=_normalizer(batch),
        )
        return policy - 0.1 * jnp.sum(jnp.where(batch["mask"], spread, 0.0)), metrics

    def chunked(hidden, head):
        return loss(
            *chunked_logprobs(
                hidden,
                head,
                batch["tokens"],
                mask=batch["mask"],
                temperature=0.9,
                soft_cap=4.0,
                chunking=Chunking(rows=11),
            )
        )

    def whole(hidden, head):
        logits = head_logits(hidden, head, soft_cap=4.0)
        return loss(
            token_logprobs(logits, batch["tokens"], temperature=0.9),
            entropy(logits, temperature=0.9),
        )

    _assert_same(_slopes(chunked, batch), _slopes(whole, batch), atol=1e-6)


def test_the_sampled_loss_has_the_gradient_of_reverse_kl_in_expectation():
    """Summed over all tokens, each as often as the student draws it."""
    rng = np.random.default_rng(9)
    student, teacher = jnp.asarray(rng.normal(0, 1, (2, 6)), jnp.float32)
    tokens = jnp.arange(6)[:, None]
    often = jax.nn.softmax(student)[:, None]

    def expected(student):
        rows = jnp.broadcast_to(student, (6, 1, 6))
        informed = jnp.broadcast_to(teacher, (6, 1, 6))
        return sampled_distillation_loss(
            token_logprobs(rows, tokens),
            teacher_logprobs=token_logprobs(informed, tokens),
            mask=jnp.ones((6, 1), bool),
            normalizer=jnp.float32(1.0),
            weights=often,
        )

    slope, metrics = jax.grad(expected, has_aux=True)(student)
    want = jax.grad(reverse_kl)(student, teacher)
    np.testing.assert_allclose(slope, want, rtol=1e-5, atol=1e-6)
    gaps = jax.nn.log_softmax(student) - jax.nn.log_softmax(teacher)
    assert metrics["fd/sampled_gap"].value() == pytest.approx(float(gaps.mean()))


MESHES = {
    "one": {},
    "batch": {"data": 2, "fsdp": 4},
    "cube": {"data": 2, "fsdp": 2, "tensor": 2},
    "vocabulary": {"data": 1, "tensor": 8},
}


@functools.cache
def _on_mesh(name, rows=None):
    mesh = mesh_of(**MESHES[name])
    batch = jax.tree.map(jnp.asarray, _inputs(10))
    by_batch = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    table = NamedSharding(mesh, PartitionSpec("tensor", "fsdp"))
    chunking = Chunking(rows=rows, mesh=mesh)

    def step(hidden, head, batch):
        def loss(hidden, head):
            distillation, metrics = _distillation(
                batch, divergence=DIVERGENCES["jsd"], chunking=chunking
            )[0](hidden, head)
            policy, others = token_loss_from_hidden(
                grpo_loss,
                hidden,
                head,
                batch["tokens"],
                mask=batch["mask"],
                normalizer=_normalizer(batch),
                chunking=chunking,
                old_logprobs=batch["old_logprobs"],
                advantages=batch["advantages"],
            )
            return distillation + policy, metrics | others

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(hidden, head)

    layouts = {
        name: NamedSharding(mesh, PartitionSpec("tensor"))
        if name == "teacher_head"
        else by_batch
        for name in batch
    }
    layouts["head"] = table
    compiled = (
        jax.jit(
            step,
            in_shardings=(by_batch, table, layouts),
            out_shardings=(None, (by_batch, table)),
        )
        .lower(batch["hidden"], batch["head"], batch)
        .compile()
    )
    placed = jax.tree.map(jax.device_put, batch, layouts)
    return compiled, compiled(placed["hidden"], placed["head"], placed)


@pytest.mark.parametrize("name", ["batch", "cube", "vocabulary"])
def test_eight_devices_equal_one(name):
    _, one = _on_mesh("one")
    _, many = _on_mesh(name, rows=3)
    _assert_same(many, one)


@pytest.mark.parametrize("sizes", [{"data": 1}, MESHES["cube"]], ids=["one", "cube"])
def test_values_of_rows_come_back_in_their_places(sizes):
    batch = _inputs(5)
    found = jax.jit(
        lambda hidden, head, mask, weights, shared: chunked_rows(
            lambda logits, rows, shared: logits.max(-1) * shared + rows["weights"],
            hidden,
            head,
            mask=mask,
            rows={"weights": weights},
            shared=shared,
            chunking=Chunking(rows=3, mesh=mesh_of(**sizes)),
        )
    )(
        *(batch[name] for name in ("hidden", "head", "mask", "weights")),
        np.float32(2.0),
    )
    hidden = np.where(batch["mask"][..., None], batch["hidden"], 0.0)
    logits = hidden.astype(np.float64) @ batch["head"].T.astype(np.float64)
    expected = 2.0 * logits.max(-1) + batch["weights"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_the_vocabulary_is_never_gathered():
    """Of a chunk only numbers a row, hidden states and their slopes cross devices."""
    compiled, _ = _on_mesh("cube", rows=3)
    inside, outside = set(), set()
    for line in compiled.as_text().splitlines():
        found = re.search(r" = (.*?) (all|reduce|collective)-[a-z-]+\(", line)
        if found:
            shapes = re.findall(r"\[([\d,]*)\]", found[1])
            (inside if "/while/" in line else outside).update(shapes)
    assert inside
    for shape in inside:
        sizes = [int(size) for size in shape.split(",") if size]
        assert not {VOCABULARY, VOCABULARY // 2, VOCABULARY // 4} & set(sizes), inside
    # Quarters of the head change from parts of the width to parts of the vocabulary.
    assert max(_size(shape) for shape in outside) == VOCABULARY // 4 * WIDTH, outside


def _size(shape):
    return math.prod(int(size) for size in shape.split(",") if size)


def test_a_vocabulary_that_does_not_divide_is_gathered():
    """39 tokens on four devices: the same values, and gradients that are scattered."""
    batch = _inputs(11)
    for name in ("head", "teacher_head"):
        batch[name] = batch[name][:39]
    batch["tokens"] %= 39
    batch = jax.tree.map(jnp.asarray, batch)

    def slopes(mesh):
        chunking = Chunking(rows=3, mesh=mesh)
        loss, _ = _distillation(batch, divergence=forward_kl, chunking=chunking)
        step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
        return step.lower(batch["hidden"], batch["head"]).compile()

    many = slopes(mesh_of(data=2, fsdp=4))
    assert "39,2]" in many.as_text()
    found = many(batch["hidden"], batch["head"])
    _assert_same(found, slopes(None)(batch["hidden"], batch["head"]))


def _memory(tokens, vocabulary=8_000, width=32):
    shapes = [
        ((1, tokens, width), jnp.float32),
        ((vocabulary, width), jnp.float32),
    ]
    hidden, head = (jax.ShapeDtypeStruct(*shape) for shape in shapes)

    def loss(hidden, head, teacher_hidden, teacher_head):
        return feedback_distillation_loss_from_hidden(
            hidden,
            head,
            teacher_hidden=teacher_hidden,
            teacher_head=teacher_head,
            mask=jnp.ones(hidden.shape[:2], bool),
            normalizer=jnp.float32(tokens),
            divergence=reverse_kl,
            chunking=Chunking(rows=256),
        )

    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    found = step.lower(hidden, head, hidden, head).compile()
    return found.memory_analysis().temp_size_in_bytes


def test_memory_does_not_grow_with_tokens_beyond_hidden_states():
    small, large = _memory(1_024), _memory(16_384)
    hidden_states = 4 * 32 * (16_384 - 1_024)
    # Cut into chunks and put together again, hidden states are there a few times.
    assert large - small < 6 * hidden_states
    assert large < 4 * 16_384 * 8_000 / 4  # a quarter of one array of logits


def test_arrays_that_do_not_belong_together_are_refused(monkeypatch):
    # As users have it, without the tests' own check of the shapes.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    batch = jax.tree.map(jnp.asarray, _inputs(12))
    short = batch | {"weights": batch["weights"][:, :-1]}
    other = batch | {"teacher_head": batch["teacher_head"][:-1]}
    for each, message in ((short, "weights of shape"), (other, "vocabul")):
        chunked, _ = _distillation(each, divergence=forward_kl)
        with pytest.raises(ConfigError, match=message):
            chunked(batch["hidden"], batch["head"])
    with pytest.raises(ConfigError, match="tokens of shape"):
        chunked_logprobs(
            batch["hidden"], batch["head"], batch["tokens"][1:], mask=batch["mask"]
        )
    with pytest.raises(ConfigError, match=r"soft_cap to be .* above 0"):
        head_logits(batch["hidden"], batch["head"], soft_cap=0.0)
    with pytest.raises(ConfigError, match="expected advantages of shape"):
        token_loss_from_hidden(
            grpo_loss,
            batch["hidden"],
            batch["head"],
            batch["tokens"],
            mask=batch["mask"],
            normalizer=_normalizer(batch),
            old_logprobs=batch["old_logprobs"],
            advantages=batch["advantages"][:3],
        )


def test_bad_chunking_is_an_error():
    batch = jax.tree.map(jnp.asarray, _inputs(11))
    chunked, _ = _distillation(batch, divergence=forward_kl, chunking=Chunking(rows=0))
    with pytest.raises(ConfigError, match=r"Chunking\.rows to be an integer"):
        chunked(batch["hidden"], batch["head"])
    mesh = mesh_of(data=8)
    odd = {
        name: array if name.endswith("head") else array[:5]
        for name, array in batch.items()
    }
    chunked, _ = _distillation(odd, divergence=forward_kl, chunking=Chunking(mesh=mesh))
    with pytest.raises(ConfigError, match="divisible by the 8 devices"):
        chunked(odd["hidden"], odd["head"])
