import jax.numpy as jnp
import numpy as np
import pytest

from fdjax.sampling import keep_top_k, keep_top_p, scale_temperature

# Probabilities 0.5, 0.25, 0.15, 0.1 in no particular order.
_LOGITS = jnp.log(jnp.array([0.15, 0.5, 0.1, 0.25]))


def _kept(logits):
    return np.flatnonzero(np.isfinite(logits)).tolist()


def test_temperature_divides():
    # p^2 / Σ p^2 at temperature 1/2: 0.0225, 0.25, 0.01, 0.0625 over 0.345.
    scaled = np.exp(scale_temperature(_LOGITS, 0.5))
    np.testing.assert_allclose(
        scaled / scaled.sum(),
        np.array([0.0225, 0.25, 0.01, 0.0625]) / 0.345,
        rtol=1e-5,
    )


@pytest.mark.parametrize(
    ("k", "kept"), [(1, [1]), (2, [1, 3]), (3, [0, 1, 3]), (4, [0, 1, 2, 3]), (9, 4)]
)
def test_top_k_keeps_the_k_largest_unchanged(k, kept):
    got = keep_top_k(_LOGITS, k)
    kept = [0, 1, 2, 3] if kept == 4 else kept
    assert _kept(got) == kept
    np.testing.assert_array_equal(got[jnp.array(kept)], _LOGITS[jnp.array(kept)])


@pytest.mark.parametrize(
    ("p", "kept"),
    [
        (0.01, [1]),  # never empty
        (0.49, [1]),
        (0.51, [1, 3]),
        (0.74, [1, 3]),
        (0.76, [0, 1, 3]),
        (0.89, [0, 1, 3]),
        (0.91, [0, 1, 2, 3]),
        (1.0, [0, 1, 2, 3]),
    ],
)
def test_top_p_keeps_the_smallest_set_that_holds_the_mass(p, kept):
    got = keep_top_p(_LOGITS, p)
    assert _kept(got) == kept
    np.testing.assert_array_equal(got[jnp.array(kept)], _LOGITS[jnp.array(kept)])


def test_rows_are_truncated_apart():
    rows = jnp.stack([_LOGITS, _LOGITS[::-1]])[None]
    np.testing.assert_array_equal(keep_top_p(rows, 0.6)[0, 0], keep_top_p(_LOGITS, 0.6))
    assert _kept(keep_top_p(rows, 0.6)[0, 1]) == [0, 2]
    assert _kept(keep_top_k(rows, 2)[0, 1]) == [0, 2]


def test_top_p_after_top_k_counts_mass_among_the_kept():
    # Of 0.5 and 0.25, the first alone holds 2/3 of the mass.
    assert _kept(keep_top_p(keep_top_k(_LOGITS, 2), 0.6)) == [1]
    assert _kept(keep_top_p(keep_top_k(_LOGITS, 2), 0.7)) == [1, 3]


def test_mass_against_numpy_on_random_logits():
    logits = np.random.default_rng(0).normal(size=(50, 30)).astype(np.float32) * 2
    kept = np.isfinite(keep_top_p(jnp.asarray(logits), 0.8))
    exact = np.exp(logits.astype(np.float64))
    exact /= exact.sum(axis=-1, keepdims=True)
    mass = (exact * kept).sum(axis=-1)
    smallest = np.where(kept, exact, np.inf).min(axis=-1)
    assert (mass >= 0.8 - 1e-5).all()
    assert (mass - smallest < 0.8 + 1e-5).all()
    assert (smallest >= np.where(kept, 0.0, exact).max(axis=-1)).all()
