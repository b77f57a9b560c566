"""Liger's chunked losses, which are PyTorch; its Triton kernels need a GPU.

    python liger_losses.py TASK

Liger's β weighs the teacher in the mixture: 0 is the forward KL divergence, 1 the
reverse one. Both losses are means over the scored tokens, as ours.
"""

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
from liger_kernel.chunked_loss import LigerFusedLinearGRPOLoss, LigerFusedLinearJSDLoss
from torch_step import step, tensors

BETAS = {"forward_kl": 0.0, "reverse_kl": 1.0, "jsd": ALPHA}


def distillation(task: Task, inputs: Inputs) -> Contender:
    """Without the hard labels' loss."""
    a = tensors(inputs)
    rows, teacher_rows = a.hidden.flatten(0, 1), a.teacher_hidden.flatten(0, 1)
    labels = a.tokens.long().flatten()
    loss = LigerFusedLinearJSDLoss(
        weight_hard_loss=0.0,
        weight_soft_loss=1.0,
        beta=BETAS[task.workload],
        compiled=task.variant == "compiled",
    )
    rows = rows.detach().requires_grad_()
    a.hidden = rows

    def total() -> torch.Tensor:
        return loss(rows, a.head, teacher_rows, a.teacher_head, labels)

    return Contender(
        step(total, a),
        "LigerFusedLinearJSDLoss",
        compiles_in_call=task.variant == "compiled",
    )


def grpo(task: Task, inputs: Inputs) -> Contender:
    """Without a reference model."""
    a = tensors(inputs)
    mask = torch.ones(a.tokens.shape)
    tokens = a.tokens.long()
    loss = LigerFusedLinearGRPOLoss(
        beta=0.0,
        compiled=task.variant == "compiled",
        use_ref_model=False,
        epsilon_low=CLIP_LOW,
        epsilon_high=CLIP_HIGH,
        loss_type="bnpo",
    )

    def total() -> torch.Tensor:
        return loss(
            a.hidden,
            a.head,
            tokens,
            mask,
            a.advantages,
            old_per_token_logps=a.old_logprobs,
        )[0]

    return Contender(
        step(total, a),
        "LigerFusedLinearGRPOLoss",
        compiles_in_call=task.variant == "compiled",
    )


def main() -> None:
    """Measure."""
    task, inputs = read_task()
    make = grpo if task.workload == "grpo" else distillation
    report(task, make(task, inputs), ("liger-kernel", "torch"))


if __name__ == "__main__":
    main()
