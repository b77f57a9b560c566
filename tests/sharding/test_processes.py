"""What is gathered is what was sent, or an error; collectives are stood in for here.

Real ones are in `tests/distributed`.
"""

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from fdjax.errors import ExchangeError
from fdjax.run import RunConfig
from fdjax.run.command import RESTART, run_command
from fdjax.sharding import gather

LONG = 3 << 20
FACTS = [b"", b"one", bytes(range(240)), b"12345678" * 31, b"x" * 249, b"y" * LONG]


@pytest.fixture
def wire(monkeypatch):
    """Two processes that send the same; what the second sends may be changed."""
    changes = []

    def gathered(sent):
        other = sent.copy()
        for change in changes:
            other = change(other)
        return np.stack([sent, other])

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "process_allgather", gathered)
    return changes


@pytest.mark.parametrize("fact", FACTS, ids=len)
def test_facts_of_any_length(wire, fact):
    assert gather(fact) == [fact, fact]


@pytest.mark.parametrize("place", [0, 9, 200, -1], ids="size text padding sum".split())
def test_a_bit_that_changes_on_the_way_is_found(wire, place):
    def flip(row):
        row[place] ^= 1
        return row

    wire.append(flip)
    with pytest.raises(ExchangeError, match=r"process 1 sent .* got others: start"):
        gather(b"some text")


def test_bytes_of_another_exchange_are_found(wire):
    """Such as a collective gets whose messages were mixed up with the one before."""
    sent = []

    def one_before(row):
        sent.append(row)
        return sent[-2] if len(sent) > 1 else row

    wire.append(one_before)
    assert gather(b"first") == [b"first"] * 2
    with pytest.raises(ExchangeError, match="process 1"):
        gather(b"other")


def test_what_a_network_mixed_up_asks_for_another_start():
    def mixed_up(config, display):
        raise ExchangeError("mixed up")

    assert run_command(RunConfig(), mixed_up, []) == RESTART
