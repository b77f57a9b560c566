import math

import pytest

from fdjax.train import Plateau


@pytest.mark.parametrize(
    ("values", "reached"),
    [
        ([], False),
        ([0.5], False),
        # No average of two exceeds the first, 0.5, by 0.1, three times in a row.
        ([0.5, 0.5, 0.5, 0.5], False),
        ([0.5, 0.5, 0.5, 0.5, 0.5], True),
        # Averages .1 .2 .3 .35 .35 .35: the last three rise by less than 0.1.
        ([0.0, 0.2, 0.2, 0.4, 0.3, 0.4, 0.3], True),
        # Averages .5 .55 .6: rising by 0.1 in two rows is rising.
        ([0.5, 0.5, 0.6, 0.6, 0.6, 0.6], False),
        ([0.5, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6], True),
        # A fall is no rise, and neither is the way back.
        ([0.5, 0.5, 0.0, 0.0, 0.5], True),
    ],
)
def test_a_plateau_by_hand(values, reached):
    rule = Plateau(metric="reward/mean", window=2, least_gain=0.1, patience=3)
    assert rule.reached(values) is reached


def test_once_reached_it_stays_so_until_the_metric_rises():
    rule = Plateau(window=1, least_gain=0.5, patience=2)
    assert [rule.reached([0.0, 0.0, 0.0, 1.0][:count]) for count in range(5)] == [
        *(False, False, False, True, False)
    ]


def test_sums_do_not_depend_on_rounding():
    """0.1 ten times is 1, and the average 0.1: no gain of 1e-17 is one."""
    rule = Plateau(window=10, least_gain=1e-17, patience=1)
    assert math.fsum([0.1] * 10) / 10 == 0.1
    assert rule.reached([0.1] * 11)
