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
from fdjax.plan import search as searching
from fdjax.plan.bounds import step_stage
from fdjax.plan.collectives import collectives, received_bytes
from fdjax.plan.command import plan_experiment
from fdjax.plan.hlo import Program
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


def test_a_search_ends_with_a_plan_that_fits(tmp_path, capsys, monkeypatch):
    """One attempt on each of four chips, heads that cannot be shared, one remat.

    So one step is compiled; which of several is chosen is in `tests/plan`.
    """
    monkeypatch.setattr(searching, "_REMATS", ("full",))
    small = replace(SIZES["tiny"], num_layers=1, num_heads=1, num_kv_heads=1)
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config_to_hf(small)))
    code, found = _plan(
        tmp_path,
        *("--policy", str(folder), "--search", "--grpo-steps", "0"),
        *("--attempts.problems", "2", "--attempts.group-size", "2"),
        *("--attempts.max-new-tokens", "128", "--attempts.prompt-tokens", "128"),
    )
    assert code == 0
    assert found["fits"]
    assert found["mesh"] == {"data": 1, "fsdp": 4, "tensor": 1}
    assert [one["name"] for one in found["programs"]] == [
        *("fd step", "hand-over", "prefill", "decode", "read again", "evaluation"),
    ]
    [row] = found["search"]
    assert row["settings"] == ("fsdp 4 × tensor 1, remat full, 1 microbatches, 4 slots")
    assert row["chosen"]
    assert row["fits"]
    assert row["excess_bytes"] < 0
    [bound] = found["bounds"]
    assert row["iteration_s"] == pytest.approx(bound["iteration_s"])
    assert "chosen" in capsys.readouterr().out


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


def test_over_tensor_no_vocabulary_is_gathered_and_bounds_hold(wide):
    run, text = _compiled(wide, MeshConfig(fsdp=4, tensor=2))
    least = step_stage(run, run.phases[0]).received
    assert 0 < least <= received_bytes(collectives(Program.parse(text), 8))
    assert f"[{WIDE.vocab_size // 2}," in text
    assert not re.search(rf"[\[,]{WIDE.vocab_size}[,\]]", text)
