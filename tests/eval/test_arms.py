import math

import numpy as np
import pytest

from fdjax.errors import DataError
from fdjax.eval import ArmResult, common_theorems


def arm(name="fd", **changes):
    content = {
        "arm": name,
        "theorems": ("a", "b", "c"),
        "samples": 4,
        "successes": (1, 0, 4),
        "missing": (0, 1, 0),
        "distinct_proofs": (1, 0, 2),
        "policy_entropy": (0.5, math.nan, 0.25),
    }
    return ArmResult(**{**content, **changes})


def test_missing_samples_are_left_out_of_pass_at_k():
    result = arm(successes=(1, 1, 4))
    assert result.judged().tolist() == [4, 3, 4]
    # b: one of three judged samples, not one of four.
    np.testing.assert_allclose(result.pass_at_k(1), [1 / 4, 1 / 3, 1.0], atol=1e-15)
    np.testing.assert_array_equal(np.isnan(result.pass_at_k(4)), [False, True, False])


def test_mean_pass_averages_over_k_for_each_theorem():
    # a: pass@1 = 1/4 and pass@2 = 1/2, mean 3/8; b: nothing; c: everything.
    np.testing.assert_allclose(arm().mean_pass([1, 2]), [3 / 8, 0.0, 1.0], atol=1e-15)


def test_select_reorders_every_column():
    chosen = arm(distinct_sequences=(1, 0, 2)).select(["c", "a"])
    assert chosen.theorems == ("c", "a")
    assert chosen.successes == (4, 1)
    assert chosen.missing == (0, 0)
    assert chosen.distinct_proofs == chosen.distinct_sequences == (2, 1)
    assert chosen.policy_entropy == (0.25, 0.5)
    with pytest.raises(DataError, match="same theorems"):
        arm().select(["d"])


def test_common_theorems_keep_the_order_of_the_first_arm():
    other = arm("grpo", theorems=("x", "c", "a"))
    assert common_theorems([arm(), other]) == ("a", "c")
    assert common_theorems([]) == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"successes": (1, 0)},
        {"policy_entropy": (0.1,)},
        {"distinct_sequences": (1,)},
        {"theorems": ("a", "a", "b")},
        {"samples": 0},
        {"successes": (5, 0, 0)},
        {"missing": (4, 0, 0)},
        {"missing": (-1, 0, 0)},
    ],
)
def test_counts_that_cannot_be_are_refused(changes):
    with pytest.raises(DataError, match="expected"):
        arm(**changes)
