import math

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from fdjax.errors import ConfigError
from fdjax.ops import (
    divide_by_normalizer,
    masked_mean,
    masked_sum,
    select,
    sequence_mean_weights,
)
from fdjax.records import Mean

MASK = jnp.array([[True, True, False], [False, True, False]])
VALUES = jnp.array([[1.0, 2.0, 100.0], [100.0, 6.0, 100.0]])


def test_mean_counts_only_what_the_mask_keeps():
    # (1 + 2 + 6) / 3, not / 6 and not with the hundreds.
    assert masked_sum(VALUES, MASK) == 9
    mean = masked_mean(VALUES, MASK)
    assert mean == Mean(9, 3)
    assert mean.value() == 3


def test_empty_mask_divides_nothing():
    nothing = jnp.zeros((2, 3), bool)
    mean = masked_mean(VALUES, nothing)
    assert mean == Mean(0, 0)
    assert math.isnan(mean.value())
    # Added to a microbatch that has tokens, it changes nothing.
    assert (mean + masked_mean(VALUES, MASK)).value() == 3


def test_nan_and_infinity_under_the_mask_reach_neither_value_nor_gradient():
    poison = jnp.where(
        MASK, VALUES, jnp.array([[0, 0, jnp.nan], [jnp.inf, 0, jnp.nan]])
    )

    def total(values):
        return jnp.sum(jnp.exp(select(values, MASK)) * MASK.astype(jnp.float32))

    value, gradient = jax.value_and_grad(total)(poison)
    # e + e^2 + e^6; the derivative of exp is exp.
    np.testing.assert_allclose(value, math.e + math.e**2 + math.e**6, rtol=1e-6)
    expected = [[math.e, math.e**2, 0], [0, math.e**6, 0]]
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


def test_select_keeps_whole_rows_of_a_further_axis():
    values = jnp.stack([VALUES, -VALUES], axis=-1)
    selected = select(values, MASK)
    np.testing.assert_array_equal(selected[..., 1], -select(VALUES, MASK))
    np.testing.assert_array_equal(selected[1, 1], [6, -6])


def test_bfloat16_sums_in_float32():
    # 1 + 256 ones: bfloat16 cannot count past 256.
    ones = jnp.ones((1, 257), jnp.bfloat16)
    total = masked_sum(ones, jnp.ones((1, 257), bool))
    assert total.dtype == jnp.float32
    assert total == 257


@pytest.mark.parametrize("shape", [(2, 1), (1, 3), (3,), (2, 3, 1)])
def test_masks_never_broadcast(shape, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ConfigError, match="expected a mask of shape"):
        masked_sum(VALUES, jnp.ones(shape, bool))


def test_a_mask_of_numbers_is_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ConfigError, match="boolean mask, got float32"):
        masked_sum(VALUES, jnp.ones((2, 3)))


def test_normalizer_of_zero_gives_zero_and_no_gradient():
    value, gradient = jax.value_and_grad(divide_by_normalizer)(
        jnp.float32(0), jnp.float32(0)
    )
    assert value == 0
    assert gradient == 0
    assert divide_by_normalizer(jnp.float32(6), jnp.float32(4)) == 1.5
    # A fraction is a valid normalizer, so it is not clamped to 1.
    assert divide_by_normalizer(jnp.float32(6), jnp.float32(0.5)) == 12
    # NaN is shown, not taken for 0.
    assert jnp.isnan(divide_by_normalizer(jnp.float32(6), jnp.float32(jnp.nan)))


def test_sequence_mean_weights_are_one_over_the_length():
    weights = sequence_mean_weights(
        jnp.array([[True, True, False, True, True], [False, False, True, False, False]])
    )
    quarter = [0.25, 0.25, 0, 0.25, 0.25]
    np.testing.assert_array_equal(weights, [quarter, [0, 0, 1, 0, 0]])
    np.testing.assert_array_equal(
        sequence_mean_weights(jnp.zeros((1, 2), bool)), [[0, 0]]
    )
