"""The step that all PyTorch libraries are measured by."""

from collections.abc import Callable
from types import SimpleNamespace

import torch
from common import Call, Inputs


def tensors(inputs: Inputs) -> SimpleNamespace:
    """The arrays as tensors; the student's carry the gradient."""
    made = {name: torch.from_numpy(array) for name, array in vars(inputs).items()}
    for name in ("hidden", "head"):
        made[name].requires_grad_()
    return SimpleNamespace(**made)


def step(loss: Callable[[], torch.Tensor], a: SimpleNamespace) -> Call:
    """Loss and both gradients."""

    def call() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        value = loss()
        by_hidden, by_head = torch.autograd.grad(value, (a.hidden, a.head))
        return value.detach(), by_hidden, by_head

    return call
