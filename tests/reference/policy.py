"""Policy-gradient losses in float64, one token or sequence at a time."""

import math

import numpy as np


def _tokens(mask):
    return zip(*np.nonzero(mask), strict=True)


def grpo(logprobs, old, advantages, mask, normalizer, low, high, weights):
    """−Σ w min(r A, clip(r) A) / Z, by cases instead of by min."""
    total, clipped = 0.0, 0
    for b, t in _tokens(mask):
        ratio = math.exp(float(logprobs[b, t]) - float(old[b, t]))
        advantage = float(advantages[b])
        if advantage > 0 and ratio > 1 + high:
            ratio, clipped = 1 + high, clipped + 1
        elif advantage < 0 and ratio < 1 - low:
            ratio, clipped = 1 - low, clipped + 1
        total -= float(weights[b, t]) * ratio * advantage
    return total / normalizer, clipped


def dual_clip_grpo(logprobs, old, advantages, mask, normalizer, low, high, c, weights):
    """As `grpo`; ratios of negative advantages are also capped at c."""
    total = 0.0
    for b, t in _tokens(mask):
        ratio = math.exp(float(logprobs[b, t]) - float(old[b, t]))
        advantage = float(advantages[b])
        if advantage > 0:
            ratio = min(ratio, 1 + high)
        elif advantage < 0:
            ratio = min(max(ratio, 1 - low), c)
        total -= float(weights[b, t]) * ratio * advantage
    return total / normalizer


def gspo(logprobs, old, advantages, mask, normalizer, low, high):
    """−Σ_b min(s A, clip(s) A) / Z with s the geometric mean of token ratios."""
    total = 0.0
    for b in range(mask.shape[0]):
        steps = [
            float(logprobs[b, t]) - float(old[b, t])
            for t in range(mask.shape[1])
            if mask[b, t]
        ]
        if not steps:
            continue
        ratio = math.prod(math.exp(step) for step in steps) ** (1 / len(steps))
        advantage = float(advantages[b])
        if advantage > 0:
            ratio = min(ratio, 1 + high)
        elif advantage < 0:
            ratio = max(ratio, 1 - low)
        total -= ratio * advantage
    return total / normalizer


def cispo(logprobs, old, advantages, mask, normalizer, cap, weights):
    """−Σ w min(r, c) A log p / Z, and its gradient −w min(r, c) A / Z."""
    total = 0.0
    gradient = np.zeros(mask.shape, np.float64)
    for b, t in _tokens(mask):
        logprob = float(logprobs[b, t])
        factor = min(math.exp(logprob - float(old[b, t])), cap)
        factor *= float(advantages[b]) * float(weights[b, t])
        total -= factor * logprob
        gradient[b, t] = -factor / normalizer
    return total / normalizer, gradient


def sampled_distillation(logprobs, teacher, mask, normalizer, weights):
    """Σ w (log p − log q) log p / Z, and its gradient w (log p − log q) / Z."""
    total = 0.0
    gradient = np.zeros(mask.shape, np.float64)
    for b, t in _tokens(mask):
        logprob = float(logprobs[b, t])
        factor = float(weights[b, t]) * (logprob - float(teacher[b, t]))
        total += factor * logprob
        gradient[b, t] = factor / normalizer
    return total / normalizer, gradient


def sft(logprobs, mask, normalizer):
    """−Σ log p / Z."""
    return -sum(float(logprobs[b, t]) for b, t in _tokens(mask)) / normalizer
