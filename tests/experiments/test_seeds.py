import dataclasses

import pytest

from experiments import quickstart
from experiments.miniature.seeds import seeds_table
from fdjax.errors import DataError
from fdjax.eval import ArmResult, Claim, Evaluation, save_evaluation


def arm(name, successes):
    return ArmResult(
        arm=name,
        theorems=("a", "b"),
        samples=4,
        successes=successes,
        missing=(0, 0),
        distinct_proofs=(1, 0),
        policy_entropy=(0.25, 0.75),
        distinct_sequences=(1, 0),
        tactic_entropy=0.0,
        statuses={},
    )


def evaluation(successes):
    claim = Claim(
        name="c",
        statement="fd ≥ sft",
        difference=successes[0] / 8,
        low=-0.25,
        high=0.5,
        verdict="not shown",
        detail="",
    )
    arms = (arm("sft", (0, 0)), arm("fd", successes))
    return Evaluation(ks=(1, 4), arms=arms, claims=(claim,))


EVALUATIONS = [evaluation((2, 0)), evaluation((4, 4))]


def test_mean_and_range_over_seeds():
    lines = seeds_table(EVALUATIONS).splitlines()
    assert lines[0].startswith("| arm | pass@1 | pass@4 | entropy, nats |")
    # pass@1 is (2/4 + 0)/2 in one run and 1 in the other, pass@4 1/2 and 1.
    cells = [cell.strip() for cell in lines[3].split("|")[1:-1]]
    assert cells[:3] == ["fd", "0.625 (0.250–1.000)", "0.750 (0.500–1.000)"]
    assert cells[3] == "0.500 (0.500–0.500)"
    assert lines[5] == (
        "- fd ≥ sft: not shown (+0.250, -0.250 to +0.500); "
        "not shown (+0.500, -0.250 to +0.500)"
    )


def test_other_theorems_cannot_be_averaged():
    other = dataclasses.replace(arm("fd", (0, 0)), theorems=("a", "c"))
    others = Evaluation(ks=(1, 4), arms=(arm("sft", (0, 0)), other))
    with pytest.raises(DataError, match="differ in their --seed only"):
        seeds_table([EVALUATIONS[0], others])


def test_other_claims_cannot_be_compared():
    without = dataclasses.replace(EVALUATIONS[0], claims=())
    with pytest.raises(DataError, match="differ in their --seed only"):
        seeds_table([EVALUATIONS[0], without])


def test_one_command_runs_them_and_makes_the_table(tmp_path, monkeypatch, capsys):
    def trained(config, display):
        folder = config.runs / config.name
        folder.mkdir(parents=True)
        save_evaluation(folder / "eval.json", EVALUATIONS[config.seed])

    monkeypatch.setattr(quickstart, "run", trained)
    assert quickstart.main(["--runs", str(tmp_path), "--seeds", "0", "1"]) == 0
    table = (tmp_path / "quickstart" / "table.md").read_text()
    assert table.rstrip() == seeds_table(EVALUATIONS)
    assert table in capsys.readouterr().out
