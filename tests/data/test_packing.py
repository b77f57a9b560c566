import numpy as np
import pytest

from fdjax.data.packing import pad_left, pad_right, padded_width
from fdjax.errors import ConfigError, DataError


def test_left_and_right():
    tokens, valid = pad_left([[1, 2], [3]], width=3, pad=9)
    np.testing.assert_array_equal(tokens, [[9, 1, 2], [9, 9, 3]])
    np.testing.assert_array_equal(valid, [[False, True, True], [False, False, True]])
    tokens, valid = pad_right([[1, 2], []], width=3, pad=9)
    np.testing.assert_array_equal(tokens, [[1, 2, 9], [9, 9, 9]])
    np.testing.assert_array_equal(valid, [[True, True, False], [False] * 3])
    assert tokens.dtype == np.int32


def test_too_long_names_the_row():
    with pytest.raises(DataError, match=r"at most 1 tokens in row 1, got 2"):
        pad_left([[1], [1, 2]], width=1, pad=0)


@pytest.mark.parametrize("width", [0, -1])
def test_rows_need_room(width):
    with pytest.raises(ConfigError, match="width to be an integer of at least 1"):
        pad_right([], width=width, pad=0)


@pytest.mark.parametrize(
    ("lengths", "multiple", "width"), [([3, 17], 16, 32), ([16], 16, 16), ([], 8, 8)]
)
def test_width(lengths, multiple, width):
    assert padded_width(lengths, multiple) == width
