import numpy as np
import pytest

from fdjax.plots import RunFiles, lines_of
from fdjax.plots.gap import gap_trend, token_gaps
from sample_rows import sample


def run_of(rows, name="run", seeds=()):
    return RunFiles(
        name=name, config={}, metrics=[], evaluation={}, samples=rows, seeds=seeds
    )


def scored(step, *pairs, **changes):
    tokens, kl = zip(*pairs, strict=True)
    return sample(step=step, tokens=list(tokens), kl=list(kl), **changes)


ROWS = [
    scored(1, ("a", 1.0), ("b", 0.5), ("", None)),
    scored(1, ("a", 3.0)),
    sample(step=1, tokens=None, kl=None),
    scored(11, ("b", 0.25), ("c", 0.125)),
]


def test_a_token_has_its_mean_of_each_step():
    gaps = token_gaps(lines_of([run_of(ROWS)]))
    assert gaps is not None
    assert gaps.tokens == ["a", "b", "c"]  # sums of 4, 0.75 and 0.125 nats
    ((line, columns, rows),) = gaps.lines
    assert (line.arm, columns) == ("fd", ["1", "11"])
    assert rows == [[(2.0, 2), None], [(0.5, 1), (0.25, 1)], [None, (0.125, 1)]]


def test_many_steps_share_columns():
    rows = [scored(step, ("a", float(step))) for step in range(1, 481, 10)]
    ((_, columns, cells),) = token_gaps(lines_of([run_of(rows)])).lines
    assert len(columns) == 24
    assert columns[:2] == ["1–11", "21–31"]
    assert cells[0][0] == (6.0, 2)


def test_tokens_of_a_small_gap_stand_beside_those_of_a_large_one():
    """A line counts by shares, so that one with a thousandfold KL leaves it room."""
    small = run_of([scored(1, *((f"s{k}", 0.001) for k in range(20)))], "small")
    large = run_of([scored(1, *((f"l{k}", 1.0) for k in range(20)))], "large")
    tokens = token_gaps(lines_of([small, large])).tokens
    assert len(tokens) == 24
    assert {token[0] for token in tokens} == {"s", "l"}


def test_the_mean_over_tokens_lies_in_its_interval():
    rows = [scored(1, ("a", 1.0 + k % 3), ("b", 0.5)) for k in range(30)]
    rows.append(scored(11, ("a", 0.25)))
    course = gap_trend(lines_of([run_of(rows)])[0])
    assert course is not None
    assert course.steps.tolist() == [1, 11]
    np.testing.assert_allclose(course.values, [1.25, 0.25])  # (2 + 0.5) / 2
    # Attempts have means of 0.75, 1.25, 1.75: a deviation of 0.408 over √30.
    assert course.high[0] - course.low[0] == pytest.approx(2 * 1.96 * 0.0745, rel=0.1)
    assert course.low[1] == course.high[1] == 0.25


def test_seeds_reach_from_the_lowest_to_the_highest():
    seeds = [run_of([scored(1, ("a", nats))], f"seed{nats}") for nats in (1.0, 2.0)]
    (line,) = lines_of([run_of([], seeds=tuple(seeds))])
    course = gap_trend(line)
    assert course is not None
    ends = (course.low[0], course.values[0], course.high[0])
    assert ends == (1.0, 1.5, 2.0)


def test_nothing_scored_is_no_gap():
    lines = lines_of([run_of([sample(tokens=None, kl=None)])])
    assert token_gaps(lines) is gap_trend(lines[0]) is None
