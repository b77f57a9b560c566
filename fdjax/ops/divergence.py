"""Divergences of a student p from a teacher q, per token, in nats.

Over the full vocabulary from logits (`forward_kl`, `reverse_kl`, `generalized_jsd`),
or estimated from the sampled tokens alone (`kl_k1`, `kl_k2`, `kl_k3`).

Arithmetic is float32 whatever comes in: accumulated in bfloat16, a divergence of 0.005
reads 0. A token whose logit is −inf is impossible and contributes nothing. Values are
exactly 0 for equal logits; rounding may leave about −1e-7 for nearly equal ones.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32

from fdjax.errors import ConfigError
from fdjax.ops.logprobs import log_ratio

__all__ = [
    "Divergence",
    "forward_kl",
    "generalized_jsd",
    "kl_k1",
    "kl_k2",
    "kl_k3",
    "reverse_kl",
]

Divergence = Callable[[Array, Array], Array]
"""`(student_logits [.., V], teacher_logits [.., V]) -> [..]`; no stop-gradients."""


def _log_softmax(logits: Float[Array, "*rows V"]) -> Float32[Array, "*rows V"]:
    return jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)


def _kl(
    log_a: Float32[Array, "*rows V"], log_b: Float32[Array, "*rows V"]
) -> Float32[Array, "*rows"]:
    """KL(a‖b) = Σ_v a (log a − log b) from log-probabilities, with 0 log 0 = 0."""
    a = jnp.exp(log_a)
    # The difference is selected, not the product: −inf − −inf would reach the gradient.
    return jnp.sum(a * jnp.where(a > 0, log_a - log_b, 0.0), axis=-1)


def forward_kl(
    student_logits: Float[Array, "*rows V"], teacher_logits: Float[Array, "*rows V"]
) -> Float32[Array, "*rows"]:
    """KL(q‖p) = Σ_v q (log q − log p): the student must cover what the teacher does.

    Gradient with respect to the student's logits: p − q.

    Args:
      student_logits: of p.
      teacher_logits: of q.

    Returns:
      Nats, ≥ 0; infinite where the teacher allows a token the student cannot emit.
    """
    return _kl(_log_softmax(teacher_logits), _log_softmax(student_logits))


def reverse_kl(
    student_logits: Float[Array, "*rows V"], teacher_logits: Float[Array, "*rows V"]
) -> Float32[Array, "*rows"]:
    """KL(p‖q) = Σ_v p (log p − log q): the student may keep to one of the modes.

    Gradient with respect to the student's logits: p ⊙ (log p − log q − KL(p‖q)).

    Args:
      student_logits: of p.
      teacher_logits: of q.

    Returns:
      Nats, ≥ 0; infinite where the student allows a token the teacher cannot emit.
    """
    return _kl(_log_softmax(student_logits), _log_softmax(teacher_logits))


def generalized_jsd(
    student_logits: Float[Array, "*rows V"],
    teacher_logits: Float[Array, "*rows V"],
    *,
    alpha: float = 0.5,
) -> Float32[Array, "*rows"]:
    """Jensen–Shannon divergence between student p and teacher q, weight α on q.

    M = (1−α) p + α q,  D = α KL(q‖M) + (1−α) KL(p‖M)

    Convention: the weight of each KL is the weight of its distribution in the mixture.
    D itself vanishes at both ends; its direction is that of forward KL near 0 and of
    reverse KL near 1: D/α → KL(q‖p) as α → 0, and D/(1−α) → KL(p‖q) as α → 1. A small
    α therefore also shrinks the gradient, which Adam hides and weight decay does not.

    Args:
      student_logits: of p.
      teacher_logits: of q.
      alpha: α in (0, 1); 0.5 is the symmetric divergence.

    Returns:
      Nats, in [0, H(α)], at most log 2.

    Raises:
      ConfigError: alpha is not inside (0, 1).

    Reference: arXiv:2306.13649, D_JSD(β) of section 2, where β is our α, P the teacher
    and Q the student.
    """
    if not 0 < alpha < 1:
        raise ConfigError(
            f"expected alpha inside (0, 1), got {alpha}: the ends are identically 0; "
            "use forward_kl for the limit at 0 and reverse_kl for the one at 1"
        )
    log_p = _log_softmax(student_logits)
    log_q = _log_softmax(teacher_logits)
    # The derivative of log(exp(−inf) + exp(−inf)) is NaN, so such tokens are left out.
    possible = jnp.maximum(log_p, log_q) > -jnp.inf
    log_mixture = jnp.logaddexp(
        jnp.where(possible, math.log1p(-alpha) + log_p, 0.0),
        jnp.where(possible, math.log(alpha) + log_q, 0.0),
    )
    return alpha * _kl(log_q, log_mixture) + (1 - alpha) * _kl(log_p, log_mixture)


def kl_k1(
    logprobs: Float[Array, "B T"],
    *,
    reference_logprobs: Float[Array, "B T"],
    mask: Bool[Array, "B T"],
) -> Float32[Array, "B T"]:
    """Estimate of KL(p‖ref) from tokens drawn from p: log p − log ref.

    Unbiased, of either sign. Useless as a loss: its gradient ∇ log p has expectation 0.
    Subtract its stop-gradient from the reward instead, whose policy gradient is that
    of KL(p‖ref).

    Args:
      logprobs: log p(token) in nats.
      reference_logprobs: log ref(token) in nats; no gradient.
      mask: True for scored tokens; the result is 0 elsewhere.

    Reference: Schulman, "Approximating KL divergence" (2020).
    """
    return log_ratio(logprobs, old_logprobs=reference_logprobs, mask=mask)


def kl_k2(
    logprobs: Float[Array, "B T"],
    *,
    reference_logprobs: Float[Array, "B T"],
    mask: Bool[Array, "B T"],
) -> Float32[Array, "B T"]:
    """Estimate of KL(p‖ref) from tokens drawn from p: ½ (log p − log ref)².

    Biased, ≥ 0. As a loss on tokens drawn from p its expected gradient is exactly that
    of KL(p‖ref).

    Args:
      logprobs: log p(token) in nats.
      reference_logprobs: log ref(token) in nats; no gradient.
      mask: True for scored tokens; the result is 0 elsewhere.

    Reference: Schulman, "Approximating KL divergence" (2020).
    """
    return 0.5 * jnp.square(
        kl_k1(logprobs, reference_logprobs=reference_logprobs, mask=mask)
    )


def kl_k3(
    logprobs: Float[Array, "B T"],
    *,
    reference_logprobs: Float[Array, "B T"],
    mask: Bool[Array, "B T"],
) -> Float32[Array, "B T"]:
    """Estimate of KL(p‖ref) from tokens drawn from p: ref/p − 1 − log(ref/p).

    Unbiased, ≥ 0. As a loss on tokens drawn from p its expected gradient is *not* that
    of KL(p‖ref) but of the forward KL(ref‖p).

    Args:
      logprobs: log p(token) in nats.
      reference_logprobs: log ref(token) in nats; no gradient.
      mask: True for scored tokens; the result is 0 elsewhere.

    Reference: arXiv:2402.03300, eq. 4.
    """
    difference = kl_k1(logprobs, reference_logprobs=reference_logprobs, mask=mask)
    return jnp.expm1(-difference) + difference
