import pytest

from fdjax.plots import headline_ks, read_run
from fdjax.plots.tables import (
    claim_rows,
    headline,
    provenance,
    settings,
)


def test_headline_shows_the_saved_numbers(run_dir):
    table = headline(read_run(run_dir).evaluation)
    assert table["titles"] == ["pass@1", "pass@4", "entropy", "distinct proofs"]
    grpo, fd = table["rows"]
    assert grpo["cells"][0]["value"] == pytest.approx(0.25)  # 1 of 4 everywhere
    # 2 of 3 judged once and 2 of 4 eleven times.
    assert fd["cells"][0]["value"] == pytest.approx((2 / 3 + 11 / 2) / 12)
    assert (grpo["cells"][0]["best"], fd["cells"][0]["best"]) == (False, True)
    # pass@4 needs four judged samples.
    assert fd["cells"][1]["theorems"] == 11
    assert (table["theorems"], table["samples"], table["missing"]) == (12, 4, 1)
    assert table["partial"]


@pytest.mark.parametrize(
    ("ks", "shown"),
    [
        ((1, 2, 4, 8, 16, 32, 64), [1, 4, 16, 64]),
        ((1, 2, 4, 8), [1, 4, 8]),
        ((1, 64, 128), [1, 64, 128]),
        ((2,), [2]),
    ],
)
def test_tables_show_a_few_k_and_the_largest(ks, shown):
    assert headline_ks(ks) == shown


def test_claim_bars_lie_around_zero():
    claim = {"low": -0.1, "difference": 0.1, "high": 0.2, "detail": "a; b"}
    row = claim_rows([claim])[0]
    # The axis reaches 1.15 * 0.2 to either side of 50.
    assert row["bar"]["low"] == pytest.approx(50 - 50 * 0.1 / 0.23)
    assert row["bar"]["middle"] == pytest.approx(50 + 50 * 0.1 / 0.23)
    assert row["bar"]["high"] == pytest.approx(50 + 50 / 1.15)
    assert row["comparisons"] == ["a", "b"]
    assert claim_rows([{**claim, "low": None}])[0]["bar"] is None
    flat = claim_rows([{**claim, "low": 0.0, "difference": 0.0, "high": 0.0}])[0]
    assert flat["bar"] == {"low": 50.0, "middle": 50.0, "high": 50.0}


def test_settings_are_flattened():
    config = {"a": {"b": 1, "c": [1, 2]}, "d": [{"e": None}], "f": "x"}
    assert settings(config) == [
        ("a.b", "1"),
        ("a.c", "1, 2"),
        ("d.0.e", "None"),
        ("f", "x"),
    ]
    recorded = {"provenance": {"git": "abc", "packages": {"jax": "0.10.2"}}}
    assert provenance(recorded) == {"git": "abc", "jax": "0.10.2"}
    assert provenance({}) == provenance({"provenance": {"git": None}}) == {}
