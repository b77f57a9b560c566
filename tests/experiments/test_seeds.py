import dataclasses

import pytest

from experiments.seeds import main
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


@pytest.fixture
def runs(tmp_path):
    folders = []
    for seed, successes in enumerate([(2, 0), (4, 4)]):
        folder = tmp_path / f"seed{seed}"
        folder.mkdir()
        save_evaluation(folder / "eval.json", evaluation(successes))
        folders.append(str(folder))
    return folders


def test_mean_and_range_over_seeds(runs, capsys):
    assert main(runs) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| arm | pass@1 | pass@4 | entropy, nats |")
    # pass@1 is (2/4 + 0)/2 in one run and 1 in the other, pass@4 1/2 and 1.
    cells = [cell.strip() for cell in lines[3].split("|")[1:-1]]
    assert cells[:3] == ["fd", "0.625 (0.250–1.000)", "0.750 (0.500–1.000)"]
    assert cells[3] == "0.500 (0.500–0.500)"
    assert lines[5] == (
        "- fd ≥ sft: not shown (+0.250, -0.250 to +0.500); "
        "not shown (+0.500, -0.250 to +0.500)"
    )


def test_other_theorems_cannot_be_averaged(runs, tmp_path, capsys):
    other = dataclasses.replace(arm("fd", (0, 0)), theorems=("a", "c"))
    folder = tmp_path / "other"
    folder.mkdir()
    save_evaluation(
        folder / "eval.json", Evaluation(ks=(1, 4), arms=(arm("sft", (0, 0)), other))
    )
    assert main([runs[0], str(folder)]) == 2
    assert "differ in their --seed only" in " ".join(capsys.readouterr().out.split())


def test_a_missing_run_is_named(capsys):
    assert main(["no/such/run"]) == 2
    assert "no/such/run" in " ".join(capsys.readouterr().out.split())
    # Brackets are no markup.
    assert main(["no/such[/red]run"]) == 2
    assert "no/such[/red]run" in " ".join(capsys.readouterr().out.split())


def test_other_claims_cannot_be_compared(runs, tmp_path, capsys):
    folder = tmp_path / "other"
    folder.mkdir()
    without = dataclasses.replace(evaluation((2, 0)), claims=())
    save_evaluation(folder / "eval.json", without)
    assert main([runs[0], str(folder)]) == 2
    assert "differ in their --seed only" in " ".join(capsys.readouterr().out.split())
