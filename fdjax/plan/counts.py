"""Arithmetic and memory traffic that a decoder cannot do without, counted by hand.

The compiler's own count takes each loop's body once, and knows nothing of kernels.
"""

import math
from dataclasses import dataclass

from fdjax.model import LoRA, ModelConfig

__all__ = [
    "Work",
    "attention_flops",
    "block_weights",
    "decode_work",
    "forward_flops",
    "head_flops",
    "kept_bytes",
    "prefill_work",
    "recomputed",
    "step_work",
]

_ACTIVATION = {"float32": 4, "bfloat16": 2}
"""Bytes of an element."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a device has to do."""

    flops: float = 0.0
    """Of products; a multiplication and an addition are two."""
    moved: float = 0.0
    """Bytes to and from its memory."""

    def times(self, count: float) -> "Work":
        """As much as so many of it."""
        return Work(flops=count * self.flops, moved=count * self.moved)


def block_weights(config: ModelConfig) -> int:
    """Elements of the matrices of all blocks; norms and biases are too small to count.

    L (2 D N H + 2 D M H + 3 D F).
    """
    heads = (2 * config.num_heads + 2 * config.num_kv_heads) * config.head_dim
    return (
        config.num_layers * config.hidden_size * (heads + 3 * config.intermediate_size)
    )


def attention_flops(config: ModelConfig, length: int) -> float:
    """Of the causal pass over one sequence in all layers: 4 L N H T (T + 1) / 2."""
    pairs = length * (length + 1) / 2
    return 4.0 * config.num_layers * config.num_heads * config.head_dim * pairs


def forward_flops(config: ModelConfig, rows: int, length: int) -> float:
    """Of all blocks over so many sequences of one length; the head is not in it."""
    products = 2.0 * block_weights(config) * length
    return rows * (products + attention_flops(config, length))


def head_flops(config: ModelConfig, tokens: int) -> float:
    """Of the logits of so many tokens: 2 D V each."""
    return 2.0 * config.hidden_size * config.vocab_size * tokens


def recomputed(config: ModelConfig, rows: int, length: int) -> float:
    """FLOPs that the backward pass repeats of the forward one, by `remat`.

    Products whose results `remat` does not keep, but for the last of each block, which
    no gradient needs. The kernel's own backward pass computes products of queries and
    keys again, with any remat; that is left out.
    """
    if config.remat == "none":
        return 0.0
    heads, kv_heads = (
        count * config.head_dim for count in (config.num_heads, config.num_kv_heads)
    )
    products = {
        "query": heads,
        "key": kv_heads,
        "value": kv_heads,
        "attention": heads,
        "inner": 2 * config.intermediate_size,
    }
    kept = set(config.remat_names) if config.remat == "named" else set()
    if config.remat == "dots":
        kept = set(products)
    width = sum(size for name, size in products.items() if name not in kept)
    again = 2.0 * config.num_layers * config.hidden_size * width * length
    # The kernel is no product of matrices: what it gives is kept by name alone.
    if "heads" not in kept:
        again += attention_flops(config, length)
    return rows * again


def kept_bytes(config: ModelConfig, tokens: float) -> float:
    """Bytes that the forward pass leaves for the backward one, of a device's tokens.

    The residual stream before each block, and what `remat` keeps beside it.
    """
    size, width = _ACTIVATION[config.dtype], config.hidden_size
    heads, kv_heads = (
        count * config.head_dim for count in (config.num_heads, config.num_kv_heads)
    )
    named = {
        "query": heads,
        "key": kv_heads,
        "value": kv_heads,
        "heads": heads,
        "attention": width,
        "inner": config.intermediate_size,
        "mlp": width,
    }
    match config.remat:
        case "full":
            kept = 0
        case "named":
            kept = sum(named[name] for name in config.remat_names)
        case "dots":
            kept = heads + 2 * kv_heads + 2 * width + 2 * config.intermediate_size
        case "none":
            # Norms' inputs and results, projections, and three of the inner layer.
            kept = 2 * heads + 2 * kv_heads + 4 * width + 4 * config.intermediate_size
    return config.num_layers * tokens * size * (width + kept)


def step_work(
    config: ModelConfig,
    *,
    devices: int,
    tensor: int,
    rows: int,
    length: int,
    scored: int,
    teachers: tuple[int, ...] = (),
    microbatches: int = 1,
    held: float,
    lora: LoRA | None = None,
) -> Work:
    """Of an optimizer step, on each device.

    Products: the student forward, twice that backward (once where the weights stand
    still), what is repeated, each teacher forward, and the heads, whose gradient is
    taken with the loss. Traffic: all weights once a pass and microbatch, the gradient
    of what is trained, the residual stream, and what stays from step to step once in
    and once out.

    Args:
      config: of student and teacher.
      devices: that share the work.
      tensor: devices that share each product.
      rows: attempts of the step, B.
      length: tokens of the student's sequences, S + T.
      scored: tokens of them that the head reads, T.
      teachers: lengths of the sequences of each pass of a teacher.
      microbatches: parts of the batch.
      held: bytes on a device of what the step changes: what is trained, its moments, a
        teacher that follows.
      lora: adapters that are trained in place of the weights.
    """
    backward = 2.0 if lora is None else 1.0
    blocks = forward_flops(config, rows, length)
    flops = (1 + backward) * blocks + recomputed(config, rows, length)
    flops += (1 + backward) * head_flops(config, rows * scored)
    for other in teachers:
        flops += forward_flops(config, rows, other)
        flops += head_flops(config, rows * scored)
    size = _ACTIVATION[config.dtype]
    head = config.vocab_size * config.hidden_size
    weights = size * (block_weights(config) + head) / tensor
    passes = 2 + len(teachers) + (config.remat == "full")
    gradient = 0.0 if lora else 4 * (block_weights(config) + head) / devices
    moved = microbatches * (passes * weights + 2 * gradient) + 2 * held
    moved += 2 * kept_bytes(config, rows * length / (devices / tensor)) / tensor
    return Work(flops=flops / devices, moved=moved)


def decode_work(
    config: ModelConfig, *, rows: float, tensor: int, context: float
) -> Work:
    """Of one token of each row, on each of the devices that share the rows.

    Args:
      config: of the policy.
      rows: slots that these devices have together.
      tensor: devices that share them.
      context: tokens before each row's next, on average.
    """
    weights = block_weights(config) + config.vocab_size * config.hidden_size
    size = _ACTIVATION[config.dtype]
    attention = 4.0 * config.num_layers * config.num_heads * config.head_dim * context
    cached = 2 * config.num_layers * config.num_kv_heads * config.head_dim * size
    return Work(
        flops=rows * (2.0 * weights + attention) / tensor,
        moved=(size * weights + rows * context * cached) / tensor,
    )


def prefill_work(
    config: ModelConfig, *, prompts: float, length: int, tensor: int, together: int
) -> Work:
    """Of prompts, on each of the devices that share them.

    Args:
      config: of the policy.
      prompts: that these devices have together; groups share theirs.
      length: tokens of each.
      tensor: devices that share them.
      together: tokens of a program, which reads all weights once.
    """
    size = _ACTIVATION[config.dtype]
    runs = math.ceil(prompts * length / together)
    weights = size * block_weights(config)
    cached = 2 * config.num_layers * config.num_kv_heads * config.head_dim * size
    return Work(
        flops=forward_flops(config, 1, length) * prompts / tensor,
        moved=(runs * weights + prompts * length * cached) / tensor,
    )
