import json
import math

import pytest

from fdjax.encoding import as_float, decode, encode, spellings


def test_what_json_cannot_hold_is_null_at_any_depth():
    value = {"a": [1.5, math.nan], "b": {"c": (math.inf, -math.inf)}, "d": None}
    text = encode(value)
    found = json.loads(text, parse_constant=pytest.fail)
    assert found == {"a": [1.5, None], "b": {"c": [None, None]}, "d": None}
    assert decode(text) == found


def test_null_and_what_others_write_for_nan_are_read_alike():
    assert decode(b"[null, NaN, Infinity, -Infinity, 1]") == [None] * 4 + [1]
    assert math.isnan(as_float(None))
    assert as_float(2) == 2.0
    assert isinstance(as_float(2), float)


@pytest.mark.parametrize("text", ["∀ x, x = x", "\ud800", "a\u2028b\n"])
@pytest.mark.parametrize("indent", [None, 1])
def test_any_text_is_read_back_from_one_utf8_line(text, indent):
    line = encode({"text": text}, indent=indent)
    line.decode()
    assert line.endswith(b"\n")
    assert indent or line.count(b"\n") == 1
    assert decode(line) == {"text": text}


def test_the_spellings_of_a_value():
    assert list(spellings("∀")) == ['"∀"\n'.encode(), b'"\\u2200"\n']
    assert list(spellings("\ud800")) == [b'"\\ud800"\n']
