"""Divergences between softmax distributions, in float64."""

import numpy as np


def log_softmax(logits):
    """Log-probabilities over the last axis; −inf where the logit is −inf."""
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def entropy(logits):
    """−Σ p log p over the possible tokens."""
    log_p = log_softmax(logits)
    possible = np.isfinite(log_p)
    return -np.sum(np.exp(log_p) * np.where(possible, log_p, 0.0), axis=-1)


def _kl(a, b):
    # Plain probabilities, so that the route differs from one that stays in log space.
    possible = a > 0
    quotient = np.where(possible, a, 1.0) / np.where(possible, b, 1.0)
    return np.sum(a * np.log(quotient), axis=-1)


def forward_kl(student_logits, teacher_logits):
    """KL(q‖p) for student p and teacher q."""
    return _kl(np.exp(log_softmax(teacher_logits)), np.exp(log_softmax(student_logits)))


def reverse_kl(student_logits, teacher_logits):
    """KL(p‖q)."""
    return _kl(np.exp(log_softmax(student_logits)), np.exp(log_softmax(teacher_logits)))


def generalized_jsd(student_logits, teacher_logits, alpha):
    """α KL(q‖M) + (1−α) KL(p‖M) with M = (1−α) p + α q."""
    p = np.exp(log_softmax(student_logits))
    q = np.exp(log_softmax(teacher_logits))
    mixture = (1 - alpha) * p + alpha * q
    return alpha * _kl(q, mixture) + (1 - alpha) * _kl(p, mixture)


def forward_kl_gradient(student_logits, teacher_logits):
    """Of KL(q‖p) with respect to the student's logits: p − q."""
    return np.exp(log_softmax(student_logits)) - np.exp(log_softmax(teacher_logits))


def reverse_kl_gradient(student_logits, teacher_logits):
    """Of KL(p‖q): p ⊙ (log p − log q − KL)."""
    log_p, log_q = log_softmax(student_logits), log_softmax(teacher_logits)
    kl = reverse_kl(student_logits, teacher_logits)[..., None]
    return np.exp(log_p) * (log_p - log_q - kl)


def generalized_jsd_gradient(student_logits, teacher_logits, alpha):
    """Of the JSD: ∂D/∂p = (1−α) log(p/M), hence (1−α) p ⊙ (log(p/M) − KL(p‖M))."""
    p = np.exp(log_softmax(student_logits))
    q = np.exp(log_softmax(teacher_logits))
    mixture = (1 - alpha) * p + alpha * q
    kl = _kl(p, mixture)[..., None]
    return (1 - alpha) * p * (np.log(p / mixture) - kl)


def feedback_distillation(student, teacher, mask, normalizer, divergence, weights):
    """Σ m w D(q, p) / Z, one token at a time."""
    total = 0.0
    for row, column in zip(*np.nonzero(mask), strict=True):
        value = divergence(student[row, column], teacher[row, column])
        total += float(weights[row, column]) * float(value)
    return total / normalizer
