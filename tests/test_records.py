import pytest

from fdjax.errors import ConfigError
from fdjax.records import Mean, union


def test_union_holds_all_and_refuses_a_common_key():
    fd, grpo = {"fd/divergence": Mean(1.0, 2.0)}, {"grpo/log_ratio": Mean(3.0, 4.0)}
    assert union(fd, grpo) == {
        "fd/divergence": Mean(1.0, 2.0),
        "grpo/log_ratio": Mean(3.0, 4.0),
    }
    assert union() == {}
    # Even of equal values: which of the two it was is unknown.
    with pytest.raises(ConfigError, match=r"different names, got fd/divergence twice"):
        union(fd, grpo, dict(fd))
