"""The whole quickstart, real Lean included, leaves what it says; see `small_run`."""

import json
import re
from pathlib import Path

import jax.numpy as jnp
import pytest
from transformers import AutoTokenizer

from experiments.quickstart import main
from fdjax.checkpoint import convert, load_pretrained, open_source
from fdjax.metrics import read_metrics
from small_run import SMALL, finished
from tiny import mesh_of

ARMS = ["sft", "grpo", "fd", "fd_then_grpo", "sft_references"]


def test_leaves_everything_that_a_run_is(whole):
    run, _ = whole
    config = json.loads((run / "config.json").read_text())
    assert config["config"]["rollout"]["steps"] == 6
    assert config["provenance"]["packages"]["jax"]
    assert (run / "report.html").stat().st_size > 10_000
    assert {path.suffix for path in (run / "figures").iterdir()} == {".png", ".svg"}
    assert (run / "model" / "tokenizer.json").exists()
    for arm in ARMS:
        assert any((run / "checkpoints" / arm).iterdir())


@pytest.mark.parametrize("which", ["student", "teacher"])
def test_checkpoints_go_to_hugging_face(whole, tmp_path, which):
    run, _ = whole
    source = open_source(run / "checkpoints" / "fd")
    convert(source, tmp_path / "hf", to="hf", which=which)
    found = load_pretrained(tmp_path / "hf", mesh_of())
    tokenizer = AutoTokenizer.from_pretrained(found.folder)
    chat = [{"role": "user", "content": "theorem t : True"}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
    tokens = jnp.asarray([ids], jnp.int32)
    logits = found.model.apply(found.params, tokens, valid=tokens >= 0)
    assert logits.shape == (1, len(ids), len(tokenizer))
    assert bool(jnp.isfinite(logits).all())


def test_every_attempt_is_kept_with_verdict_feedback_and_reward(whole):
    run, _ = whole
    rows = read_metrics(run / "samples.jsonl")
    counts = {arm: sum(row["arm"] == arm for row in rows) for arm in ARMS}
    # Six iterations of 8 x 2 attempts; FD then GRPO adds three iterations of GRPO.
    assert counts == {
        "sft": 0,
        "grpo": 96,
        "fd": 96,
        "fd_then_grpo": 48,
        "sft_references": 0,
    }
    for row in rows:
        assert row["status"] in {"verified", "rejected", "unsafe", "timeout"}
        assert row["reward"] == float(row["status"] == "verified")
        # GRPO reads none, and so nobody writes any.
        assert bool(row["feedback"]) == (row["arm"] == "fd")
    heat = [row for row in rows if row["kl"] is not None]
    # The first of the two optimizer steps of the first FD iteration: 8 attempts.
    assert [row["arm"] for row in heat] == ["fd"] * 8
    for row in heat:
        assert "".join(row["tokens"]) == row["proof"]
        assert len(row["tokens"]) == len(row["kl"]) == len(row["log_ratio"])
        assert all(value is None or value >= -1e-4 for value in row["kl"])


def test_arms_start_from_the_same_attempts(whole):
    run, _ = whole
    rows = read_metrics(run / "samples.jsonl")
    first = {
        arm: [row["proof"] for row in rows if row["arm"] == arm and row["step"] == 1]
        for arm in ("grpo", "fd")
    }
    assert first["grpo"] == first["fd"]


def test_evaluation_and_claims_come_from_the_counts(whole):
    run, _ = whole
    evaluation = json.loads((run / "eval.json").read_text())
    assert [arm["arm"] for arm in evaluation["arms"]] == ARMS
    for arm in evaluation["arms"]:
        assert sum(arm["statuses"].values()) == 8 * 4
        assert sum(arm["successes"]) == arm["statuses"].get("verified", 0)
    assert {claim["name"] for claim in evaluation["claims"]} >= {
        "fd_entropy",
        "fd_large_k",
        "fd_then_grpo_pass_at_1",
    }
    minif2f = json.loads((run / "minif2f.json").read_text())
    assert minif2f["arms"][0]["theorems"] == ["sum", "long"]


def test_training_is_logged_step_by_step(whole):
    run, _ = whole
    rows = read_metrics(run / "metrics.jsonl")
    assert [row["step"] for row in rows if row["arm"] == "fd"] == [1, 2, 3, 4, 5, 6]
    for row in rows:
        if row["arm"] in ("grpo", "fd"):
            assert 0 <= row["reward/mean"] <= 1
            assert row["rollout/entropy"] > 0
            assert row["rollout/logprob_gap_max"] < 1e-4
            assert row["rollout/marginal_entropy"] > 0.5
            assert row["time/verify_s"] > 0


STEP = {
    *("train/loss", "train/gradient_norm", "train/scored_tokens"),
    *("train/skipped", "train/empty", "train/padding"),
}
ROLLOUT = {
    *("reward/mean", "rollout/entropy", "rollout/length", "rollout/finished"),
    *("rollout/overlong_prompts", "rollout/broken_statements"),
    *("rollout/turns", "rollout/calls", "rollout/answerless"),
    *("rollout/logprob_gap", "rollout/logprob_gap_max", "rollout/marginal_entropy"),
    *("rollout/live_groups", "rollout/staleness"),
    *("verdict/verified", "verdict/rejected"),
    *("verdict/unsafe", "verdict/timeout", "verdict/crashed"),
    *("time/sample_s", "time/verify_s", "time/feedback_s", "time/update_s"),
    "time/data_s",
}
SFT = STEP | {
    *("sft/cross_entropy", "sft/overlong", "train/entropy"),
    *("time/data_s", "time/update_s"),
}
GRPO = (
    STEP
    | ROLLOUT
    | {
        *("advantages/live_groups", "advantages/known_rewards"),
        *("grpo/clip_fraction", "grpo/log_ratio", "grpo/kl_k3", "train/entropy"),
    }
)
FD = (
    STEP
    | ROLLOUT
    | {
        *("feedback/available", "feedback/shortened", "feedback/dropped"),
        *("feedback/missing", "feedback/requests", "feedback/retries"),
        *("feedback/input_tokens", "feedback/output_tokens", "feedback/cost_usd"),
        *("feedback/estimated", "feedback/recorded", "feedback/cut_characters"),
        "feedback/stripped_lines",
        *("fd/divergence", "fd/forward_kl", "fd/student_entropy", "fd/teacher_entropy"),
    }
)
METRICS = {
    "sft": SFT,
    "grpo": GRPO,
    "fd": FD,
    "fd_then_grpo": GRPO,
    "sft_references": SFT,
}


def test_metric_names_are_these_and_documented(whole):
    run, _ = whole
    for row in read_metrics(run / "metrics.jsonl"):
        assert set(row) - {"arm", "step", "time"} == METRICS[row["arm"]]
    table = (Path(__file__).parents[2] / "docs/papers.md").read_text()
    documented = set(re.findall(r"^\| ([a-z]+/\w+) \|", table, re.MULTILINE))
    assert set().union(*METRICS.values()) <= documented


def test_a_finished_run_is_not_overwritten(whole, capsys):
    run, arguments = whole
    before = (run / "eval.json").read_bytes()
    assert main(arguments) == 2
    assert "--resume" in capsys.readouterr().out
    assert (run / "eval.json").read_bytes() == before


def test_resuming_a_finished_run_repeats_nothing(whole):
    run, arguments = whole
    samples = (run / "samples.jsonl").read_bytes()
    metrics = (run / "metrics.jsonl").read_bytes()
    finished([*arguments, "--resume"])
    assert (run / "samples.jsonl").read_bytes() == samples
    assert (run / "metrics.jsonl").read_bytes() == metrics


def test_resuming_what_is_not_there(tmp_path, capsys):
    assert _exit_code(["--runs", str(tmp_path), "--resume"]) == 2
    assert "Expected a run to resume" in " ".join(capsys.readouterr().out.split())


def test_unknown_flag(tmp_path, capsys):
    assert _exit_code(["--runs", str(tmp_path), "--no-such-flag", "1"]) == 2
    assert "no-such-flag" in capsys.readouterr().err


def test_malformed_row_names_its_line(tmp_path, capsys):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"name": "a", "formal_statement": "theorem a : True := by"}\n{\n')
    arguments = ["--runs", str(tmp_path), "--minif2f", str(path), *SMALL]
    assert _exit_code(arguments) == 2
    assert "line 2" in " ".join(capsys.readouterr().out.split())
    # The corrected command may use the same name.
    assert not (tmp_path / "quickstart").exists()


def _exit_code(arguments):
    try:
        return main(arguments)
    except SystemExit as stop:
        return stop.code
