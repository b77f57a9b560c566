"""A small policy that has learnt some proofs, and a prover's flags with it."""

from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np

from fdjax.checkpoint import save_pretrained, write_description
from fdjax.data.problems import write_problems
from fdjax.metrics import StageTimer, read_metrics
from fdjax.model import Model
from fdjax.sharding import shard_batch
from fdjax.train import (
    SFT,
    OptimizerConfig,
    SupervisedSource,
    init_state,
    make_objective,
    make_optimizer,
    make_train_step,
)
from tiny import MODEL, PROBLEMS, TOKENIZER, mesh_of

TEMPLATE = """{% block system %}{% endblock %}
{% block user %}{{ theorem }} := by{% endblock %}
"""
SHORT = """--format plain --attempts.group-size 4 --attempts.max-new-tokens 16
    --attempts.feedback-tokens 32 --fd-optimizer.learning-rate 1e-3
    --grpo-optimizer.learning-rate 1e-3"""


@dataclass(frozen=True)
class Case:
    """A policy, its problems, and the flags of every run with it."""

    folder: Path
    flags: tuple[str, ...]
    reviews: tuple[str, ...]

    def arguments(self, name, recording, *more, mesh=()):
        """Those of a run; of its feedback the last ones."""
        return [
            *("--runs", str(self.folder), "--name", name, *self.flags, *mesh),
            *("feedback:policy-feedback", *self.reviews),
            *("--feedback.recording", str(self.folder / recording), *more),
        ]

    def rows(self, name, file="metrics"):
        return read_metrics(self.folder / name / f"{file}.jsonl")


def flags(folder, policy, problems, more):
    write_problems(problems, folder / "problems.jsonl")
    return (
        *("--policy", str(policy), "--policy.dtype", "float32"),
        *("--problems", str(folder / "problems.jsonl"), "--fd-steps", "2"),
        *("--grpo-steps", "1", "--attempts.problems", "4"),
        *("--evaluation.samples", "1", "--evaluation.ks", "1"),
        *("--evaluation.no-teacher", "--lean-workers", "1", *more.split()),
    )


def reviews(folder):
    """What the policy is asked for feedback, and how long it may be."""
    (folder / "again@1.jinja").write_text(TEMPLATE)
    return (
        *("--feedback.template", str(folder / "again@1.jinja")),
        *("--feedback.max-new-tokens", "24", "--feedback.prompt-tokens", "120"),
    )


def small_case(folder):
    """A policy that has learnt four proofs, and not too well; it reviews itself."""
    model = Model(replace(MODEL.config, max_position_embeddings=256))
    mesh, optimizer = mesh_of(), make_optimizer(OptimizerConfig(learning_rate=3e-3))
    state = init_state(model, optimizer, mesh, jax.random.key(0))
    step = make_train_step(model, make_objective(model, (SFT(),)), optimizer, mesh)
    rows = [(problem, None, problem.references[0]) for problem in PROBLEMS]
    source = SupervisedSource(
        rows, TOKENIZER, batch_size=8, seed=0, prompt_width=64, response_width=24
    )
    loss = np.inf
    while loss > 0.25:
        [batch] = source.next(state, StageTimer()).batches
        state, metrics = step(state, shard_batch(batch, mesh))
        loss = metrics["train/loss"].value()
    write_description(folder / "description", model.config, TOKENIZER)
    save_pretrained(
        state.params,
        model.config,
        folder / "policy",
        description=folder / "description",
    )
    given = flags(folder, folder / "policy", PROBLEMS, SHORT)
    return Case(folder, given, reviews(folder))
