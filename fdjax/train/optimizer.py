"""The optimizer: AdamW after clipping, with a warm-up and a decay (optax)."""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import optax

from fdjax.ranges import INT32_MAX, Among, Number, Whole, require_fields

__all__ = ["OptimizerConfig", "make_optimizer"]


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW (arXiv:1711.05101) with linear warm-up and cosine decay."""

    learning_rate: float = 1e-3
    """Peak learning rate."""
    warmup_steps: int = 0
    """Optimizer steps to the peak: step n of them, from 1, takes peak · n / warmup."""
    decay_steps: int | None = None
    """Optimizer steps, warm-up included, until the learning rate has decayed; constant
    without."""
    final_fraction: float = 0.1
    """Learning rate at the end of the decay, as a fraction of the peak."""
    weight_decay: float = 0.0
    """Decoupled weight decay of matrices, embeddings among them; the scales of norms
    and the biases have none."""
    beta1: float = 0.9
    """Decay of the first moment."""
    beta2: float = 0.95
    """Decay of the second moment."""
    max_gradient_norm: float = 1.0
    """Global norm above which gradients are scaled down."""
    mu_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the first moment, whose bfloat16 saves a sixth of a state without a teacher.
    The second is float32 in any case: at beta2 = 0.999 a bfloat16 one stands still."""

    def __post_init__(self) -> None:
        require_fields(
            self,
            learning_rate=Number(above=0),
            warmup_steps=Whole(0, INT32_MAX - 1),
            final_fraction=Number(least=0, most=1),
            weight_decay=Number(least=0),
            beta1=Number(least=0, below=1),
            beta2=Number(least=0, below=1),
            max_gradient_norm=Number(above=0),
            mu_dtype=Among("float32", "bfloat16"),
        )
        if self.decay_steps is not None:
            # Warm-up is part of the steps until the rate has decayed.
            require_fields(self, decay_steps=Whole(self.warmup_steps + 1, INT32_MAX))


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """The gradient transformation that `config` describes."""
    return optax.chain(
        optax.clip_by_global_norm(config.max_gradient_norm),
        optax.adamw(
            _schedule(config),
            b1=config.beta1,
            b2=config.beta2,
            weight_decay=config.weight_decay,
            mask=_decayed,
            mu_dtype=config.mu_dtype,
        ),
    )


def _schedule(config: OptimizerConfig) -> optax.Schedule:
    """Learning rate by the number of steps taken before."""
    peak, warmup = config.learning_rate, config.warmup_steps
    if config.decay_steps is None:
        after = optax.constant_schedule(peak)
    else:
        after = optax.cosine_decay_schedule(
            peak, config.decay_steps - warmup, config.final_fraction
        )
    if not warmup:
        return after
    rising = optax.linear_schedule(peak / warmup, peak, warmup - 1)
    return optax.join_schedules([rising, after], [warmup])


def _decayed(params: Any) -> Any:
    """True for what weight decay shrinks; names tell, because layers are stacked."""

    def decays(path: Any, _: Any) -> bool:
        name = jax.tree_util.keystr(path[-1:], simple=True)
        return not name.endswith(("bias", "scale"))

    return jax.tree_util.tree_map_with_path(decays, params)
