"""TRL's losses: its chunked kernels, and SDPO's over full or top-k logits.

    python trl_losses.py TASK

TRL's β weighs the teacher in the mixture: 0 is the forward KL divergence, 1 the
reverse one.
"""

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import torch
from common import (
    ALPHA,
    CLIP_HIGH,
    CLIP_LOW,
    Contender,
    Inputs,
    Task,
    read_task,
    report,
)
from torch_step import step, tensors
from trl.experimental.sdpo.loss_utils import (
    compute_full_logit_self_distillation_loss,
    compute_topk_self_distillation_loss,
)
from trl.kernels import ChunkedLogProbFunction
from trl.trainer.distillation_trainer import _chunked_divergence_loss
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE

BETAS = {"forward_kl": 0.0, "reverse_kl": 1.0, "jsd": ALPHA}
TOP_K = 100


def trainer(hidden: torch.Tensor, head: torch.Tensor, a: Any) -> SimpleNamespace:
    """What `GRPOTrainer._compute_loss` asks of the trainer, of these log-probabilities.

    They come as from a model that the trainer has patched: one call of the chunked
    kernel, which gives the entropies too.
    """

    def logprobs(*_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor, None]:
        values, entropies, *_ = ChunkedLogProbFunction.apply(
            hidden.flatten(0, 1),
            head,
            None,
            a.tokens.flatten(),
            1.0,
            _CHUNKED_LOGPROB_CHUNK_SIZE,
            None,
            1.0,
            ("entropy",),
        )
        shape = a.tokens.shape
        return values.view(shape), entropies.view(shape), None

    return SimpleNamespace(
        _get_per_token_logps_and_entropies=logprobs,
        _entropy_bonus_enabled=False,
        _metrics={"eval": defaultdict(list)},
        accelerator=SimpleNamespace(
            gather=lambda value: value, reduce=lambda value, reduction: value
        ),
        args=SimpleNamespace(delta=None),
        aux_loss_enabled=False,
        beta=0.0,
        epsilon_high=CLIP_HIGH,
        epsilon_low=CLIP_LOW,
        importance_sampling_level="token",
        loss_type="bnpo",  # the mean over the batch's tokens
        model=SimpleNamespace(training=False),
        off_policy_mask_threshold=None,
        top_entropy_quantile=1.0,
        use_vllm=False,
    )


def grpo(inputs: Inputs) -> Contender:
    """The trainer's own loss."""
    a = tensors(inputs)
    a.tokens = a.tokens.long()
    mask = torch.ones(a.tokens.shape)
    batch = {
        "prompt_ids": a.tokens[:, :1],
        "prompt_mask": mask[:, :1],
        "completion_ids": a.tokens,
        "completion_mask": mask,
        "advantages": a.advantages,
        "old_per_token_logps": a.old_logprobs,
    }

    def loss() -> torch.Tensor:
        own = trainer(a.hidden, a.head, a)
        return GRPOTrainer._compute_loss(own, None, batch)

    return Contender(step(loss, a), "GRPOTrainer._compute_loss, ChunkedLogProbFunction")


def distillation(task: Task, inputs: Inputs) -> Contender:
    """`DistillationTrainer`'s loss, or SDPO's."""
    a = tensors(inputs)
    beta = BETAS[task.workload]
    mask = torch.ones(a.tokens.shape)

    def chunked() -> torch.Tensor:
        return _chunked_divergence_loss(
            a.hidden, a.teacher_hidden, a.head, a.teacher_head, mask, beta
        )[0]

    def logits() -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            teacher = a.teacher_hidden @ a.teacher_head.T
        return a.hidden @ a.head.T, teacher

    def full() -> torch.Tensor:
        return compute_full_logit_self_distillation_loss(
            *logits(), distillation_alpha=beta
        ).mean()

    def top() -> torch.Tensor:
        return compute_topk_self_distillation_loss(
            *logits(),
            distillation_topk=TOP_K,
            distillation_alpha=beta,
            distillation_add_tail=True,
        ).mean()

    if task.variant == "chunked":
        return Contender(step(chunked, a), "_chunked_divergence_loss")
    if task.variant == "SDPO full logits":
        return Contender(step(full, a), "compute_full_logit_self_distillation_loss")
    return Contender(
        step(top, a),
        "compute_topk_self_distillation_loss",
        differs="top 100 and a tail",
    )


def main() -> None:
    """Measure."""
    task, inputs = read_task()
    made = grpo(inputs) if task.workload == "grpo" else distillation(task, inputs)
    report(task, made, ("trl", "torch"))


if __name__ == "__main__":
    main()
