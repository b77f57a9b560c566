"""Tunix's losses, over full logits.

python tunix_losses.py TASK
"""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
from common import CLIP_HIGH, CLIP_LOW, Contender, read_task, report
from flax import nnx
from jax_step import compiled
from tunix.distillation.strategies.logit import LogitStrategy
from tunix.rl.algo_core import grpo_loss_fn
from tunix.rl.common import TrainExample

NO_TOKEN = -1
CONFIG = SimpleNamespace(
    beta=0.0,
    epsilon=CLIP_LOW,
    epsilon_high=CLIP_HIGH,
    loss_algo="grpo",
    loss_agg_mode="token-mean",
    temperature=1.0,
)


class Model(nnx.Module):
    """What `grpo_loss_fn` asks of a model, of given hidden states and head."""

    def __init__(self, hidden: Any, head: Any) -> None:
        self.hidden = nnx.Param(hidden)
        self.head = nnx.Param(head)

    def __call__(
        self, tokens: Any, positions: Any, cache: Any, attention_mask: Any
    ) -> tuple[Any, None]:
        """Logits; of the last state nothing is asked, as no token comes after it."""
        padding = ((0, 0), (0, 1), (0, 0))
        return jnp.pad(self.hidden[...], padding) @ self.head[...].T, None


def grpo(a: dict[str, Any]) -> tuple[Any, Any]:
    """Without a reference model."""
    example = TrainExample(
        prompt_ids=a["tokens"][:, :1],
        prompt_mask=jnp.ones((len(a["tokens"]), 1)),
        completion_ids=a["tokens"],
        completion_mask=jnp.ones(a["tokens"].shape),
        advantages=a["advantages"],
        ref_per_token_logps=None,
        old_per_token_logps=a["old_logprobs"],
    )
    model = Model(a["hidden"], a["head"])
    return grpo_loss_fn(model, example, CONFIG, pad_id=NO_TOKEN, eos_id=NO_TOKEN)


def distillation(a: dict[str, Any]) -> tuple[Any, Any]:
    """Forward KL divergence only: α = 1 gives the labels, as it takes them, no weight.

    It is the mean over tokens, as ours.
    """
    strategy = LogitStrategy(
        student_forward_fn=lambda: None,
        teacher_forward_fn=lambda: None,
        labels_fn=lambda: None,
        temperature=1.0,
        alpha=1.0,
    )
    student = a["hidden"] @ a["head"].T
    teacher = jax.lax.stop_gradient(a["teacher_hidden"] @ a["teacher_head"].T)
    labels = jax.nn.one_hot(a["tokens"], len(a["head"]))
    return strategy.compute_loss(student, teacher, labels)


def main() -> None:
    """Measure."""
    task, inputs = read_task()
    is_grpo = task.workload == "grpo"
    made = Contender(
        compiled(grpo if is_grpo else distillation, inputs),
        "grpo_loss_fn" if is_grpo else "LogitStrategy.compute_loss",
    )
    report(task, made, ("google-tunix", "jax"))


if __name__ == "__main__":
    main()
