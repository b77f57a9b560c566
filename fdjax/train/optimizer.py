"""The optimizer: AdamW after clipping, with a warm-up and a decay (optax)."""

from dataclasses import dataclass

import optax

from fdjax.ranges import Number, Whole, require_fields

__all__ = ["OptimizerConfig", "make_optimizer"]


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW (arXiv:1711.05101) with linear warm-up and cosine decay."""

    learning_rate: float = 1e-3
    """Peak learning rate."""
    warmup_steps: int = 0
    """Optimizer steps from zero to the peak."""
    decay_steps: int | None = None
    """Optimizer steps until the learning rate has decayed; constant without."""
    final_fraction: float = 0.1
    """Learning rate at the end of the decay, as a fraction of the peak."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    beta1: float = 0.9
    """Decay of the first moment."""
    beta2: float = 0.95
    """Decay of the second moment."""
    max_gradient_norm: float = 1.0
    """Global norm above which gradients are scaled down."""

    def __post_init__(self) -> None:
        require_fields(
            self,
            learning_rate=Number(above=0),
            warmup_steps=Whole(0),
            final_fraction=Number(least=0, most=1),
            weight_decay=Number(least=0),
            beta1=Number(least=0, below=1),
            beta2=Number(least=0, below=1),
            max_gradient_norm=Number(above=0),
        )
        if self.decay_steps is not None:
            # Warm-up is part of the steps until the rate has decayed.
            require_fields(self, decay_steps=Whole(self.warmup_steps + 1))


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """The gradient transformation that `config` describes."""
    peak = config.learning_rate
    if config.decay_steps is not None:
        schedule = optax.warmup_cosine_decay_schedule(
            0.0 if config.warmup_steps else peak,
            peak,
            config.warmup_steps,
            config.decay_steps,
            peak * config.final_fraction,
        )
    elif config.warmup_steps:
        schedule = optax.linear_schedule(0.0, peak, config.warmup_steps)
    else:
        schedule = optax.constant_schedule(peak)
    return optax.chain(
        optax.clip_by_global_norm(config.max_gradient_norm),
        optax.adamw(
            schedule,
            b1=config.beta1,
            b2=config.beta2,
            weight_decay=config.weight_decay,
        ),
    )
