"""Wrong settings of the library are refused where they are given, by name."""

import json
import math
from types import SimpleNamespace

import jaxtyping
import numpy as np
import pytest

from fdjax.checkpoint import Retention
from fdjax.data.formats import PLAIN
from fdjax.errors import ConfigError, DataError
from fdjax.eval import evaluate_arm, evaluate_teacher
from fdjax.feedback import CompilerFeedback, ReferenceHint
from fdjax.train import (
    CISPO,
    FD,
    GRPO,
    GSPO,
    SFT,
    AlternatingSource,
    BaseTeacher,
    CheckpointsConfig,
    Clipped,
    DualClip,
    EMATeacher,
    OptimizerConfig,
    Phase,
    ReferenceKL,
    RolloutSource,
    SupervisedSource,
    SyncedTeacher,
    make_objective,
    needs_of,
)
from tiny import MODEL, PROBLEMS, TOKENIZER

SIZES = {"problems_per_step": 4, "group_size": 2, "updates_per_rollout": 4, "seed": 0}
ENGINE = SimpleNamespace(prompt_width=8, tokenizer=TOKENIZER, format=PLAIN)


@pytest.fixture(autouse=True)
def without_type_checks():
    """As in production, where nothing else looks at an argument."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def policy(**changed):
    needs = needs_of((GRPO(),))
    return RolloutSource(PROBLEMS, ENGINE, needs=needs, **(SIZES | changed))


def distillation(teacher_width=16, contrast=None, **changed):
    return RolloutSource(
        PROBLEMS,
        ENGINE,
        needs=needs_of((FD(contrast=contrast),)),
        teacher_width=teacher_width,
        **(SIZES | changed),
    )


def contrasted(**changed):
    return distillation(contrast=1.0, **changed)


def supervised(**changed):
    sizes = {"batch_size": 4, "seed": 0, "prompt_width": 8, "response_width": 8}
    rows = [(problem, None, problem.references[0]) for problem in PROBLEMS]
    return SupervisedSource(rows, TOKENIZER, **(sizes | changed))


def alternating(share):
    return AlternatingSource(supervised(), supervised(), share=share)


def phase(**changed):
    whole = {"name": "fd", "steps": 1}
    return Phase(**(whole | changed), source=policy(), train_step=lambda *_: None)


def reference(**changed):
    return ReferenceKL(**({"beta": 0.1} | changed))


def objective(**changed):
    return make_objective(MODEL, (FD(),), **changed)


def test_the_smallest_are_allowed():
    policy(problems_per_step=1, updates_per_rollout=1)
    distillation(problems_per_step=1, group_size=1, updates_per_rollout=1)
    alternating(0), alternating(1.0)
    Retention(newest=None, every=1, steps=(1,), best=0)
    CheckpointsConfig(every=1, minutes=0.1, export_every=1)


def test_numbers_of_numpy_are_numbers_of_a_checkpoint():
    sizes = {"batch_size": np.int64(4), "seed": np.uint32(1)}
    plain = supervised(batch_size=4, seed=1)
    assert json.loads(json.dumps(supervised(**sizes).get_state())) == plain.get_state()
    source = alternating(np.float32(0.5))
    source.set_state(json.loads(json.dumps(source.get_state())))


def test_nothing_is_skipped_backwards():
    with pytest.raises(ConfigError, match="expected iterations to be"):
        policy().skip(-1)


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [
        *((policy, "problems_per_step", value) for value in (0, -1, 9, 2.0)),
        *((policy, "group_size", value) for value in (0, -1, 1, math.nan)),
        *((policy, "updates_per_rollout", value) for value in (0, -1, 3, 16)),
        *((policy, "seed", value) for value in (-1, 2**32, 0.5)),
        *((distillation, "group_size", value) for value in (0, -1)),
        *((distillation, "updates_per_rollout", value) for value in (0, 5)),
        *((distillation, "teacher_width", value) for value in (0, -1, None)),
        (contrasted, "problems_per_step", 1),
        (FD, "score", "to_divergance"),
        (FD, "reads", "hints"),
        (FD, "route", "verified"),
        (FD, "question_weights", "root"),
        *((FD, "kl_clip", value) for value in (0, -1, math.inf)),
        *((FD, "contrast", value) for value in (0, 1.5, math.nan)),
        *((FD, "importance_cap", value) for value in (0, -1)),
        *(
            (term, "weight", value)
            for term in (FD, GRPO, GSPO, SFT)
            for value in (0, -1.0, math.nan)
        ),
        (GRPO, "advantage", "z"),
        (GRPO, "aggregation", "mean"),
        (GSPO, "route", "none"),
        (DualClip, "dual", 1.28),
        (CISPO, "cap", 0.2),
        (SyncedTeacher, "every", 0),
        (BaseTeacher, "dtype", "float16"),
        *((EMATeacher, "rate", value) for value in (0, 1, -0.1, math.nan)),
        (EMATeacher, "dtype", "bfloat16"),
        (reference, "beta", 0),
        (reference, "estimator", "k4"),
        *((supervised, "batch_size", value) for value in (0, -1, 9)),
        *((supervised, "prompt_width", value) for value in (0, -1)),
        *((supervised, "response_width", value) for value in (0, -1)),
        *((alternating, "share", value) for value in (2, -0.1, math.nan, math.inf)),
        *((phase, "steps", value) for value in (0, -3, 1.5, True)),
        *((phase, "log_every", value) for value in (0, -1)),
        *((CheckpointsConfig, "every", value) for value in (0, -1)),
        *((CheckpointsConfig, "minutes", value) for value in (0, -1, math.nan)),
        *((CheckpointsConfig, "export_every", value) for value in (0, 1.5)),
        *((Retention, "newest", value) for value in (0, -1)),
        *((Retention, "every", value) for value in (0, 2.0)),
        *((Retention, "steps", value) for value in ((0,), [4], 4, (True,))),
        *((Retention, "best", value) for value in (-1, True)),
        (Retention, "best_is", "largest"),
        *((phase, "max_idle", value) for value in (0, -1, math.nan)),
        *((Clipped, "low", value) for value in (3, -0.1, math.nan)),
        *((Clipped, "high", value) for value in (-0.1, math.nan)),
        *((objective, "temperature", value) for value in (0, -1, 0.0, math.nan)),
        *((OptimizerConfig, "weight_decay", value) for value in (-1, math.nan)),
        (OptimizerConfig, "warmup_steps", 1.5),
        (OptimizerConfig, "decay_steps", 0),
        # JAX overflows, or takes it for 0, when the step is traced.
        *((OptimizerConfig, name, 2**31) for name in ("decay_steps", "warmup_steps")),
        *((OptimizerConfig, "learning_rate", value) for value in (1e-60, 1e39)),
        (OptimizerConfig, "max_gradient_norm", 10**30),
        (CompilerFeedback, "max_errors", 0),
        (CompilerFeedback, "max_message_characters", 0),
        (ReferenceHint, "plan", -1),
    ],
)
def test_the_setting_is_named(make, name, value):
    with pytest.raises(ConfigError, match=rf"expected .*\b{name}\b"):
        make(**{name: value})


def test_evaluation_needs_samples_and_theorems():
    arguments = ({}, PROBLEMS, ENGINE)
    for samples in (0, -1):
        with pytest.raises(ConfigError, match="expected samples to be"):
            evaluate_arm("fd", *arguments, None, samples=samples)
        with pytest.raises(ConfigError, match="expected samples to be"):
            evaluate_teacher(*arguments, ENGINE, None, samples=samples)
    with pytest.raises(ConfigError, match="expected problems_per_batch to be"):
        evaluate_arm("fd", *arguments, None, samples=1, problems_per_batch=0)
    with pytest.raises(DataError, match="expected theorems"):
        evaluate_arm("fd", {}, [], ENGINE, None, samples=1)
