import pytest

from experiments.miniature.dataset import plain_rows
from fdjax.errors import ConfigError
from fdjax.records import Problem

PROBLEM = Problem(
    name="t",
    statement="theorem t (p q : Prop) (h1 : p) : p ∨ (q → p)",
    references=("  left\n  exact h1", "  right\n  intro h2\n  exact h1"),
)


def test_withheld_tactics_are_shown_without_feedback_in_no_row():
    both = plain_rows([PROBLEM], withheld=())
    assert [row[2] for row in both] == list(PROBLEM.references)
    [(problem, feedback, proof)] = plain_rows([PROBLEM], withheld=("right",))
    assert (problem, feedback, proof) == (PROBLEM, None, PROBLEM.references[0])


def test_withholding_everything_is_an_error():
    with pytest.raises(ConfigError, match=r"got none with data.withheld = \('exact',"):
        plain_rows([PROBLEM], withheld=("exact",))
