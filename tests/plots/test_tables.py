import pytest

from fdjax.plots import headline_ks, read_run
from fdjax.plots.tables import (
    claim_rows,
    headline,
    last_metrics,
    provenance,
    settings,
    stage_times,
    status_counts,
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


def test_status_counts_of_evaluation_and_training(run_dir):
    rows = status_counts(read_run(run_dir))
    assert [(row["arm"], row["part"], row["total"]) for row in rows] == [
        ("grpo", "evaluation", 48),
        ("fd", "evaluation", 48),
        ("grpo", "training", 1),
        ("fd", "training", 2),
    ]
    assert rows[3]["counts"] == {"rejected": 2}


def test_stage_times_add_up():
    times = stage_times(
        [
            {"arm": "fd", "step": 1, "time": 9.0, "time/verify_s": 2.0},
            {"arm": "fd", "step": 2, "time/verify_s": 1.5, "time/update_s": 1.0},
            {"arm": "sft", "step": 1, "time/update_s": None},
        ]
    )
    assert times["stages"] == ["verify", "update"]
    assert times["rows"] == [
        {"arm": "fd", "seconds": {"verify": 3.5, "update": 1.0}, "total": 4.5}
    ]
    assert times["longest"] == 4.5


def test_last_metrics_of_each_arm(run_dir):
    table = last_metrics(read_run(run_dir))
    assert table["arms"] == ["grpo", "fd"]
    rows = {row["key"]: row["cells"] for row in table["rows"]}
    assert set(rows) == {"rollout/entropy", "reward/mean", "train/loss"}
    assert rows["rollout/entropy"][0] is None  # null throughout
    assert rows["rollout/entropy"][1]["value"] == pytest.approx(0.25)
    # Rising from the lower left to the upper right of 90 × 22 with a margin.
    points = rows["reward/mean"][1]["line"].split()
    assert (points[0], points[-1], len(points)) == ("2.0,19.0", "88.0,3.0", 5)


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
