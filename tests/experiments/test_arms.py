"""Phases are built with the trainer: what does not fit the data is refused at once."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import pytest

from experiments.miniature.arms import Trainer
from experiments.miniature.config import ComparisonConfig
from experiments.miniature.materials import Materials
from fdjax.errors import ConfigError
from fdjax.feedback import CompilerFeedback
from fdjax.lean import FakeBackend, Verifier
from fdjax.train import StopRequest
from tiny import MODEL, PROBLEMS, TOKENIZER, mesh_of

CONFIG = ComparisonConfig()
ROLLOUT = replace(CONFIG.rollout, problems=4, group_size=2, updates=2)
WARM_START = replace(CONFIG.warm_start, batch_size=8)
ROWS = [(problem, None, problem.references[0]) for problem in PROBLEMS]


def trainer(*, devices=1, informed=ROWS, warm_start=WARM_START, **rollout):
    context = SimpleNamespace(
        config=replace(
            CONFIG, rollout=replace(ROLLOUT, **rollout), warm_start=warm_start
        ),
        mesh=mesh_of(data=devices),
        display=SimpleNamespace(say=lambda text: None),
        key=jax.random.key,
        stop=StopRequest(),
        journal=None,
    )
    return Trainer(
        materials=Materials(
            context=context,
            verifier=Verifier(FakeBackend),
            splits={"pool": PROBLEMS},
            plain=ROWS,
            informed=informed,
            writer=CompilerFeedback(),
            tokenizer=TOKENIZER,
            model=MODEL,
            prompt_width=64,
            teacher_width=96,
            minif2f_width=8,
        )
    )


def test_all_phases_are_there():
    phases = trainer().phases
    budget = ROLLOUT.steps
    assert {name: phase.steps for name, phase in phases.items()} == {
        "sft": WARM_START.steps,
        "grpo": budget,
        "fd": budget,
        "fd_then_grpo": budget - ROLLOUT.handover,
        "sft_references": budget * ROLLOUT.updates,
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        # No reference proof has two tokens.
        (
            {"max_new_tokens": 2},
            r"batch_size of at most 0.*max_new_tokens = 2 ",
        ),
        ({"informed": []}, r"warm_start\.batch_size of at most 0"),
        (
            {"warm_start": replace(WARM_START, batch_size=9)},
            r"warm_start\.batch_size of at most 8",
        ),
        # The control takes as many references as the others take attempts: of eight.
        (
            {"problems": 8, "group_size": 2, "updates": 1},
            r"rollout\.updates of at most 8",
        ),
        ({"problems": 9, "group_size": 2, "updates": 3}, r"problems_per_step of 8"),
        (
            {"devices": 8, "problems": 6, "updates": 1},
            r"rollout\.updates to be divisible by the 8 devices, got 12",
        ),
        (
            {"devices": 8, "warm_start": replace(WARM_START, batch_size=4)},
            r"warm_start\.batch_size to be divisible by the 8 devices, got 4",
        ),
    ],
)
def test_what_does_not_fit_the_data_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        trainer(**settings)
