import json

import pytest

from fdjax.eval import (
    ArmResult,
    Estimate,
    Evaluation,
    TeacherResult,
    evaluate_claims,
    save_evaluation,
)
from fdjax.metrics import MetricsWriter, SampleWriter
from sample_rows import HOSTILE, sample

THEOREMS = tuple(f"t{index}" for index in range(12))


def arm(name, successes, entropy, missing=0):
    return ArmResult(
        arm=name,
        theorems=THEOREMS,
        samples=4,
        successes=(successes,) * 12,
        missing=(missing,) + (0,) * 11,
        distinct_proofs=(1,) * 12,
        policy_entropy=tuple(entropy + 0.001 * index for index in range(12)),
        statuses={"verified": 12 * successes, "rejected": 48 - 12 * successes},
    )


@pytest.fixture
def run_dir(tmp_path):
    """A small finished run with two arms and hostile text."""
    folder = tmp_path / "tiny <b>run"
    folder.mkdir()
    config = {"name": HOSTILE, "fd": {"rate": 0.05}}
    provenance = {"git": "0123456789abcdef", "packages": {"jax": "0.10.2"}}
    content = {"config": config, "provenance": provenance}
    (folder / "config.json").write_text(json.dumps(content))
    arms = (arm("grpo", 1, 0.2), arm("fd", 2, 0.3, missing=1))
    evaluation = Evaluation(
        ks=(1, 2, 4),
        arms=arms,
        claims=evaluate_claims(arms, (1, 2, 4), resamples=200),
        teacher=TeacherResult(
            without_feedback=Estimate(0.1, 0.05, 0.2),
            with_feedback=Estimate(0.3, 0.2, 0.4),
            theorems=6,
            samples=2,
        ),
        about={"verifier": "embedded Lean & friends"},
    )
    save_evaluation(folder / "eval.json", evaluation)
    with MetricsWriter(folder / "metrics.jsonl") as writer:
        for step in range(1, 6):
            values = {
                "rollout/entropy": 0.2 + 0.01 * step,
                "reward/mean": 0.1 * step,
                "time/verify_s": 2.0,
                "train/loss": 1.0 / step,
            }
            writer.write("fd", step, values, wall_time_s=1.7e9 + step)
            writer.write("grpo", step, values | {"rollout/entropy": None}, 1.7e9)
    with SampleWriter(folder / "samples.jsonl") as writer:
        writer.write(sample())
        writer.write(sample(proof=HOSTILE, problem=HOSTILE, tokens=[HOSTILE], kl=[1.0]))
        writer.write(
            sample(
                arm="grpo",
                status="verified",
                messages=[],
                feedback=None,
                reward=1.0,
                tokens=None,
                kl=None,
            )
        )
    return folder
