"""Settings of sampling that mean nothing are refused."""

import math

import pytest

from fdjax.errors import ConfigError
from fdjax.sampling import SamplingConfig


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_new_tokens": True}, "max_new_tokens"),
        ({"temperature": 0.0}, "set top_k=1"),
        ({"temperature": 1e-46}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_p": math.nan}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"stop_tokens": (3, -1)}, "stop_tokens"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        SamplingConfig(**({"max_new_tokens": 4} | change))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", 4.0),
        ("temperature", "0.6"),
        ("top_p", None),
        ("top_k", 2.5),
        ("stop_tokens", [3]),
        ("stop_tokens", (3, None)),
    ],
)
def test_settings_of_another_type_are_refused(name, value):
    config = SamplingConfig(max_new_tokens=4)
    # Not by its constructor, whose annotations are checked under pytest alone.
    object.__setattr__(config, name, value)
    with pytest.raises(ConfigError, match=name):
        config.__post_init__()
