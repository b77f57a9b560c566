"""Checkpoints wait for the files that they rely on, and are left out where these are
not kept."""

import pytest

from fdjax.errors import StoreError
from train.small_loop import assert_same_bits, checkpoints, run, values


def test_a_checkpoint_whose_rows_are_not_kept_is_left_out(tmp_path):
    asked = []

    def keep(must):
        asked.append(must)
        return must or len(asked) > 1

    _, rows = run(tmp_path, steps=9, log_every=3, keep=keep)
    # Iterations 4 and 8, and the last one, which cannot wait.
    assert asked == [False, False, True]
    assert checkpoints(tmp_path) == [8, 9]
    assert [row.get("checkpoint/left_out") for row in rows] == [None, 1.0, 1.0]


def test_a_store_that_is_gone_at_the_end_is_an_error(tmp_path):
    def keep(must):
        if must:
            raise StoreError("gone")
        return False

    with pytest.raises(StoreError, match="gone"):
        run(tmp_path, steps=9, keep=keep)
    assert checkpoints(tmp_path) == []
    state, rows = run(tmp_path, steps=9)
    whole, expected = run(tmp_path / "whole", steps=9)
    assert_same_bits(state, whole)
    assert values(rows) == values(expected)
