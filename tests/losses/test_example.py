import doctest

import fdjax.losses


def test_the_example_of_the_package_runs():
    result = doctest.testmod(fdjax.losses)
    assert result.attempted > 10
    assert result.failed == 0
