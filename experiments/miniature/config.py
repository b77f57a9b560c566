"""Settings of a comparison between FD, GRPO and their controls."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from experiments.miniature.dataset import DatasetConfig
from fdjax.data.tokenizer import SMALLEST_VOCABULARY
from fdjax.errors import ConfigError
from fdjax.files import require_local
from fdjax.lean.engine.verifier import WORKERS
from fdjax.lean.facts.backend import WALL_S
from fdjax.losses.grpo import CLIP_HIGH, CLIP_LOW
from fdjax.model import ModelConfig
from fdjax.ops import TEMPERATURE
from fdjax.ranges import (
    SEED,
    Among,
    Number,
    TupleOf,
    Whole,
    require,
    require_fields,
)
from fdjax.rollout.batch import SCORE, Score
from fdjax.run.config import require_folder_name, require_ks, require_seeds
from fdjax.run.folder import RESUMES, Resume
from fdjax.train import OptimizerConfig

__all__ = [
    "ComparisonConfig",
    "DistillationConfig",
    "DivergenceName",
    "EvaluationConfig",
    "ModelSize",
    "PolicyGradientConfig",
    "RolloutConfig",
    "WarmStartConfig",
]

DivergenceName = Literal["forward_kl", "reverse_kl", "jsd"]
HeldOut = Literal["test", "validation"]


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

    def __post_init__(self) -> None:
        require_fields(self, vocab_size=Whole(SMALLEST_VOCABULARY))
        self.decoder(vocab_size=self.vocab_size, positions=1)

    def decoder(self, *, vocab_size: int, positions: int) -> ModelConfig:
        """The decoder of this size.

        Args:
          vocab_size: entries that the tokenizer has in the end.
          positions: longest sequence, tokens.

        Raises:
          ConfigError: no such decoder exists.
        """
        return ModelConfig(
            vocab_size=vocab_size,
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            max_position_embeddings=positions,
            remat="none",
            unroll=True,
        )


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

    def __post_init__(self) -> None:
        require_fields(
            self,
            steps=Whole(1),
            batch_size=Whole(1),
            feedback_share=Number(least=0, most=1),
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
    """Attempts at each theorem; at least 2, because GRPO compares them."""
    updates: int = 2
    """Optimizer steps on each iteration's attempts; each takes as many."""
    max_new_tokens: int = 40
    """Longest attempt, tokens."""
    feedback_tokens: int = 40
    """Room for feedback in the teacher's prompt, tokens."""
    temperature: float = 1.0
    """Sampling temperature, in training and evaluation."""

    def __post_init__(self) -> None:
        require_fields(
            self,
            steps=Whole(2),
            problems=Whole(1),
            group_size=Whole(2),
            updates=Whole(1),
            max_new_tokens=Whole(1),
            feedback_tokens=Whole(1),
            temperature=TEMPERATURE,
        )
        require(
            f"rollout.handover of rollout.steps = {self.steps}",
            self.handover,
            Whole(1, self.steps - 1),
            remedy="FD→GRPO has iterations of both",
        )
        if self.attempts % self.updates:
            raise ConfigError(
                "expected rollout.updates to divide rollout.problems × "
                f"rollout.group_size = {self.attempts}, got {self.updates}: each "
                "optimizer step takes as many attempts"
            )

    @property
    def attempts(self) -> int:
        """Attempts of an iteration."""
        return self.problems * self.group_size

    @property
    def batch_size(self) -> int:
        """Attempts of an optimizer step."""
        return self.attempts // self.updates


@dataclass(frozen=True, kw_only=True)
class DistillationConfig:
    """Feedback Distillation (arXiv:2605.30861)."""

    divergence: DivergenceName = "jsd"
    """What measures teacher against student; jsd uses alpha = 0.5."""
    teacher_rate: float = 0.0
    """η of the EMA teacher (arXiv:2601.20802); 0 keeps it frozen, which of 0, 0.01 and
    0.05 had the highest means (docs/log.md)."""
    score: Score = "to_divergence"
    """Tokens of a failed attempt that carry a loss."""
    plan: int = 3
    """Tactics that the hint names after the one it spells out."""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            learning_rate=5e-4, decay_steps=48, final_fraction=0.05
        )
    )

    def __post_init__(self) -> None:
        require_fields(
            self,
            divergence=Among(*get_args(DivergenceName)),
            teacher_rate=Number(least=0, below=1),
            score=SCORE,
            plan=Whole(0),
        )


@dataclass(frozen=True, kw_only=True)
class PolicyGradientConfig:
    """GRPO (arXiv:2402.03300) with clip-higher (arXiv:2503.14476)."""

    clip_low: float = 0.2
    clip_high: float = 0.28
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(learning_rate=1e-4)
    )

    def __post_init__(self) -> None:
        require_fields(self, clip_low=CLIP_LOW, clip_high=CLIP_HIGH)


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How the arms are measured."""

    samples: int = 64
    """Attempts at each held-out theorem."""
    ks: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    """k of pass@k, increasing."""
    split: HeldOut = "test"
    """Held-out theorems; `validation` while choosing settings."""

    def __post_init__(self) -> None:
        require_fields(
            self,
            samples=Whole(1),
            ks=TupleOf(Whole(1)),
            split=Among(*get_args(HeldOut)),
        )
        require_ks(self.ks, samples=self.samples)


@dataclass(frozen=True, kw_only=True)
class ComparisonConfig:
    """A whole run: data, warm start, arms, evaluation."""

    name: str = "quickstart"
    """Folder of the run below `runs`."""
    runs: Path = Path("runs")
    """Where runs are kept."""
    resume: Resume = "no"
    """Continue the run of this name: alone or with `newest` from its newest checkpoints
    that are not damaged; `auto` begins it where there is none."""
    seed: int = 0
    """Seed of initialisation, data order and sampling."""
    seeds: tuple[int, ...] = ()
    """A run for each of these instead, in `seed<number>` below the folder of this name;
    then a table of all of them."""
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
    fd_then_grpo: PolicyGradientConfig = field(default_factory=PolicyGradientConfig)
    """GRPO after `rollout.handover` iterations of FD."""
    control: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(learning_rate=1e-3)
    )
    """Optimizer of the control, SFT on the pool's references."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        require_folder_name(self.name)
        require_local("runs", self.runs)
        require_seeds(self.seeds)
        require_fields(
            self,
            resume=Among(*RESUMES),
            seed=SEED,
            lean_workers=WORKERS,
            lean_timeout_s=WALL_S,
        )
        if self.minif2f is not None and not self.minif2f.is_file():
            raise ConfigError(
                f"expected minif2f to be a file, got {self.minif2f}: give the path of "
                "DeepSeek-Prover's JSONL file"
            )
        require(
            f"rollout.problems of data.pool = {self.data.pool}",
            self.rollout.problems,
            Whole(1, self.data.pool),
        )
