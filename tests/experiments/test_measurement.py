"""A result on disk counts only for the run, the weights and the settings it names."""

import json
from contextlib import nullcontext
from types import SimpleNamespace

import jax.numpy as jnp
import pytest

from experiments.miniature import measurement
from experiments.miniature.config import EvaluationConfig
from experiments.miniature.measurement import measure_arm
from fdjax.errors import BackendError, CheckpointError
from fdjax.eval import ArmResult

PARAMS = {"w": jnp.arange(3.0)}


def result(successes, crashed=0):
    return ArmResult(
        arm="fd",
        theorems=("a",),
        samples=4,
        successes=(successes,),
        missing=(crashed,),
        distinct_proofs=(1,),
        policy_entropy=(0.5,),
        distinct_sequences=(1,),
        tactic_entropy=0.0,
        statuses={"rejected": 4 - successes - crashed, "crashed": crashed},
    )


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Measures an arm; each time that attempts are made one more succeeds."""
    times, lost, said = [], [0], []

    def evaluate(*_, **__):
        times.append(1)
        return result(0 if lost[0] == 4 else len(times), lost[0])

    monkeypatch.setattr(measurement, "evaluate_arm", evaluate)

    def measure(*, run="1f", params=PARAMS, samples=4, crashed=0):
        lost[0] = crashed
        context = SimpleNamespace(
            config=SimpleNamespace(
                evaluation=EvaluationConfig(samples=samples, ks=(1, 4))
            ),
            folder=tmp_path,
            run=run,
            display=SimpleNamespace(say=said.append),
            key=lambda _: None,
            timed=lambda _: nullcontext(),
            task=lambda *_: nullcontext(lambda *_: None),
        )
        made = SimpleNamespace(
            context=context,
            splits={"test": ["a"]},
            prompt_width=8,
            pipeline=lambda _: None,
        )
        return measure_arm(made, "fd", params).successes  # type: ignore[arg-type]

    return measure


def test_a_result_is_read_again(measured):
    assert measured() == (1,)
    assert measured() == (1,)


@pytest.mark.parametrize(
    "changes", [{"params": {"w": jnp.arange(3.0) + 1}}, {"samples": 8}]
)
def test_other_weights_or_settings_are_measured_anew(measured, changes):
    assert measured() == (1,)
    assert measured(**changes) == (2,)
    assert measured(**changes) == (2,)


def test_a_result_without_a_verdict_is_not_kept(measured, tmp_path):
    with pytest.raises(BackendError, match="attempts of fd, got none on 4: the ver"):
        measured(crashed=4)
    assert not (tmp_path / "eval" / "fd.json").exists()
    assert measured() == (2,)
    assert measured() == (2,)


def test_what_an_outage_left_is_measured_again(measured):
    assert measured(crashed=2) == (1,)
    assert measured() == (2,)
    assert measured() == (2,)


def test_a_damaged_result_is_measured_anew(measured, tmp_path):
    measured()
    (tmp_path / "eval" / "fd.json").write_text("{")
    assert measured() == (2,)


def test_the_result_of_another_run_is_refused(measured, tmp_path):
    measured()
    with pytest.raises(CheckpointError, match=r"fd\.json to be of this run, got one"):
        measured(run="2e")
    path = tmp_path / "eval" / "fd.json"
    content = json.loads(path.read_text())
    del content["about"]["run"]
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="run None, not '1f'"):
        measured()
