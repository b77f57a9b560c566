import numpy as np
import pytest

from fdjax.plots.trend import trend


def test_few_rows_are_shown_as_they_are():
    course = trend([{3: 1.0, 1: 2.0, 2: 4.0}])
    assert course is not None
    assert course.steps.tolist() == [1, 2, 3]
    assert course.values.tolist() == [2.0, 4.0, 1.0]
    assert course.low is course.high is course.rows is None


def test_nothing_is_no_course():
    assert trend([]) is trend([{}, {}]) is None


def test_the_interval_of_a_window_is_students():
    """Windows of nine rows; SciPy 1.17's t.ppf(0.975, 8) is 2.306004."""
    values = np.random.default_rng(0).normal(size=40)
    course = trend([dict(enumerate(values))])
    assert course is not None
    window = values[16:25]
    assert course.values[20] == pytest.approx(window.mean())
    reach = 2.306004 * window.std(ddof=1) / 3.0
    # The expansion of the quantile is good to half a percent at eight degrees.
    assert course.high[20] - course.values[20] == pytest.approx(reach, rel=5e-3)
    assert course.values[20] - course.low[20] == pytest.approx(reach, rel=5e-3)
    # Five rows are left at the ends.
    assert course.values[0] == pytest.approx(values[:5].mean())


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Of 2,000 windows of nine normal draws; 95 % within four standard errors."""
    values = np.random.default_rng(1).normal(loc=5.0, size=(2000, 30))
    held = []
    for row in values:
        course = trend([dict(enumerate(row))])
        assert course is not None
        held.append(course.low[15] <= 5.0 <= course.high[15])
    assert np.mean(held) == pytest.approx(0.95, abs=4 * np.sqrt(0.05 * 0.95 / 2000))


def test_seeds_reach_from_the_lowest_to_the_highest_where_all_have_rows():
    course = trend([{1: 0.0, 2: 1.0, 3: 5.0}, {1: 1.0, 2: 2.0}, {}])
    assert course is not None
    assert course.steps.tolist() == [1, 2]
    assert course.values.tolist() == [0.5, 1.5]
    assert course.low.tolist() == [0.0, 1.0]
    assert course.high.tolist() == [1.0, 2.0]


def test_a_long_course_has_few_places():
    course = trend([{step: float(step) for step in range(100_000)}])
    assert course is not None
    assert len(course.steps) == 200
    # A straight line is its own moving mean, except at the ends.
    np.testing.assert_allclose(course.values[5:-5], course.steps[5:-5], rtol=1e-9)
