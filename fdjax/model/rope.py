"""Rotary position embedding, and the ways to stretch it to longer contexts."""

import math
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fdjax.errors import ConfigError
from fdjax.ranges import FLAG, Number, require_fields

__all__ = [
    "LinearScaling",
    "Llama3Scaling",
    "RopeScaling",
    "YarnScaling",
    "rope_angles",
    "rope_frequencies",
    "rotate",
]


@dataclass(frozen=True, kw_only=True)
class LinearScaling:
    """Positions divided by a factor (arXiv:2306.15595)."""

    factor: float
    """By how much the context grows."""

    def __post_init__(self) -> None:
        _check_positive(self, "factor")


@dataclass(frozen=True, kw_only=True)
class Llama3Scaling:
    """Long wavelengths divided, short ones kept, a ramp between (Llama 3.1)."""

    factor: float
    """Divides frequencies whose wavelength exceeds the original context."""
    low_freq_factor: float
    """Original context over the wavelength from which all is divided."""
    high_freq_factor: float
    """Original context over the wavelength up to which nothing is."""
    original_max_position_embeddings: int
    """Context of the model before it was stretched, tokens."""

    def __post_init__(self) -> None:
        _check_positive(
            self,
            "factor",
            "low_freq_factor",
            "high_freq_factor",
            "original_max_position_embeddings",
        )
        if not self.high_freq_factor > self.low_freq_factor:
            raise ConfigError(
                "expected high_freq_factor above low_freq_factor, got "
                f"{self.high_freq_factor} and {self.low_freq_factor}"
            )


@dataclass(frozen=True, kw_only=True)
class YarnScaling:
    """Frequencies divided by the turns that they make, sharper attention (YaRN).

    arXiv:2309.00071, §3.
    """

    factor: float
    """By how much the context grows."""
    original_max_position_embeddings: int
    """Context of the model before it was stretched, tokens."""
    beta_fast: float = 32.0
    """Turns from which a frequency is kept."""
    beta_slow: float = 1.0
    """Turns up to which a frequency is divided."""
    attention_factor: float | None = None
    """Multiplies cosines and sines; 0.1 ln(factor) + 1 by default."""
    truncate: bool = True
    """Whether the ramp begins and ends at whole dimensions."""

    def __post_init__(self) -> None:
        _check_positive(
            self,
            "factor",
            "original_max_position_embeddings",
            "beta_fast",
            "beta_slow",
        )
        require_fields(self, truncate=FLAG)
        if self.attention_factor is not None:
            _check_positive(self, "attention_factor")


RopeScaling = LinearScaling | Llama3Scaling | YarnScaling
"""How a model's RoPE was stretched beyond its first context."""


def _check_positive(scaling: RopeScaling, *names: str) -> None:
    require_fields(scaling, **dict.fromkeys(names, Number(above=0)))


def rope_frequencies(
    head_dim: int, theta: float, scaling: RopeScaling | None = None
) -> tuple[Float[np.ndarray, " half"], float]:
    """Radians per position of each pair, float32, and the factor of cos and sin.

    theta^(−2i/H) (arXiv:2104.09864), stretched by `scaling`. The order of operations
    is that of transformers, in float32: at position 30,000 another rounding is visible.
    """
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    plain = np.float32(1.0) / np.float32(theta) ** exponents
    match scaling:
        case None:
            return plain, 1.0
        case LinearScaling():
            return plain / np.float32(scaling.factor), 1.0
        case Llama3Scaling():
            return _llama3(plain, scaling), 1.0
        case YarnScaling():
            factor = scaling.attention_factor
            if factor is None:
                factor = max(0.1 * math.log(scaling.factor), 0.0) + 1.0
            return _yarn(plain, head_dim, theta, scaling), factor


def _llama3(
    plain: Float[np.ndarray, " half"], scaling: Llama3Scaling
) -> Float[np.ndarray, " half"]:
    context = scaling.original_max_position_embeddings
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    turns = context / (2 * np.pi / plain)
    keep = np.clip((turns - low) / (high - low), 0.0, 1.0)
    mixed = (1.0 - keep) * plain / scaling.factor + keep * plain
    return mixed.astype(np.float32)


def _yarn(
    plain: Float[np.ndarray, " half"],
    head_dim: int,
    theta: float,
    scaling: YarnScaling,
) -> Float[np.ndarray, " half"]:
    def dimension(turns: float) -> float:
        """Pair that makes so many turns within the original context."""
        context = scaling.original_max_position_embeddings
        ratio = math.log(context / (turns * 2 * math.pi)) / (2 * math.log(theta))
        return head_dim * ratio

    low, high = dimension(scaling.beta_fast), dimension(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    if low == high:
        high += 0.001
    pairs = np.arange(head_dim // 2, dtype=np.float32)
    divide = np.clip((pairs - low) / (high - low), 0.0, 1.0)
    mixed = plain / scaling.factor * divide + plain * (1.0 - divide)
    return mixed.astype(np.float32)


def rope_angles(
    positions: Int[Array, "B T"],
    *,
    head_dim: int,
    theta: float,
    scaling: RopeScaling | None = None,
) -> tuple[Float[Array, "B T half"], Float[Array, "B T half"]]:
    """Cosine and sine of position times frequency, float32; see `rope_frequencies`."""
    frequencies, factor = rope_frequencies(head_dim, theta, scaling)
    angles = positions.astype(jnp.float32)[..., None] * frequencies[None, None]
    return jnp.cos(angles) * factor, jnp.sin(angles) * factor


def rotate(
    x: Float[Array, "B T N H"],
    cos: Float[Array, "B T half"],
    sin: Float[Array, "B T half"],
) -> Float[Array, "B T N H"]:
    """Turns the pairs (x_i, x_{i + H/2}) by their angles (Hugging Face pairing)."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = cos[:, :, None], sin[:, :, None]
    turned = jnp.concatenate(
        [first * cos - second * sin, second * cos + first * sin], axis=-1
    )
    return turned.astype(x.dtype)
