import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdjax.errors import ConfigError
from fdjax.sampling import keep_min_p, keep_top_k, keep_top_p

# Probabilities 0.5, 0.25, 0.15, 0.1 in no particular order.
_LOGITS = jnp.log(jnp.array([0.15, 0.5, 0.1, 0.25]))


def _kept(logits):
    return np.flatnonzero(np.isfinite(logits)).tolist()


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


@pytest.mark.parametrize(
    ("p", "kept"),
    [
        (0.0, [0, 1, 2, 3]),
        (0.19, [0, 1, 2, 3]),
        (0.21, [0, 1, 3]),
        (0.31, [1, 3]),
        (0.51, [1]),
        (1.0, [1]),  # never empty
    ],
)
def test_min_p_keeps_what_is_no_less_than_its_share_of_the_best(p, kept):
    got = keep_min_p(_LOGITS, p)
    assert _kept(got) == kept
    np.testing.assert_array_equal(got[jnp.array(kept)], _LOGITS[jnp.array(kept)])
    # Whatever was cut before, as the best one never is.
    assert _kept(keep_min_p(keep_top_k(_LOGITS, 2), p)) == [
        k for k in kept if k in (1, 3)
    ]


def test_rows_are_truncated_apart():
    rows = jnp.stack([_LOGITS, _LOGITS[::-1]])[None]
    np.testing.assert_array_equal(keep_top_p(rows, 0.6)[0, 0], keep_top_p(_LOGITS, 0.6))
    assert _kept(keep_top_p(rows, 0.6)[0, 1]) == [0, 2]
    assert _kept(keep_top_k(rows, 2)[0, 1]) == [0, 2]


def test_top_p_after_top_k_counts_mass_among_the_kept():
    # Of 0.5 and 0.25, the first alone holds 2/3 of the mass.
    assert _kept(keep_top_p(keep_top_k(_LOGITS, 2), 0.6)) == [1]
    assert _kept(keep_top_p(keep_top_k(_LOGITS, 2), 0.7)) == [1, 3]


def _hard_rows():
    """Rows [40, 200]: flat and steep, far from 0 and near it, with ties and -inf."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, 200)) * rng.choice([1e-6, 0.1, 1, 5, 50], (40, 1))
    rows[::3] = np.round(rows[::3] * 4) / 4
    rows[::4] += 1000.0
    rows[::5, ::2] = -np.inf
    rows[::7] *= 1e-30
    rows[1::7, ::3] = 0.0
    rows[1::7, 1::3] = -0.0
    return rows.astype(np.float32)


@pytest.mark.parametrize("p", [1e-6, 0.1, 0.5, 0.8, 0.95, 0.999, 1 - 1e-6])
def test_nucleus_equals_that_of_float64(p):
    rows = _hard_rows()
    kept = np.isfinite(jax.jit(keep_top_p, static_argnums=1)(rows, p))
    compared = 0
    for row, got in zip(rows.astype(np.float64), kept, strict=True):
        weights = np.exp(row - row.max())
        above = np.array([weights[row > value].sum() for value in row])
        # Where rounding to float32 could decide, either is right.
        margin = 1e-5 * min(p, 1 - p)
        if np.min(np.abs(above / weights.sum() - p)) > margin:
            compared += 1
            want = (above / weights.sum() < p) & np.isfinite(row)
            np.testing.assert_array_equal(got, want)
    assert compared > 20


@pytest.mark.parametrize("k", [1, 2, 7, 100, 199, 200, 201])
def test_top_k_keeps_what_is_no_less_than_the_kth(k):
    rows = _hard_rows()
    kth = np.sort(rows, axis=-1)[:, -min(k, 200), None]
    got = jax.jit(keep_top_k, static_argnums=1)(rows, k)
    np.testing.assert_array_equal(got, np.where(rows >= kth, rows, -np.inf))


def test_equal_logits_are_all_kept():
    for cut in (
        lambda row: keep_top_p(row, 0.3),
        lambda row: keep_top_k(row, 2),
        lambda row: keep_min_p(row, 1.0),
    ):
        np.testing.assert_array_equal(cut(jnp.ones((2, 5))), jnp.ones((2, 5)))


def test_a_row_of_nan_keeps_nothing_and_leaves_others_alone():
    rows = jnp.stack([_LOGITS, jnp.full(4, jnp.nan)])
    for cut in (
        lambda rows: keep_top_p(rows, 0.6),
        lambda rows: keep_top_k(rows, 2),
        lambda rows: keep_min_p(rows, 0.4),
    ):
        assert np.isneginf(cut(rows)[1]).all()
        assert _kept(cut(rows)[0]) == [1, 3]


def test_nothing_is_sorted():
    for cut in (lambda rows: keep_top_p(rows, 0.6), lambda rows: keep_top_k(rows, 2)):
        program = str(jax.make_jaxpr(cut)(jnp.zeros((2, 64))))
        assert "sort" not in program
        assert "top_k" not in program


def test_impossible_arguments_are_refused():
    for call in (
        lambda: keep_top_k(_LOGITS, 0),
        lambda: keep_top_p(_LOGITS, 0.0),
        lambda: keep_top_p(_LOGITS, 1.5),
        lambda: keep_top_p(_LOGITS, float("nan")),
        lambda: keep_min_p(_LOGITS, -0.1),
        lambda: keep_min_p(_LOGITS, 1.1),
    ):
        with pytest.raises(ConfigError):
            call()
