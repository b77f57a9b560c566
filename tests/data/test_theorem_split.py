from collections import Counter

import pytest

from fdjax.data.theorems import canonical_key, generate_problems, split_problems
from fdjax.errors import ConfigError
from fdjax.records import Problem

SIZES = {"pool": 120, "validation": 30, "test": 30}


@pytest.fixture(scope="module")
def problems():
    return generate_problems(400, seed=3)


def strata(problems):
    return Counter((p.family, p.difficulty) for p in problems)


def test_sizes_and_completeness(problems):
    splits = split_problems(problems, sizes=SIZES, seed=0)
    assert list(splits) == ["pool", "validation", "test", "sft"]
    sizes = {name: len(part) for name, part in splits.items()}
    assert sizes == {**SIZES, "sft": 220}  # 400 - 120 - 30 - 30
    everything = sum(strata(part).total() for part in splits.values())
    assert everything == 400


def test_splits_are_disjoint_by_canonical_statement(problems):
    splits = split_problems(problems, sizes=SIZES, seed=0)
    keys = [{canonical_key(p) for p in part} for part in splits.values()]
    assert len(set.union(*keys)) == sum(map(len, keys)) == 400


def test_one_theorem_in_two_dresses_is_kept_once():
    twins = [
        Problem(name="t", statement="theorem t (p q : Prop) (h1 : p) (h2 : q) : p ∧ q"),
        Problem(name="t", statement="theorem t (p q : Prop) (h1 : p) (h2 : q) : q ∧ p"),
    ]
    splits = split_problems(twins, sizes={"test": 1}, seed=0)
    assert splits == {"test": twins[:1], "sft": []}


def test_shares_are_of_the_whole(problems):
    splits = split_problems(problems, sizes={"pool": 0.25, "test": 0.1}, seed=0)
    assert {name: len(part) for name, part in splits.items()} == {
        "pool": 100,
        "test": 40,
        "sft": 260,
    }


def test_held_out_splits_have_one_mix(problems):
    splits = split_problems(problems, sizes=SIZES, seed=0)
    held = strata(p for name in SIZES for p in splits[name])
    for name, size in SIZES.items():
        for stratum, count in held.items():
            # Sequential apportionment stays within two of the exact share.
            exact = size * count / sum(SIZES.values())
            assert abs(strata(splits[name])[stratum] - exact) <= 2


def test_rest_leans_to_easy_theorems(problems):
    def mean(part):
        return sum(p.difficulty for p in part) / len(part)

    splits = split_problems(problems, sizes=SIZES, seed=0)
    assert mean(splits["sft"]) < mean(problems) - 0.2
    assert min(mean(splits[name]) for name in SIZES) > mean(problems)
    even = split_problems(problems, sizes=SIZES, seed=0, lean=0.0)
    assert abs(mean(even["sft"]) - mean(problems)) < 0.1


def test_rest_still_has_hard_theorems_of_every_family(problems):
    sft = split_problems(problems, sizes=SIZES, seed=0)["sft"]
    assert {p.family for p in sft if p.difficulty >= 5} == {
        "propositional",
        "arithmetic",
        "lists",
    }


def test_same_seed_same_split_other_seed_other(problems):
    one = split_problems(problems, sizes=SIZES, seed=0)
    assert split_problems(problems, sizes=SIZES, seed=0) == one
    assert split_problems(problems, sizes=SIZES, seed=1)["test"] != one["test"]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"pool": 300, "test": 101}, "at most 400 distinct"),
        ({"pool": -1}, "at least 0"),
        ({"pool": 1.5}, "at most 1"),
        ({"pool": float("nan")}, "finite number"),
        ({"sft": 10}, "other than 'sft'"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(problems, sizes, message):
    with pytest.raises(ConfigError, match=message):
        split_problems(problems, sizes=sizes, seed=0)
