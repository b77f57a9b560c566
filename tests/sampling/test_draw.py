"""`draw`: its distribution, and what it does not depend on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdjax.sampling import SamplingConfig
from fdjax.sampling.draw import draw

_PLAIN = SamplingConfig(max_new_tokens=1)


def _draw(logits, config=_PLAIN, seed=0):
    """A token of each row, each with a key of its own."""
    keys = jax.random.split(jax.random.key(seed), len(logits))
    return jax.jit(draw, static_argnums=2)(keys, jnp.asarray(logits), config)


@pytest.mark.parametrize("size", [7, 24, 384], ids="{} tokens".format)
@pytest.mark.parametrize("top_k", [0, 5])
def test_tokens_have_the_policys_frequencies(size, top_k):
    """Pearson's χ² of 40,000 draws; sizes that fall into 7, 3 and 3 groups."""
    count = 40_000
    logits = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    config = SamplingConfig(max_new_tokens=1, top_k=top_k, temperature=0.7)
    drawn = _draw(np.tile(logits, (count, 1)), config)
    scaled = logits.astype(np.float64) / 0.7
    if top_k:
        scaled[np.argsort(scaled)[:-top_k]] = -np.inf
    want = np.exp(scaled - scaled.max())
    want *= count / want.sum()
    got = np.bincount(drawn.token, minlength=size)
    assert (got[want == 0] == 0).all()
    kept = want > 0
    freedom = kept.sum() - 1
    chi2 = ((got[kept] - want[kept]) ** 2 / want[kept]).sum()
    # Four standard deviations above the mean.
    assert chi2 < freedom + 4 * np.sqrt(2 * freedom)


def test_rounding_changes_no_token():
    """A flat distribution over many tokens, where summed probabilities would."""
    rng = np.random.default_rng(1)
    logits = rng.standard_normal((256, 49_152)).astype(np.float32)
    other = logits + rng.normal(0, 1e-6, logits.shape).astype(np.float32)
    assert (logits != other).any(axis=1).all()
    np.testing.assert_array_equal(_draw(logits).token, _draw(other).token)


def test_a_row_does_not_depend_on_the_others():
    logits = np.random.default_rng(2).standard_normal((6, 48)).astype(np.float32)
    want = _draw(logits)
    logits[[0, 2, 4]] = [[np.nan], [3.0], [-np.inf]]
    logits[4, 17] = 0
    got = _draw(logits)
    np.testing.assert_array_equal(got.token[1::2], want.token[1::2])
    assert got.token[4] == 17
    # A row of NaN has a token, and says that it is none.
    assert 0 <= got.token[0] < 48
    assert np.isnan(got.logprob[0])
