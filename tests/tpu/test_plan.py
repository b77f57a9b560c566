"""`fdjax plan` with the TPU's compiler: end to end for a tiny policy, and what does
not fit; and what the compiled step holds and exchanges.

Nothing runs. Decoders have the widths that matter and few layers.
"""

import json
import re
from dataclasses import replace

import jax
import pytest

from experiments import prover
from fdjax.model import config_to_hf
from fdjax.plan import Subject
from fdjax.plan.command import plan_experiment
from fdjax.plan.programs import step
from fdjax.plan.sizes import SIZES
from fdjax.plan.topology import prepare
from fdjax.run import AttemptsConfig, MeshConfig, PolicyConfig

prepare()

LAYERS = 3
WIDE = replace(SIZES["qwen3-8b"], num_layers=LAYERS)
"""Of an 8B model, but three layers."""
ATTEMPTS = AttemptsConfig(
    problems=4,
    group_size=2,
    max_new_tokens=2_048,
    prompt_tokens=128,
    feedback_tokens=128,
)


@pytest.fixture(autouse=True)
def optax_promotes():
    """optax raises a Python float to an integer step; our own code stays strict."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def wide(tmp_path):
    """A folder with nothing but config.json."""
    folder = tmp_path / "wide"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config_to_hf(WIDE)))
    return folder


def _plan(tmp_path, *arguments):
    """Exit code and figures of the command."""
    out = tmp_path / "plan.json"
    code = plan_experiment(
        [
            *("experiments.prover", "--topology", "v5e:2x2", "--json", str(out)),
            *("--page", str(tmp_path / "plan.html"), *arguments),
        ]
    )
    return code, json.loads(out.read_text())


def test_a_tiny_policy_end_to_end(tmp_path, capsys):
    code, found = _plan(
        tmp_path,
        *("--policy", "tiny", "--attempts.problems", "4"),
        *("--attempts.max-new-tokens", "256", "--attempts.prompt-tokens", "128"),
    )
    assert code == 0
    assert found["fits"]
    programs = {one["name"]: one for one in found["programs"]}
    assert list(programs) == [
        *("fd step", "fd_then_grpo step", "hand-over", "prefill", "decode"),
        *("read again", "evaluation"),
    ]
    assert all(0 < one["peak_bytes"] < 15.75 * 2**30 for one in programs.values())
    # Parameters, moments and teacher are given to the step, and pages to decoding.
    moments = {(one["phase"], one["program"]): one["bytes"] for one in found["moments"]}
    held = moments["fd", "fd step"]
    state = held["policy"] + held["moments"] + held["teacher"]
    assert programs["fd step"]["argument_bytes"] > state
    assert programs["fd step"]["received_bytes"]
    pages = moments["fd", "decode"]["sampler's pages"]
    assert pages < programs["decode"]["argument_bytes"]
    # They are updated where they lie.
    assert programs["decode"]["temporary_bytes"] < pages
    assert "fits: tightest while" in capsys.readouterr().out
    assert "<h1>tiny on v5e:2x2</h1>" in (tmp_path / "plan.html").read_text()


def test_a_step_that_does_not_fit_is_advised_upon(tmp_path, capsys, wide):
    """64 attempts of 3,072 tokens on each of four chips, at once."""
    code, found = _plan(tmp_path, "--policy", str(wide), "--grpo-steps", "0")
    assert code == 1
    assert not found["fits"]
    step = found["programs"][0]
    assert "memory" in step["refusal"]
    assert step["peak_bytes"] > 15.75 * 2**30
    first = found["advice"][0]
    assert first["change"].startswith("microbatches of")
    assert not first["alters"]
    out = capsys.readouterr().out
    assert "does not fit" in out
    assert "What would give room" in out
    assert "Traceback" not in out


def _compiled(wide, mesh):
    config = replace(
        prover.CONFIG,
        policy=PolicyConfig(source=str(wide)),
        mesh=mesh,
        attempts=ATTEMPTS,
    )
    run = Subject(config=config, arms=prover.arms(config), topology="v5e:2x4")
    compiled = step(run, run.phases[0]).compile()
    return run, compiled.as_text()


def test_over_tensor_no_vocabulary_is_gathered(wide):
    _, text = _compiled(wide, MeshConfig(fsdp=4, tensor=2))
    assert f"[{WIDE.vocab_size // 2}," in text
    assert not re.search(rf"[\[,]{WIDE.vocab_size}[,\]]", text)
