import pytest

from fdjax.errors import ConfigError
from fdjax.records import Mean, Status, union


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


def test_only_a_failed_checker_decides_nothing():
    assert [status.value for status in Status if status.decided] == [
        *("verified", "rejected", "unsafe", "timeout")
    ]
