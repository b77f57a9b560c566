"""What every loss must satisfy whatever it computes; values are checked elsewhere.

A loss enters as a closure `loss(values, batch, normalizer) -> (loss, metrics)`:
`values` is the differentiated array, `batch` a dict of arrays; the first axis of all is
the row, and `batch["mask"]` is [B, T].
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.test_util import check_grads

ROWS, TOKENS = 8, 6


def scored_mask():
    """Rows of different length, holes inside, and a row with nothing scored."""
    mask = np.arange(TOKENS)[None, :] < np.array([6, 1, 4, 0, 6, 3, 5, 2])[:, None]
    mask[0, 2] = mask[4, 0] = False
    return mask


def policy_inputs(seed, spread=0.5):
    """Log-probs and a batch whose ratios fall on all sides of the usual clips."""
    rng = np.random.default_rng(seed)
    old = -rng.gamma(2.0, 0.7, (ROWS, TOKENS)).astype(np.float32)
    moved = rng.normal(0.0, spread, (ROWS, TOKENS)).astype(np.float32)
    batch = {
        "old_logprobs": old,
        "advantages": np.array([1.5, -1, 0.5, 2, -2, 0, 1, -0.25], np.float32),
        "mask": scored_mask(),
        "weights": rng.uniform(0.5, 2.0, (ROWS, TOKENS)).astype(np.float32),
    }
    return old + moved, batch


@functools.cache
def _gradient(loss):
    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def _bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def check_gradient(loss, values, batch, normalizer):
    """Automatic derivatives agree with finite differences, forward and reverse."""
    batch = jax.tree.map(jnp.asarray, batch)
    scalar = jax.jit(lambda values: loss(values, batch, normalizer)[0])
    # In float32 the best step of a central difference is about cbrt(1e-7) = 5e-3.
    check_grads(scalar, (values,), order=1, modes=("fwd", "rev"), eps=5e-3)


def check_inert_padding(loss, values, batch, normalizer):
    """NaN under the mask changes no bit of loss, metrics or gradient."""
    mask = batch["mask"]

    def poison(array):
        if not np.issubdtype(array.dtype, np.floating):
            return array
        keep = mask if array.ndim > 1 else mask.any(axis=1)
        keep = keep.reshape(keep.shape + (1,) * (array.ndim - keep.ndim))
        return np.where(keep, array, np.float32(np.nan))

    run = _gradient(loss)
    clean = run(values, batch, normalizer)
    poisoned_batch = {name: poison(array) for name, array in batch.items()}
    assert np.isnan(poison(values)).any()
    assert _bits(run(poison(values), poisoned_batch, normalizer)) == _bits(clean)
    gradient = np.asarray(clean[1])
    assert np.all(gradient[~mask] == 0)
    assert np.any(gradient[mask] != 0)


def check_microbatches(loss, values, batch, normalizer):
    """Parts with the global normalizer sum to the whole, metrics too.

    The rows differ in scored tokens, so a mean of means would not.
    """
    run = _gradient(loss)
    (whole, metrics), gradient = run(values, batch, normalizer)
    parts = []
    for start in range(0, ROWS, 2):
        rows = slice(start, start + 2)
        part = {name: array[rows] for name, array in batch.items()}
        parts.append(run(values[rows], part, normalizer))
    np.testing.assert_allclose(sum(p[0][0] for p in parts), whole, rtol=2e-6, atol=1e-7)
    np.testing.assert_allclose(
        np.concatenate([part[1] for part in parts]), gradient, rtol=1e-6, atol=1e-9
    )
    for name, mean in metrics.items():
        total = sum(part[0][1][name].total for part in parts)
        weight = sum(part[0][1][name].weight for part in parts)
        np.testing.assert_allclose(total, mean.total, rtol=2e-6, atol=1e-6)
        assert weight == mean.weight


def check_eight_devices(loss, values, batch, normalizer):
    """One row on each of eight devices gives what one device gives."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    everywhere = NamedSharding(mesh, PartitionSpec())
    (one, metrics), gradient = _gradient(loss)(values, batch, normalizer)
    sharded = jax.jit(
        jax.value_and_grad(loss, has_aux=True),
        in_shardings=(rows, dict.fromkeys(batch, rows), everywhere),
        out_shardings=((everywhere, everywhere), rows),
    )
    (eight, eight_metrics), eight_gradient = sharded(values, batch, normalizer)
    assert len(eight_gradient.sharding.device_set) == 8
    assert len(gradient.sharding.device_set) == 1
    np.testing.assert_allclose(eight, one, rtol=2e-6, atol=1e-7)
    np.testing.assert_allclose(eight_gradient, gradient, rtol=1e-6, atol=1e-9)
    for name, mean in metrics.items():
        np.testing.assert_allclose(
            eight_metrics[name].total, mean.total, rtol=2e-6, atol=1e-6
        )
        assert eight_metrics[name].weight == mean.weight
