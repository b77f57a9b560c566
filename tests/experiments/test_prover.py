"""A prover that reviews itself: FD, then GRPO, replayed, and on one device and eight.

Each run loads, samples, asks Lean and compiles two objectives, so the file takes a
minute of processor time with the small policy, and many with a pretrained one.
"""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from calling_policy import calling_case
from experiments import prover
from fdjax.checkpoint import save_pretrained, write_description
from fdjax.data.problems import write_problems
from small_prover import Case, flags, small_case
from tiny import MODEL, PROBLEMS, TOKENIZER

ROOT = Path(__file__).parents[2]
PRETRAINED = os.environ.get("FDJAX_TEST_MODEL", "")
BRIEF = """{% block system %}{% endblock %}
{% block user %}Say in at most ten words why this proof is wrong.

{{ attempt.code }}{% endblock %}
"""
LONG = """--attempts.group-size 2 --attempts.max-new-tokens 16
    --attempts.feedback-tokens 64"""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return small_case(tmp_path_factory.mktemp("small"))


def on_one_device(arguments, devices=1, **environment):
    """In a process of its own: JAX counts its devices once."""
    done = subprocess.run(
        [sys.executable, "-m", "experiments.prover", *arguments],
        env={**os.environ, "JAX_NUM_CPU_DEVICES": str(devices), **environment},
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def require_learning(case, name):
    """Sees to it that the run had something to learn from, by feedback of its own."""
    rows = case.rows(name)
    assert [row["arm"] for row in rows] == ["fd", "fd", "fd_then_grpo"]
    for row in rows[:2]:
        assert row["feedback/available"] > 0
        assert row["train/loss"] > 0
        assert row["train/empty"] == row["train/skipped"] == 0


def require_equal(case, one, other, tolerance):
    """Sees to it that two runs sampled the same, heard the same and lost the same."""
    for first, second in zip(
        case.rows(one, "samples"), case.rows(other, "samples"), strict=True
    ):
        for key in ("problem", "text", "status", "feedback", "feedback_error"):
            assert first[key] == second[key], key
    for first, second in zip(case.rows(one), case.rows(other), strict=True):
        np.testing.assert_allclose(
            second["train/loss"], first["train/loss"], rtol=tolerance, atol=1e-7
        )
        np.testing.assert_allclose(
            second["train/gradient_norm"],
            first["train/gradient_norm"],
            rtol=tolerance * 10,
        )


def require_replayed(case, name, recording, before):
    """Sees to it that nothing was asked, and nothing added to the recording."""
    rows = [row for row in case.rows(name) if row["arm"] == "fd"]
    assert [row["feedback/requests"] for row in rows] == [0, 0]
    assert all(row["feedback/recorded"] > 0 for row in rows)
    assert "feedback/missing_unrecorded" not in {key for row in rows for key in row}
    assert (case.folder / recording).read_bytes() == before


def test_a_run_with_its_own_reviews_replays_and_moves(small, capsys):
    """On eight devices, replayed there, and on one that reviews anew."""
    mesh = ("--mesh.data", "2", "--mesh.fsdp", "4")
    assert prover.main(small.arguments("eight", "eight.jsonl", mesh=mesh)) == 0
    require_learning(small, "eight")
    [grpo] = [row for row in small.rows("eight") if row["arm"] == "fd_then_grpo"]
    assert 0 < grpo["reward/mean"] < 1
    assert grpo["train/gradient_norm"] > 0

    recorded = (small.folder / "eight.jsonl").read_bytes()
    replay = small.arguments("again", "eight.jsonl", "--feedback.replay", mesh=mesh)
    assert prover.main(replay) == 0
    require_replayed(small, "again", "eight.jsonl", recorded)
    require_equal(small, "eight", "again", tolerance=0)

    on_one_device(small.arguments("one", "one.jsonl"))
    # Seen: 3e-7, float32 that is summed in another order.
    require_equal(small, "eight", "one", tolerance=2e-6)
    said = [
        {row["key"]: row["text"] for row in map(json.loads, text.splitlines())}
        for text in (recorded, (small.folder / "one.jsonl").read_bytes())
    ]
    assert said[0] == said[1]


def test_a_run_says_early_that_reviews_do_not_fit(small, capsys):
    arguments = small.arguments(
        "long", "long.jsonl", "--feedback.max-new-tokens", "999"
    )
    assert prover.main(arguments) == 2
    said = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "questions of 120 tokens and reviews of 999" in said
    assert not (small.folder / "long").exists()


def test_a_policy_is_told_of_its_tools(tmp_path, capsys):
    config = replace(MODEL.config, max_position_embeddings=4096)
    write_description(tmp_path / "description", config, TOKENIZER)
    save_pretrained(
        MODEL.init(jax.random.key(0)),
        config,
        tmp_path / "policy",
        description=tmp_path / "description",
    )
    write_problems(PROBLEMS, tmp_path / "problems.jsonl")
    arguments = [
        *("--policy", str(tmp_path / "policy"), "--runs", str(tmp_path / "runs")),
        *("--problems", str(tmp_path / "problems.jsonl"), "--dry-run"),
        *("--attempts.problems", "4", "--attempts.max-new-tokens", "64"),
    ]
    assert prover.main([*arguments, "--episode", "tools"]) == 0
    said = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert said.count("You may use tools.") == 2  # as the policy and its teacher read
    assert "read_library: Read at most 50 lines" in said
    assert prover.main(arguments) == 0
    assert "You may use tools." not in capsys.readouterr().out
    away = [*arguments, "--episode", "tools", "lean:kimina", "--lean.url", "http://a"]
    assert prover.main(away) == 2
    said = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "expected a Lean of this machine for an episode with tools" in said


@pytest.mark.slow
def test_a_policy_that_calls_tools_is_trained_on_what_it_said(tmp_path):
    case = calling_case(tmp_path)
    assert prover.main(case.arguments("calls", "calls.jsonl")) == 0
    require_learning(case, "calls")
    attempts = case.rows("calls", "samples")
    calls = [call for attempt in attempts for call in attempt["calls"]]
    assert {call["tool"] for call in calls} == {"run_lean", "search_library"}
    for call in calls:
        assert "And.intro" in call["answer"]
        assert "a → b → a ∧ b" in call["answer"] or "Init/Prelude" in call["answer"]
    assert {attempt["ended"] for attempt in attempts} == {"answer", "calls"}
    assert any(attempt["passed"] and attempt["calls"] for attempt in attempts)
    for row in case.rows("calls"):
        assert row["rollout/turns"] == 1 + row["rollout/calls"] > 1
        # A call and its end are two tokens, and so is an answer.
        assert row["rollout/length"] == 2 * row["rollout/turns"]
        # Seen: 1.2e-6; what tools said is read again, too.
        assert row["rollout/logprob_gap_max"] < 1e-5


@pytest.mark.slow
@pytest.mark.skipif(
    not PRETRAINED, reason="FDJAX_TEST_MODEL names no folder of a pretrained chat model"
)
def test_a_pretrained_prover_replays_and_moves(tmp_path):
    """On one device, replayed there, and on eight that review anew."""
    (tmp_path / "brief@1.jinja").write_text(BRIEF)
    reviews = f"""--feedback.template {tmp_path / "brief@1.jinja"}
        --feedback.max-new-tokens 48 --feedback.prompt-tokens 128
        --feedback.temperature 0.5"""
    case = Case(
        tmp_path,
        flags(tmp_path, PRETRAINED, PROBLEMS[:4], LONG),
        tuple(reviews.split()),
    )
    # Compiled plainly, a large policy takes many times as long.
    usual = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "false", "XLA_FLAGS": ""}
    # Each of eight devices gathers the weights: freed memory must go back at once.
    usual |= {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": str(4 << 20)}
    on_one_device(case.arguments("one", "one.jsonl"), **usual)
    require_learning(case, "one")
    recorded = (tmp_path / "one.jsonl").read_bytes()
    replay = case.arguments("again", "one.jsonl", "--feedback.replay")
    on_one_device(replay, **usual)
    require_replayed(case, "again", "one.jsonl", recorded)
    require_equal(case, "one", "again", tolerance=0)
    if available_gb() < 16:
        pytest.skip("replayed; eight devices on one machine take 14 GB of memory")
    eight = case.arguments("eight", "eight.jsonl", mesh=("--mesh.fsdp", "8"))
    on_one_device(eight, devices=8, **usual)
    require_equal(case, "one", "eight", tolerance=1e-5)


def available_gb():
    """Memory that the machine has left."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    [found] = [line for line in lines if line.startswith("MemAvailable")]
    return int(found.split()[1]) / 1e6
