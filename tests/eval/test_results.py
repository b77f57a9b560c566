import json
import math
from dataclasses import replace

import pytest

from fdjax.errors import DataError
from fdjax.eval import (
    ArmResult,
    Claim,
    Estimate,
    Evaluation,
    TeacherResult,
    load_evaluation,
    save_evaluation,
)

ARM = ArmResult(
    arm="fd",
    theorems=("a", "b"),
    samples=4,
    successes=(1, 3),
    missing=(0, 1),
    distinct_proofs=(1, 2),
    policy_entropy=(0.5, 0.25),
    distinct_sequences=(1, 1),
    tactic_entropy=1.25,
    statuses={"verified": 4, "rejected": 3, "crashed": 1},
)
CLAIM = Claim(
    name="fd_entropy",
    statement="FD > GRPO",
    difference=0.25,
    low=0.125,
    high=0.5,
    verdict="shown",
    detail="of two theorems",
)
EVALUATION = Evaluation(
    ks=(1, 2, 4),
    arms=(ARM,),
    claims=(CLAIM,),
    teacher=TeacherResult(
        without_feedback=Estimate(0.25, 0.125, 0.5),
        with_feedback=Estimate(0.5, 0.25, 0.75),
        theorems=2,
        samples=4,
    ),
    about={"verifier": "embedded Lean", "seed": 0},
)


def test_evaluation_survives_the_file(tmp_path):
    save_evaluation(tmp_path / "eval.json", EVALUATION)
    assert load_evaluation(tmp_path / "eval.json") == EVALUATION
    assert [path.name for path in tmp_path.iterdir()] == ["eval.json"]


def test_summary_holds_what_tables_show(tmp_path):
    save_evaluation(tmp_path / "eval.json", EVALUATION)
    content = json.loads((tmp_path / "eval.json").read_text())
    summary = content["arms"][0]["summary"]
    assert content["k"] == [1, 2, 4]
    # a: 1 of 4; b: 3 of 3 judged. pass@1 = (1/4 + 1) / 2.
    first = summary["pass_at_k"]["1"]
    assert first["value"] == pytest.approx(0.625)
    assert first["theorems"] == 2
    # Two theorems: a bootstrap draws the lower or the higher twice with chance 1/4.
    assert (first["low"], first["high"]) == (pytest.approx(0.25), pytest.approx(1.0))
    # pass@4 is measured on a alone, where one success of four makes it 1.
    assert summary["pass_at_k"]["4"] == {
        "value": 1.0,
        "low": 1.0,
        "high": 1.0,
        "theorems": 1,
    }
    assert summary["entropy"]["value"] == pytest.approx(0.375)
    assert summary["distinct_proofs"]["value"] == pytest.approx(1.5)
    assert (summary["judged"], summary["missing"]) == (7, 1)


def test_what_is_not_a_number_becomes_null_and_comes_back(tmp_path):
    unmeasured = replace(
        EVALUATION,
        arms=(replace(ARM, policy_entropy=(math.nan, 0.25), missing=(1, 1)),),
        claims=(replace(CLAIM, difference=math.nan, low=math.nan, high=math.nan),),
    )
    path = tmp_path / "eval.json"
    save_evaluation(path, unmeasured)
    content = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert content["arms"][0]["policy_entropy"] == [None, 0.25]
    assert content["arms"][0]["summary"]["entropy"]["theorems"] == 1
    assert content["arms"][0]["summary"]["pass_at_k"]["4"]["value"] is None
    loaded = load_evaluation(path)
    assert math.isnan(loaded.arms[0].policy_entropy[0])
    assert math.isnan(loaded.claims[0].low)


def test_files_that_are_no_evaluation_are_refused(tmp_path):
    with pytest.raises(DataError, match="save_evaluation"):
        load_evaluation(tmp_path / "missing.json")
    path = tmp_path / "eval.json"
    path.write_text('{"k": [1]}')
    with pytest.raises(DataError, match="arms"):
        load_evaluation(path)


def test_evaluation_checks_its_parts():
    for ks in [(), (0, 1), (2, 1), (1, 1)]:
        with pytest.raises(DataError, match="increasing"):
            replace(EVALUATION, ks=ks)
    with pytest.raises(DataError, match="different names"):
        replace(EVALUATION, arms=(ARM, ARM))
