"""Settings of a comparison between FD, GRPO and their controls."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from experiments.dataset import DatasetConfig
from experiments.folder import Resume
from fdjax.errors import ConfigError
from fdjax.train import OptimizerConfig

__all__ = [
    "ComparisonConfig",
    "DistillationConfig",
    "EvaluationConfig",
    "ModelSize",
    "PolicyGradientConfig",
    "RolloutConfig",
    "WarmStartConfig",
]


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """A decoder of the Qwen3 family, trained from scratch."""

    vocab_size: int = 512
    """Entries of the tokenizer, 256 bytes included."""
    hidden_size: int = 96
    intermediate_size: int = 256
    num_layers: int = 3
    num_heads: int = 4
    num_kv_heads: int = 4
    head_dim: int = 24


@dataclass(frozen=True, kw_only=True)
class WarmStartConfig:
    """SFT on reference proofs, with and without feedback in the prompt."""

    steps: int = 1_800
    """Optimizer steps."""
    batch_size: int = 32
    """Rows in a step."""
    feedback_share: float = 0.5
    """Share of the rows whose prompt begins with feedback on a mistaken proof."""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            learning_rate=2e-3, warmup_steps=50, decay_steps=1_800, weight_decay=0.01
        )
    )


@dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    """The budget that every arm gets."""

    steps: int = 36
    """Iterations of an arm."""
    handover: int = 12
    """Iterations of FD in FD→GRPO, before GRPO takes over."""
    problems: int = 64
    """Theorems in an iteration."""
    group_size: int = 4
    """Attempts at each theorem."""
    updates: int = 2
    """Optimizer steps on each iteration's attempts."""
    max_new_tokens: int = 40
    """Longest attempt, tokens."""
    feedback_tokens: int = 40
    """Room for feedback in the teacher's prompt, tokens."""
    temperature: float = 1.0
    """Sampling temperature, in training and evaluation."""


@dataclass(frozen=True, kw_only=True)
class DistillationConfig:
    """Feedback Distillation (arXiv:2605.30861)."""

    divergence: Literal["forward_kl", "reverse_kl", "jsd"] = "jsd"
    """What measures teacher against student; jsd uses alpha = 0.5."""
    teacher_rate: float = 0.05
    """η of the EMA teacher (arXiv:2601.20802)."""
    score: Literal["all", "to_divergence"] = "to_divergence"
    """Tokens of a failed attempt that carry a loss."""
    plan: int = 3
    """Tactics that the hint names after the one it spells out."""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            learning_rate=5e-4, decay_steps=48, final_fraction=0.05
        )
    )


@dataclass(frozen=True, kw_only=True)
class PolicyGradientConfig:
    """GRPO (arXiv:2402.03300) with clip-higher (arXiv:2503.14476)."""

    clip_low: float = 0.2
    clip_high: float = 0.28
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(learning_rate=2e-4)
    )


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How the arms are measured."""

    samples: int = 64
    """Attempts at each held-out theorem."""
    ks: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    """k of pass@k."""
    split: Literal["test", "validation"] = "test"
    """Held-out theorems; `validation` while choosing settings."""

    def __post_init__(self) -> None:
        if not self.ks or max(self.ks) > self.samples or min(self.ks) < 1:
            raise ConfigError(
                f"Expected each k between 1 and samples = {self.samples}, got "
                f"{self.ks}; raise --evaluation.samples or drop the larger k."
            )


@dataclass(frozen=True, kw_only=True)
class ComparisonConfig:
    """A whole run: data, warm start, arms, evaluation."""

    name: str = "quickstart"
    """Folder of the run below `runs`."""
    runs: Path = Path("runs")
    """Where runs are kept."""
    resume: Resume = "no"
    """Continue the run of this name: alone or with `newest` from its newest
    checkpoints, with `whole` from the newest that are not damaged."""
    seed: int = 0
    """Seed of initialisation, data order and sampling."""
    minif2f: Path | None = None
    """DeepSeek-Prover's miniF2F JSONL; its Mathlib-free statements are tried too."""
    lean_workers: int = 2
    """Lean processes."""
    lean_timeout_s: float = 5.0
    """Wall time that one proof may use."""
    data: DatasetConfig = field(default_factory=DatasetConfig)
    model: ModelSize = field(default_factory=ModelSize)
    warm_start: WarmStartConfig = field(default_factory=WarmStartConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    fd: DistillationConfig = field(default_factory=DistillationConfig)
    grpo: PolicyGradientConfig = field(default_factory=PolicyGradientConfig)
    control: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(learning_rate=1e-3)
    )
    """Optimizer of the control, SFT on the pool's references."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        if not self.name or Path(self.name).name != self.name:
            raise ConfigError(
                f"Expected a plain folder name, got name = {self.name!r}."
            )
        if not 0 < self.rollout.handover < self.rollout.steps:
            raise ConfigError(
                "Expected FD→GRPO to have iterations of both, got rollout.handover = "
                f"{self.rollout.handover} of rollout.steps = {self.rollout.steps}; "
                "choose a handover between them."
            )
