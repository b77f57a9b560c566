"""Losses as pure functions over arrays, for any JAX training loop.

Each returns `(loss, metrics)`: a sum over the scored tokens divided by a normalizer of
the *global* batch, so that microbatches and shards add up to the whole, and metrics as
`fdjax.records.Mean`, which add up too.

Feedback Distillation and GRPO on one batch, inside a jitted step of your own:

>>> import jax
>>> import jax.numpy as jnp
>>> from fdjax.losses import feedback_distillation_loss, grpo_loss
>>> from fdjax.ops import token_logprobs
>>> from fdjax.records import union
>>> def apply(params, features):  # your network: [B, T, D] -> logits [B, T, V]
...     return features @ params
>>> @jax.jit
... def step(params, teacher, batch):
...     normalizer = jnp.sum(batch["mask"], dtype=jnp.float32)
...     teacher_logits = apply(teacher, batch["informed_features"])
...     def objective(params):
...         logits = apply(params, batch["features"])
...         distillation, fd_metrics = feedback_distillation_loss(
...             logits,
...             teacher_logits=teacher_logits,
...             mask=batch["mask"],
...             normalizer=normalizer,
...         )
...         policy, grpo_metrics = grpo_loss(
...             token_logprobs(logits, batch["tokens"]),
...             old_logprobs=batch["old_logprobs"],
...             advantages=batch["advantages"],
...             mask=batch["mask"],
...             normalizer=normalizer,
...         )
...         return distillation + 0.5 * policy, union(fd_metrics, grpo_metrics)
...     gradient, metrics = jax.grad(objective, has_aux=True)(params)
...     return params - 0.1 * gradient, metrics
>>> params = jnp.zeros((2, 2))  # a student that does not know, a teacher that does
>>> teacher = jnp.array([[0.0, 0.0], [0.0, 2.0]])
>>> batch = {
...     "features": jnp.array([[[1.0, 0.0]]]),
...     "informed_features": jnp.array([[[1.0, 1.0]]]),
...     "tokens": jnp.array([[1]]),
...     "old_logprobs": jnp.log(jnp.array([[0.5]])),
...     "advantages": jnp.array([1.0]),
...     "mask": jnp.array([[True]]),
... }
>>> params, metrics = step(params, teacher, batch)
>>> print(f"{metrics['fd/student_entropy'].value():.3f}")  # log 2, undecided
0.693
>>> print(f"{metrics['grpo/clip_fraction'].value():.1f}")
0.0
>>> _, metrics = step(params, teacher, batch)
>>> print(f"{metrics['fd/student_entropy'].value():.3f}")  # it chose token 1
0.691
"""

from fdjax.losses.cispo import cispo_loss
from fdjax.losses.contrast import contrast_logits
from fdjax.losses.feedback_distillation import feedback_distillation_loss
from fdjax.losses.from_hidden import (
    feedback_distillation_loss_from_hidden,
    token_loss_from_hidden,
)
from fdjax.losses.grpo import dual_clip_grpo_loss, grpo_loss
from fdjax.losses.gspo import gspo_loss
from fdjax.losses.sampled_distillation import sampled_distillation_loss
from fdjax.losses.sft import sft_loss

__all__ = [
    "cispo_loss",
    "contrast_logits",
    "dual_clip_grpo_loss",
    "feedback_distillation_loss",
    "feedback_distillation_loss_from_hidden",
    "grpo_loss",
    "gspo_loss",
    "sampled_distillation_loss",
    "sft_loss",
    "token_loss_from_hidden",
]
