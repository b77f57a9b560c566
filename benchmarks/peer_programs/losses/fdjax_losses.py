"""This library's losses: in chunks from hidden states, or over full logits.

    python fdjax_losses.py TASK

The variant "temporaries" only compiles: temporary bytes of both ways by tokens. Of the
task it has `shape`, which is V and D, and `workloads`.
"""

import json
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from common import ALPHA, CLIP_HIGH, CLIP_LOW, Contender, Task, read_task, report
from jax_step import Loss, compiled, program

from fdjax.losses import (
    feedback_distillation_loss,
    feedback_distillation_loss_from_hidden,
    grpo_loss,
    token_loss_from_hidden,
)
from fdjax.ops import (
    forward_kl,
    generalized_jsd,
    head_logits,
    reverse_kl,
    token_logprobs,
)

DIVERGENCES = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jsd": partial(generalized_jsd, alpha=ALPHA),
}
CLIPPED = partial(grpo_loss, clip_low=CLIP_LOW, clip_high=CLIP_HIGH)
ROWS = 4
TOKENS = (1024, 4096, 16384)


def chunked(workload: str, a: dict[str, Any]) -> tuple[Any, Any]:
    """From hidden states and heads."""
    scored = _scored(a)
    if workload == "grpo":
        return token_loss_from_hidden(
            CLIPPED,
            a["hidden"],
            a["head"],
            a["tokens"],
            advantages=a["advantages"],
            old_logprobs=a["old_logprobs"],
            **scored,
        )
    return feedback_distillation_loss_from_hidden(
        a["hidden"],
        a["head"],
        teacher_hidden=a["teacher_hidden"],
        teacher_head=a["teacher_head"],
        divergence=DIVERGENCES[workload],
        **scored,
    )


def full_logits(workload: str, a: dict[str, Any]) -> tuple[Any, Any]:
    """From all logits at once."""
    scored = _scored(a)
    logits = head_logits(a["hidden"], a["head"])
    if workload == "grpo":
        return CLIPPED(
            token_logprobs(logits, a["tokens"]),
            advantages=a["advantages"],
            old_logprobs=a["old_logprobs"],
            **scored,
        )
    return feedback_distillation_loss(
        logits,
        teacher_logits=head_logits(a["teacher_hidden"], a["teacher_head"]),
        divergence=DIVERGENCES[workload],
        **scored,
    )


def _scored(a: dict[str, Any]) -> dict[str, Any]:
    count = float(a["tokens"].size)
    return {
        "mask": jnp.ones(a["tokens"].shape, bool),
        "normalizer": jnp.asarray(count, jnp.float32),
    }


def chunked_alone(workload: str, a: dict[str, Any]) -> tuple[Any, Any]:
    """Without the metrics, which no peer computes, so that the compiler drops them."""
    return chunked(workload, a)[0], ()


WAYS = {
    "chunked": chunked,
    "chunked, no metrics": chunked_alone,
    "full logits": full_logits,
}
FUNCTIONS = {
    ("chunked", False): "feedback_distillation_loss_from_hidden",
    ("chunked", True): "token_loss_from_hidden(grpo_loss)",
    ("chunked, no metrics", False): "feedback_distillation_loss_from_hidden",
    ("chunked, no metrics", True): "token_loss_from_hidden(grpo_loss)",
    ("full logits", False): "feedback_distillation_loss",
    ("full logits", True): "grpo_loss",
}


def temporaries(
    vocabulary: int, width: int, workloads: list[str]
) -> list[dict[str, Any]]:
    """Temporary bytes of both ways and each workload, by tokens; nothing is run."""
    found = []
    for way in ("chunked", "full logits"):
        loss = WAYS[way]
        for workload in workloads:
            for tokens in TOKENS:
                shape = (ROWS, tokens // ROWS)
                floats = partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
                rest = {
                    "teacher_hidden": floats((*shape, width)),
                    "teacher_head": floats((vocabulary, width)),
                    "tokens": jax.ShapeDtypeStruct(shape, jnp.int32),
                    "advantages": floats(shape[:1]),
                    "old_logprobs": floats(shape),
                }
                step = program(partial(loss, workload)).lower(
                    floats((*shape, width)), floats((vocabulary, width)), rest
                )
                size = step.compile().memory_analysis().temp_size_in_bytes
                row = {"variant": way, "workload": workload, "tokens": tokens}
                found.append({**row, "temp_bytes": size})
    return found


def contender(task: Task, loss: Loss, inputs: Any) -> Contender:
    """Ours."""
    function = FUNCTIONS[task.variant, task.workload == "grpo"]
    return Contender(compiled(loss, inputs), function)


def main() -> None:
    """Measure, or compile."""
    import sys

    arguments = json.loads(sys.argv[1])
    if arguments["variant"] == "temporaries":
        rows = temporaries(*arguments["shape"], arguments["workloads"])
        print(json.dumps({"rows": rows}))
        return
    task, inputs = read_task()
    loss = partial(WAYS[task.variant], task.workload)
    report(task, contender(task, loss, inputs), ("fdjax", "jax"))


if __name__ == "__main__":
    main()
