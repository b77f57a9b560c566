import math
import re

import numpy as np
import pytest

from fdjax.errors import ConfigError
from fdjax.ranges import FLAG, SEED, Among, Number, TupleOf, Whole, require


@pytest.mark.parametrize(
    ("rule", "allowed", "refused"),
    [
        (Whole(1), [1, 10**30, np.int64(3)], [0, -1, True, 2.0, math.nan, None, "3"]),
        (Whole(2, 4), [2, 4], [1, 5]),
        (SEED, [0, 2**32 - 1], [-1, 2**32]),
        (Number(), [-1, 0.5, np.float32(2)], [math.nan, math.inf, -math.inf, True]),
        (Number(least=0, most=1), [0, 1, 0.5], [-1e-9, 1.1, math.nan, "0.5"]),
        (Number(above=0), [1e-37, 7], [0, -0.0, math.nan, math.inf, None]),
        (Number(least=0, below=1), [0, 0.999], [1, 1.0, math.nan]),
        # Of float32, the first is 0 and the others are infinite.
        (Number(least=0), [0], [1e-300, 1e39, 10**400]),
        (Among("jsd", "all"), ["jsd"], ["JSD", "", None, np.zeros(2)]),
        (FLAG, [True, False], [1, 0, "false", None]),
        (TupleOf(Whole(1)), [(), (1, 2)], [[1], (0,), (1, "2"), 1, "1", None]),
    ],
)
def test_rules(rule, allowed, refused):
    for value in allowed:
        require("x", value, rule)
    for value in refused:
        with pytest.raises(ConfigError, match=re.escape(f"{rule}, got {value!r}")):
            require("x", value, rule)


def test_rules_read_as_text():
    assert str(Whole(1)) == "an integer of at least 1"
    assert str(Whole(2, 9)) == "an integer from 2 to 9"
    assert str(Number()) == "a finite number"
    assert str(Number(least=0, below=1)) == "a finite number at least 0 and below 1"
    assert str(Among("a", "b")) == "one of a, b"
