"""A run that trains adapters: from a pretrained folder to policies that others read."""

import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from fdjax.checkpoint import open_source
from fdjax.errors import CheckpointError
from fdjax.feedback import ConstantFeedback
from fdjax.judge import Judgement
from fdjax.model import LoRA
from fdjax.run import (
    Arm,
    AttemptsConfig,
    EvaluationConfig,
    PolicyConfig,
    RunConfig,
    Task,
    experiment,
    read_probes,
)
from fdjax.run.memory import held_bytes
from fdjax.train import (
    FD,
    CheckpointsConfig,
    EMATeacher,
    OptimizerConfig,
    PhaseConfig,
    make_optimizer,
)
from tiny import MODEL, PROBLEMS, mesh_of

LORA = LoRA(rank=2, alpha=6.0, targets=("query", "output", "down"))


class Longer:
    """A reward that does not come from Lean: 1 for an even number of characters."""

    async def judge(self, attempts):
        return [
            Judgement(reward=float(len(text) % 2 == 0), passed=len(text) % 2 == 0)
            for _, text in attempts
        ]


def task(context):
    return Task(
        problems=PROBLEMS[:4],
        evaluation=PROBLEMS[4:6],
        judge=Longer(),
        writer=ConstantFeedback(text="hint"),
    )


def arms(config):
    fd = PhaseConfig(
        name="fd",
        terms=(FD(),),
        steps=2,
        optimizer=OptimizerConfig(learning_rate=0.1),
        teacher=EMATeacher(rate=0.5),
    )
    return (Arm(name="fd", phases=(fd,)),)


def run(policy, runs, *flags):
    settings = RunConfig(
        name="lora",
        runs=runs,
        policy=PolicyConfig(source=str(policy), dtype="float32", lora=LORA),
        attempts=AttemptsConfig(
            problems=4, group_size=2, max_new_tokens=8, feedback_tokens=16
        ),
        evaluation=EvaluationConfig(samples=2, ks=(1, 2)),
        checkpoints=CheckpointsConfig(export_every=2),
    )
    return experiment(settings, task=task, arms=arms, arguments=list(flags))


@pytest.fixture(scope="module")
def finished(policy, tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    assert run(policy, runs) == 0
    return runs / "lora"


def test_the_policy_is_the_base_and_the_adapters_product(finished, policy):
    """By hand from three folders: transformers' W' = W + 6/2 · B A for each layer."""
    before = load_file(policy / "model.safetensors")
    after = load_file(finished / "policies" / "fd" / "model.safetensors")
    thin = load_file(finished / "adapters" / "fd" / "adapter_model.safetensors")
    assert before.keys() == after.keys()
    moved = set()
    for name, weight in before.items():
        module = f"base_model.model.{name.removesuffix('.weight')}"
        a, b = (thin.get(f"{module}.lora_{part}.weight") for part in "AB")
        # A run holds the base in bfloat16, and adds in float32.
        if a is None or b is None:
            expected = weight.astype(jnp.bfloat16).astype(np.float32)
        else:
            moved.add(name.split(".")[-2])
            assert a.shape == (2, weight.shape[1])
            assert b.shape == (weight.shape[0], 2)
            expected = weight.astype(jnp.bfloat16).astype(np.float64) + 3 * b @ a
            assert np.abs(expected - weight).max() > 1e-2
        np.testing.assert_allclose(after[name], expected, rtol=1e-6, atol=1e-6)
    assert moved == {"q_proj", "o_proj", "down_proj"}
    assert len(thin) == 2 * 3 * 2


def test_an_export_holds_the_adapters_alone(finished):
    """Of the last iteration: the run leaves the same ones."""
    exported, left = finished / "exports" / "fd-2", finished / "adapters" / "fd"
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (exported / name).read_bytes() == (left / name).read_bytes()


def test_probes_are_of_base_student_and_teacher(finished):
    rows = read_probes(finished / "probes.jsonl")
    assert [(row["arm"], row["reader"]) for row in rows] == [
        ("base", "student"),
        ("base", "teacher"),
        ("fd", "student"),
        ("fd", "teacher"),
    ]
    # A learning rate of 0.1 is felt: the student is no longer the base.
    assert abs(rows[0]["marginal_entropy"] - rows[2]["marginal_entropy"]) > 1e-3


def test_a_resume_makes_only_what_a_crash_left_out(finished, policy):
    """After the adapters were begun: training and probes were done by then."""
    probes = finished / "probes.jsonl"
    merged = finished / "policies" / "fd" / "model.safetensors"
    thin = finished / "adapters" / "fd" / "adapter_model.safetensors"
    before = [path.read_bytes() for path in (probes, merged, thin)]
    shutil.rmtree(merged.parent)
    thin.write_bytes(before[2][:100])
    assert run(policy, finished.parent, "--resume") == 0
    assert [path.read_bytes() for path in (probes, merged, thin)] == before


def test_adapters_are_no_policy(finished, policy):
    source = open_source(finished / "checkpoints" / "fd", model=policy)
    with pytest.raises(CheckpointError, match="got LoRA's adapters"):
        source.reader("student")


def test_the_dry_run_counts_the_base_in_its_own_type(policy, tmp_path, capsys):
    """Each adapter of MODEL by hand: width 16, inner width 32, 2 layers, rank 2."""
    numbers = 2 * (2 * (16 + 16) + 2 * (16 + 16) + 2 * (32 + 16))
    optimizer = make_optimizer(OptimizerConfig())
    whole = held_bytes(MODEL, optimizer, mesh_of(), teacher=EMATeacher())
    held = held_bytes(MODEL, optimizer, mesh_of(), teacher=EMATeacher(), lora=LORA)
    assert held == {
        "base": whole["policy"] // 2,
        "adapters": 4 * numbers,
        # Two moments, and Adam's and the schedule's counts of steps.
        "moments": 2 * 4 * numbers + 2 * 4,
        "teacher": 4 * numbers,
    }
    assert run(policy, tmp_path, "--dry-run") == 0
    assert '"base_dtype": "bfloat16"' in capsys.readouterr().out
