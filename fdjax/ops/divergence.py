"""Divergences of a student p from a teacher q, per token, in nats.

Over the full vocabulary from logits (`forward_kl`, `reverse_kl`, `generalized_jsd`),
over its likeliest tokens (`top_k_divergence`), or estimated from the sampled tokens
alone (`kl_k1`, `kl_k2`, `kl_k3`).

Arithmetic is float32 whatever comes in: accumulated in bfloat16, a divergence of 0.005
reads 0. A token whose logit is −inf is impossible and contributes nothing. Values are
exactly 0 for equal logits; rounding may leave about −1e-7 for nearly equal ones.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Bool, Float, Float32

from fdjax.ops.logprobs import log_ratio, softmax, times
from fdjax.ranges import Among, Number, Whole, require

__all__ = [
    "Divergence",
    "forward_kl",
    "generalized_jsd",
    "kl_k1",
    "kl_k2",
    "kl_k3",
    "reverse_kl",
    "top_k_divergence",
]

Divergence = Callable[[Array, Array], Array]
"""`(student_logits [.., V], teacher_logits [.., V]) -> [..]`; no stop-gradients."""


def _differential(
    value: Float32[Array, "*rows"],
    slopes: Sequence[Callable[[], Array]],
    tangents: Sequence[Any],
) -> Float32[Array, "*rows"]:
    """Σ_v slope · tangent over the arguments that move."""
    moving = [
        jnp.sum(slope() * tangent, axis=-1)
        for slope, tangent in zip(slopes, tangents, strict=False)
        if not isinstance(tangent, SymbolicZero)
    ]
    return sum(moving, start=jnp.zeros_like(value))


# The derivatives are written out (docs/losses.md): derived by JAX they would take more
# passes over arrays of the vocabulary's size, and be NaN where logits are −inf.
@jax.custom_jvp
def _kl(
    a_logits: Float[Array, "*rows V"], b_logits: Float[Array, "*rows V"]
) -> Float32[Array, "*rows"]:
    """KL(a‖b) = Σ_v a (log a − log b)."""
    return _kl_differential((a_logits, b_logits), ())[0]


def _kl_differential(primals: Any, tangents: Any) -> tuple[Array, Any]:
    (a, log_a), (b, log_b) = map(softmax, primals)
    value = jnp.sum(times(a, log_a - log_b), axis=-1)
    slopes = (
        lambda: times(a, log_a - log_b - value[..., None]),
        lambda: b - a,
    )
    return value, _differential(value, slopes, tangents)


_kl.defjvp(_kl_differential, symbolic_zeros=True)


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
    return _kl(teacher_logits, student_logits)


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
    return _kl(student_logits, teacher_logits)


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
    require(
        "alpha",
        alpha,
        Number(above=0, below=1),
        remedy="the ends are identically 0; use forward_kl for the limit at 0 and "
        "reverse_kl for the one at 1",
    )
    return _jsd(student_logits, teacher_logits, alpha)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _jsd(
    student_logits: Float[Array, "*rows V"],
    teacher_logits: Float[Array, "*rows V"],
    alpha: float,
) -> Float32[Array, "*rows"]:
    return _jsd_differential(alpha, (student_logits, teacher_logits), ())[0]


def _jsd_differential(alpha: float, primals: Any, tangents: Any) -> tuple[Array, Any]:
    (p, log_p), (q, log_q) = map(softmax, primals)
    # A weight may take the least probabilities, whose terms are nothing, to 0.
    mixture = jnp.maximum((1 - alpha) * p + alpha * q, jnp.finfo(jnp.float32).tiny)
    log_mixture = jnp.log(mixture)
    from_student = jnp.sum(times(p, log_p - log_mixture), axis=-1)
    from_teacher = jnp.sum(times(q, log_q - log_mixture), axis=-1)
    slopes = (
        lambda: (1 - alpha) * times(p, log_p - log_mixture - from_student[..., None]),
        lambda: alpha * times(q, log_q - log_mixture - from_teacher[..., None]),
    )
    value = alpha * from_teacher + (1 - alpha) * from_student
    return value, _differential(value, slopes, tangents)


_jsd.defjvp(_jsd_differential, symbolic_zeros=True)


def top_k_divergence(
    student_logits: Float[Array, "*rows V"],
    teacher_logits: Float[Array, "*rows V"],
    *,
    k: int,
    of: Literal["teacher", "student"] = "teacher",
    divergence: Divergence = forward_kl,
) -> Float32[Array, "*rows"]:
    """A divergence that sees k tokens apart and all others as one.

    Never more than the divergence over the vocabulary, and never negative. Without the
    one for the others the probabilities would not add up to 1, and the sum over k
    tokens could be negative and be lowered by moving mass out of sight.

    Args:
      student_logits: of p.
      teacher_logits: of q.
      k: how many tokens, below V.
      of: whose most likely tokens. The choice itself has no gradient.
      divergence: of the two distributions over k + 1.

    Returns:
      Nats.

    Raises:
      ConfigError: k is not in [1, V), or `of` names neither.

    Reference: arXiv:2601.20802 distils the top k tokens with such a tail.
    """
    size = student_logits.shape[-1]
    require(
        f"k of {size} tokens",
        k,
        Whole(1, size - 1),
        remedy="over all tokens use the divergence itself",
    )
    require("of", of, Among("teacher", "student"))
    ranked = teacher_logits if of == "teacher" else student_logits
    _, tokens = jax.lax.top_k(jax.lax.stop_gradient(ranked), k)

    def lumped(logits: Array) -> Array:
        logits = logits.astype(jnp.float32)
        others = jnp.put_along_axis(logits, tokens, -jnp.inf, axis=-1, inplace=False)
        tail = jax.nn.logsumexp(others, axis=-1, keepdims=True)
        kept = jnp.take_along_axis(logits, tokens, axis=-1)
        return jnp.concatenate([kept, tail], axis=-1)

    return divergence(lumped(student_logits), lumped(teacher_logits))


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
