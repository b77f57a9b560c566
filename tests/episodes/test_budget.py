"""Settings that make no sense are refused."""

import pytest

from fdjax.episodes import Budget
from fdjax.errors import ConfigError
from fdjax.tools import CallLimits


@pytest.mark.parametrize("settings", [{"tokens": 0}, {"calls": -1}, {"turn_tokens": 0}])
def test_budgets_are_checked(settings):
    with pytest.raises(ConfigError, match=r"expected Budget\."):
        Budget(**settings)
    with pytest.raises(ConfigError, match="output_characters"):
        CallLimits(output_characters=1)
