"""EasyDeL's losses: in chunks of tokens, or over full logits as by default.

python easydel_losses.py TASK
"""

from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
from common import ALPHA, CLIP_HIGH, CLIP_LOW, Contender, read_task, report
from easydel.trainers.distillation_trainer._fn import chunked_distillation_loss
from easydel.trainers.generalized_knowledge_distillation_trainer._fn import (
    generalized_jsd_loss,
)
from easydel.trainers.group_relative_policy_optimization._fn import grpo_step
from jax.sharding import PartitionSpec
from jax_step import compiled

CHUNK = 128
"""Tokens of each row in a chunk: the default of `chunked_distillation_loss`."""
BETAS = {"forward_kl": 1.0, "reverse_kl": 0.0, "jsd": 1 - ALPHA}
"""Its β weighs the student in the mixture."""


def project(head: Any, hidden: Any) -> Any:
    """Logits."""
    return hidden @ head.T


class Model:
    """What `grpo_step` asks of a model, of given hidden states and head."""

    def __init__(self, hidden: Any, head: Any, chunk: int | None) -> None:
        self.config = SimpleNamespace(lmhead_chunksize=chunk)
        # Log-probabilities are of the token that comes next; so none of the last state.
        self.hidden = jnp.pad(hidden, ((0, 0), (0, 1), (0, 0)))
        self.head = head

    def compute_lm_logits(self, hidden: Any) -> Any:
        """Logits."""
        return project(self.head, hidden)

    def __call__(
        self, input_ids: Any, attention_mask: Any = None, apply_lm_head: bool = True
    ) -> SimpleNamespace:
        """The hidden states, or their logits."""
        logits = self.compute_lm_logits(self.hidden) if apply_lm_head else None
        return SimpleNamespace(logits=logits, last_hidden_state=self.hidden)


def grpo(chunk: int | None, a: dict[str, Any]) -> tuple[Any, Any]:
    """The loss that an evaluation step reports, which is the one it trains on."""
    model = Model(a["hidden"], a["head"], chunk)
    state = SimpleNamespace(merge=lambda tree: tree, graphstate=model)
    mask = jnp.ones(a["tokens"].shape)
    batch = {
        "prompt_ids": a["tokens"][:, :1],
        "prompt_mask": mask[:, :1],
        "completion_ids": a["tokens"],
        "completion_mask": mask,
        "advantages": a["advantages"],
        "old_per_token_logps": a["old_logprobs"],
    }
    metrics = grpo_step(
        state,
        batch,
        num_generations=1,
        beta=0.0,
        partition_spec=PartitionSpec(),
        is_training=False,
        loss_type="bnpo",  # the mean over the batch's tokens
        epsilon=CLIP_LOW,
        epsilon_high=CLIP_HIGH,
    )
    return metrics.loss, metrics.other_metrics


def chunked(a: dict[str, Any]) -> tuple[Any, Any]:
    """Forward KL divergence only: α = 1 leaves the labels out."""
    return chunked_distillation_loss(
        a["hidden"],
        jax.lax.stop_gradient(a["teacher_hidden"]),
        partial(project, a["head"]),
        partial(project, a["teacher_head"]),
        loss_mask=jnp.ones(a["tokens"].shape),
        temperature=1.0,
        alpha=1.0,
        chunk_size=CHUNK,
    )


def full_logits(beta: float, a: dict[str, Any]) -> tuple[Any, Any]:
    """Any divergence."""
    teacher = jax.lax.stop_gradient(project(a["teacher_head"], a["teacher_hidden"]))
    student = project(a["head"], a["hidden"])
    return generalized_jsd_loss(student, teacher, beta=beta), ()


def main() -> None:
    """Measure."""
    task, inputs = read_task()
    differs = ""
    in_chunks = task.variant == "chunked"
    if task.workload == "grpo":
        loss = partial(grpo, CHUNK if in_chunks else None)
        function = f"grpo_step, lmhead_chunksize={CHUNK if in_chunks else None}"
        # It takes the larger of the two products there, everyone else the smaller.
        differs = "clips the other side where the advantage is negative"
    elif in_chunks:
        loss, function = chunked, f"chunked_distillation_loss, chunk_size={CHUNK}"
    else:
        loss = partial(full_logits, BETAS[task.workload])
        function = "generalized_jsd_loss"
    made = Contender(compiled(loss, inputs), function, differs=differs)
    report(task, made, ("easydel", "jax"))


if __name__ == "__main__":
    main()
