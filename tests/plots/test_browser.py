import json

import pytest

from fdjax.plots.browser import browser_data, script_json
from sample_rows import HOSTILE, sample


def test_script_json_cannot_leave_its_element():
    value = {"proof": HOSTILE + "\u2028&amp;", "lean": "∀ p, p → p"}
    text = script_json(value)
    assert not set(text) & set("<>&\u2028")
    assert "∀ p, p → p" in text
    assert json.loads(text) == value


def test_attempts_are_counted_and_statements_kept_once():
    rows = [
        sample(),
        sample(status="verified"),
        sample(step=2),
        sample(problem="other", statement="theorem other : True"),
    ]
    data = browser_data(rows)
    assert [row["attempt"] for row in data["samples"]] == [1, 2, 1, 1]
    assert [row["statement"] for row in data["samples"]] == [0, 0, 0, 1]
    assert data["statements"] == [rows[0]["statement"], "theorem other : True"]
    assert data["samples"][1]["status"] == "verified"


def test_the_calls_of_an_attempt_are_there():
    call = {"tool": "run_lean", "arguments": {}, "answer": "ok", "ended": "done"}
    data = browser_data([sample(calls=[call]), sample()])
    assert [row["calls"] for row in data["samples"]] == [[call], []]


def test_scale_is_a_high_percentile_of_scored_tokens():
    tokens = ["a"] * 101
    values = [place / 100 for place in range(101)]
    rows = [sample(tokens=tokens, kl=values), sample(tokens=["b"], kl=[None])]
    assert browser_data(rows)["scale"] == pytest.approx(0.98)
    assert browser_data([sample(tokens=None, kl=None)])["scale"] == 1.0
    assert "kl" not in browser_data([sample(tokens=None, kl=None)])["samples"][0]
