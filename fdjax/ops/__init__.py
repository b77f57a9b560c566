"""Masked sums, log-probabilities and divergences: the arithmetic of the losses."""

from fdjax.ops.chunked import (
    chunked_logprobs,
    chunked_rows,
    chunked_sum,
    head_logits,
)
from fdjax.ops.chunking import BY_RULE, Chunking
from fdjax.ops.divergence import (
    Divergence,
    forward_kl,
    generalized_jsd,
    kl_k1,
    kl_k2,
    kl_k3,
    reverse_kl,
    top_k_divergence,
)
from fdjax.ops.logprobs import (
    TEMPERATURE,
    entropy,
    importance_ratio,
    log_ratio,
    scale_logits,
    token_logprobs,
    truncated_importance_weights,
)
from fdjax.ops.masked import (
    divide_by_normalizer,
    masked_mean,
    masked_sum,
    require_rows,
    select,
    sequence_mean_weights,
)

__all__ = [
    "BY_RULE",
    "TEMPERATURE",
    "Chunking",
    "Divergence",
    "chunked_logprobs",
    "chunked_rows",
    "chunked_sum",
    "divide_by_normalizer",
    "entropy",
    "forward_kl",
    "generalized_jsd",
    "head_logits",
    "importance_ratio",
    "kl_k1",
    "kl_k2",
    "kl_k3",
    "log_ratio",
    "masked_mean",
    "masked_sum",
    "require_rows",
    "reverse_kl",
    "scale_logits",
    "select",
    "sequence_mean_weights",
    "token_logprobs",
    "top_k_divergence",
    "truncated_importance_weights",
]
