import functools
import math

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

import loss_contract
from fdjax.advantages import centred
from fdjax.errors import ConfigError
from fdjax.losses import dual_clip_grpo_loss, grpo_loss
from fdjax.ops import sequence_mean_weights
from reference import policy

_VARIANTS = {
    "clipped": grpo_loss,
    "dual": functools.partial(dual_clip_grpo_loss, dual_clip=1.5),
}
_METRICS = {"grpo/clip_fraction", "grpo/kl_k3", "grpo/log_ratio"}


def _closure(function):
    def loss(logprobs, batch, normalizer):
        return function(logprobs, normalizer=normalizer, **batch)

    return loss


_CLOSURES = {name: _closure(function) for name, function in _VARIANTS.items()}


@pytest.fixture
def inputs():
    logprobs, batch = loss_contract.policy_inputs(seed=735)
    # Finite differences and the cases below need ratios away from the kinks.
    ratio = np.exp(logprobs - batch["old_logprobs"])[batch["mask"]]
    for kink in (0.8, 1.28, 1.5):
        assert np.abs(np.log(ratio / kink)).min() > 0.05
    return logprobs, batch, jnp.float32(batch["mask"].sum())


@pytest.fixture(params=_CLOSURES)
def closure(request):
    return _CLOSURES[request.param]


def _one_token(ratio, advantage, function=grpo_loss, **settings):
    """Loss and its derivative with respect to log p for a single token."""

    def loss(logprobs):
        return function(
            logprobs,
            old_logprobs=jnp.array([[-1.0]]),
            advantages=jnp.array([advantage]),
            mask=jnp.array([[True]]),
            normalizer=jnp.float32(1),
            **settings,
        )

    logprobs = jnp.array([[-1.0 + math.log(ratio)]])
    (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(logprobs)
    return float(value), gradient.item(), metrics


def test_hand_computed_value():
    # A = (2, -1), ε = 0.2 on both sides, Z = 3 scored tokens.
    # Row 0: r = 1.1 -> -1.1 * 2 = -2.2;  r = 1.5 is clipped -> -1.2 * 2 = -2.4.
    # Row 1: r = 0.5 is clipped -> 0.8;  the second token is padding.
    # Sum -3.8, loss -3.8 / 3. Two of three ratios are clipped.
    ratios = jnp.array([[1.1, 1.5], [0.5, 7.0]])
    loss, metrics = grpo_loss(
        jnp.log(ratios),
        old_logprobs=jnp.zeros((2, 2)),
        advantages=jnp.array([2.0, -1.0]),
        mask=jnp.array([[True, True], [True, False]]),
        normalizer=jnp.float32(3),
        clip_low=0.2,
        clip_high=0.2,
    )
    np.testing.assert_allclose(loss, -3.8 / 3, rtol=1e-6)
    assert set(metrics) == _METRICS
    assert all(mean.weight == 3 for mean in metrics.values())
    assert metrics["grpo/clip_fraction"].value() == pytest.approx(2 / 3)
    log_ratio = math.log(1.1) + math.log(1.5) + math.log(0.5)
    assert metrics["grpo/log_ratio"].value() == pytest.approx(log_ratio / 3, rel=1e-5)
    # k3 of KL(old‖new) is r - 1 - log r: (0.1 + 0.5 - 0.5 - log_ratio) / 3.
    k3 = (0.1 + 0.5 - 0.5 - log_ratio) / 3
    assert metrics["grpo/kl_k3"].value() == pytest.approx(k3, rel=1e-5)


def test_equals_float64_reference(inputs):
    logprobs, batch, normalizer = inputs
    expected, clipped = policy.grpo(
        logprobs,
        batch["old_logprobs"],
        batch["advantages"],
        batch["mask"],
        float(normalizer),
        0.2,
        0.28,
        batch["weights"],
    )
    loss, metrics = jax.jit(_CLOSURES["clipped"])(*inputs)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert clipped > 0
    assert metrics["grpo/clip_fraction"].total == clipped


def test_dual_clip_equals_float64_reference(inputs):
    logprobs, batch, normalizer = inputs
    arguments = (
        logprobs,
        batch["old_logprobs"],
        batch["advantages"],
        batch["mask"],
        float(normalizer),
        0.2,
        0.28,
    )
    expected = policy.dual_clip_grpo(*arguments, 1.5, batch["weights"])
    single, _ = policy.grpo(*arguments, batch["weights"])
    assert abs(expected - single) > 1e-2  # The inputs reach the second clip.
    loss, metrics = jax.jit(_CLOSURES["dual"])(*inputs)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert set(metrics) == _METRICS


def test_gradient(inputs, closure):
    loss_contract.check_gradient(closure, *inputs)


def test_padding_is_inert(inputs, closure):
    loss_contract.check_inert_padding(closure, *inputs)


def test_microbatches_add_up(inputs, closure):
    loss_contract.check_microbatches(closure, *inputs)


def test_eight_devices_equal_one(inputs, closure):
    loss_contract.check_eight_devices(closure, *inputs)


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "gradient", "clipped"),
    [
        # A < 0: clipped below 0.8, where the token is already discouraged; never above.
        (0.5, -1.0, 0.8, 0.0, 1),
        (2.0, -1.0, 2.0, 2.0, 0),
        (0.5, -3.0, 2.4, 0.0, 1),
        # A > 0: clipped above 1.28; never below.
        (2.0, 1.0, -1.28, 0.0, 1),
        (0.5, 1.0, -0.5, -0.5, 0),
        # On-policy, at the value and gradient of the plain policy gradient.
        (1.0, 2.0, -2.0, -2.0, 0),
        (1.0, -2.0, 2.0, 2.0, 0),
    ],
)
def test_clip_acts_on_the_right_side(ratio, advantage, value, gradient, clipped):
    got_value, got_gradient, metrics = _one_token(ratio, advantage)
    assert got_value == pytest.approx(value, rel=1e-6)
    assert got_gradient == pytest.approx(gradient, rel=1e-6)
    assert metrics["grpo/clip_fraction"].total == clipped


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "gradient", "clipped"),
    [
        (5.0, -2.0, 6.0, 0.0, 1),  # Cut at c |A| = 3 * 2.
        (2.5, -2.0, 5.0, 5.0, 0),  # r < c: as without.
        (5.0, 2.0, -2.56, 0.0, 1),  # A > 0: the ordinary clip, -1.28 * 2.
    ],
)
def test_dual_clip_acts_on_negative_advantages(
    ratio, advantage, value, gradient, clipped
):
    got_value, got_gradient, metrics = _one_token(
        ratio, advantage, dual_clip_grpo_loss, dual_clip=3.0
    )
    assert got_value == pytest.approx(value, rel=1e-6)
    assert got_gradient == pytest.approx(gradient, rel=1e-6)
    assert metrics["grpo/clip_fraction"].total == clipped


def test_zero_advantage_gives_zero():
    value, gradient, _ = _one_token(3.0, 0.0)
    assert value == 0
    assert gradient == 0


def test_huge_log_ratio_stays_finite():
    value, gradient, _ = _one_token(math.exp(100), -1.0)
    # The ratio is cut at exp(20).
    assert value == pytest.approx(math.exp(20), rel=1e-5)
    assert gradient == 0


def test_sequence_mean_is_the_mean_of_row_means():
    # r = 1 everywhere. Row 0 has three tokens and A = 1, row 1 one token and A = -2.
    # Token mean: -(3 * 1 - 2) / 4 = -1/4. Mean of row means: -(1 - 2) / 2 = 1/2.
    # Constant length 10: -(3 - 2) / (2 * 10) = -1/20.
    mask = jnp.array([[True, True, True], [False, True, False]])
    run = functools.partial(
        grpo_loss,
        jnp.zeros((2, 3)),
        old_logprobs=jnp.zeros((2, 3)),
        advantages=jnp.array([1.0, -2.0]),
        mask=mask,
    )
    token_mean, _ = run(normalizer=jnp.float32(4))
    sequence_mean, _ = run(
        normalizer=jnp.float32(2), weights=sequence_mean_weights(mask)
    )
    constant_length, _ = run(normalizer=jnp.float32(20))
    assert token_mean == pytest.approx(-1 / 4)
    assert sequence_mean == pytest.approx(1 / 2)
    assert constant_length == pytest.approx(-1 / 20)


def test_gradient_reaches_logprobs_alone(inputs):
    logprobs, batch, normalizer = jax.tree.map(jnp.asarray, inputs)
    names = ("old_logprobs", "advantages", "weights")

    def loss(arrays):
        changed = {**batch, **dict(zip(names, arrays, strict=True))}
        return _CLOSURES["clipped"](logprobs, changed, normalizer)[0]

    gradients = jax.jit(jax.grad(loss))(tuple(batch[name] for name in names))
    for gradient in gradients:
        assert not np.any(gradient)


def test_bfloat16_ratios_are_formed_in_float32():
    # log p - log p_old = 2^-7 exactly in bfloat16, but 1 + 2^-7 = exp's first digits
    # and the clip at 1.28 need float32: exp(0.0078125) = 1.0078431.
    loss, _ = grpo_loss(
        jnp.full((1, 1), -0.9921875, jnp.bfloat16),
        old_logprobs=jnp.full((1, 1), -1.0, jnp.bfloat16),
        advantages=jnp.ones((1,), jnp.bfloat16),
        mask=jnp.ones((1, 1), bool),
        normalizer=jnp.float32(1),
    )
    assert loss.dtype == jnp.float32
    assert float(loss) == pytest.approx(-math.exp(0.0078125), rel=1e-6)


def test_crashed_sample_equals_a_sample_never_drawn():
    # Two groups of three; the last sample of the first group has no verdict.
    rewards = np.array([[1, 0, np.nan], [0, 1, 1]], np.float32)
    known = np.isfinite(rewards)
    rng = np.random.default_rng(2)
    old = -rng.gamma(2, 0.7, (6, 4)).astype(np.float32)
    logprobs = old + rng.normal(0, 0.3, (6, 4)).astype(np.float32)
    keep = known.reshape(-1)
    mask = np.ones((6, 4), bool) & keep[:, None]
    advantages = np.asarray(jax.jit(centred)(rewards, known)[0]).reshape(-1)

    def run(rows):
        return jax.jit(grpo_loss)(
            logprobs[rows],
            old_logprobs=old[rows],
            advantages=advantages[rows],
            mask=mask[rows],
            normalizer=jnp.float32(mask[rows].sum()),
        )[0]

    alone = jax.jit(centred)(rewards[:1, :2], known[:1, :2])[0]
    assert np.array_equal(advantages[:2], np.asarray(alone)[0])
    np.testing.assert_allclose(run(slice(None)), run(keep), rtol=1e-6)


@pytest.mark.parametrize("shape", [(1,), (4,), (2,)])
def test_advantages_of_the_wrong_length_raise(shape, monkeypatch):
    # Three rows of two tokens: (1,) and (2,) would broadcast into a wrong sum. The
    # library's own check is under test, so the shape checker of the tests is off.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ConfigError, match="advantages of shape"):
        grpo_loss(
            jnp.zeros((3, 2)),
            old_logprobs=jnp.zeros((3, 2)),
            advantages=jnp.ones(shape),
            mask=jnp.ones((3, 2), bool),
            normalizer=jnp.float32(6),
        )


@pytest.mark.parametrize(
    "settings",
    [
        {"clip_low": -0.1},
        {"clip_low": 3.0},
        {"clip_high": -0.1},
        {"clip_high": math.nan},
    ],
)
def test_impossible_clip_ranges_raise(settings):
    (name,) = settings
    with pytest.raises(ConfigError, match=f"expected {name} to be"):
        _one_token(1.0, 1.0, **settings)


def test_dual_clip_must_lie_above_the_clip():
    with pytest.raises(ConfigError, match=r"dual_clip to be .* above"):
        _one_token(1.0, 1.0, dual_clip_grpo_loss, dual_clip=1.2)
