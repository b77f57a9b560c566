import dataclasses

import pytest

from experiments import quickstart
from experiments.miniature.seeds import seeds_table
from fdjax.errors import DataError
from fdjax.eval import ArmResult, Evaluation, evaluate_claims, save_evaluation


def arm(name, successes, entropy=0.5):
    return ArmResult(
        arm=name,
        theorems=tuple("abcdefgh"),
        samples=4,
        successes=successes * 4,
        missing=(0, 0) * 4,
        distinct_proofs=(1, 0) * 4,
        policy_entropy=(entropy,) * 8,
        distinct_sequences=(1, 0) * 4,
        tactic_entropy=0.0,
        statuses={},
    )


def evaluation(successes, entropy):
    arms = (arm("grpo", (0, 0)), arm("fd", successes, entropy))
    return Evaluation(ks=(1, 4), arms=arms, claims=evaluate_claims(arms, (1, 4)))


EVALUATIONS = [evaluation((2, 0), 0.75), evaluation((4, 4), 0.375)]


def test_mean_and_range_over_seeds():
    lines = seeds_table(EVALUATIONS).splitlines()
    assert lines[0].startswith("| arm | pass@1 | pass@4 | entropy, nats |")
    # pass@1 is (2/4 + 0)/2 in one run and 1 in the other, pass@4 1/2 and 1.
    cells = [cell.strip() for cell in lines[3].split("|")[1:-1]]
    assert cells[:3] == ["fd", "0.625 (0.250–1.000)", "0.750 (0.500–1.000)"]
    assert cells[3] == "0.562 (0.375–0.750)"


def test_one_verdict_for_all_seeds():
    """The seeds alone say shown and contradicted; their entropies differ by constants,
    so that the mean of two drawn seeds is +0.25, +0.0625 or -0.125 as 1 : 2 : 1."""
    alone = [evaluation.claims[0].verdict for evaluation in EVALUATIONS]
    assert alone == ["shown", "contradicted"]
    lines = seeds_table(EVALUATIONS).splitlines()
    assert lines[5] == (
        "- Policy entropy (nats per token): fd > grpo: not shown (fd against grpo: "
        "difference +0.062 [-0.125, +0.250], 2 seeds × 8 problems; "
        "by seed: +0.250, -0.125)"
    )
    assert len(lines) == 7


def test_other_theorems_cannot_be_averaged():
    other = dataclasses.replace(arm("fd", (0, 0)), theorems=tuple("abcdefgx"))
    others = Evaluation(ks=(1, 4), arms=(arm("grpo", (0, 0)), other))
    with pytest.raises(DataError, match="differ in their --seed only"):
        seeds_table([EVALUATIONS[0], others])


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
