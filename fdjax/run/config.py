"""Settings that every run has: which policy, on which devices, how much of it all."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

import tyro

from fdjax.data.sampling import PassRateSampling
from fdjax.errors import ConfigError
from fdjax.metrics.trackers import TrackersConfig
from fdjax.model import LoRA
from fdjax.model.config import AttentionKind, Remat
from fdjax.objects import place
from fdjax.ops import TEMPERATURE
from fdjax.processes import ProcessesConfig
from fdjax.ranges import (
    SEED,
    Among,
    Number,
    TupleOf,
    Whole,
    require,
    require_fields,
)
from fdjax.run.folder import RESUMES, Resume, Runs
from fdjax.sampling.server import ServerConfig
from fdjax.train import CheckpointsConfig, GuardsConfig

__all__ = [
    "AttemptsConfig",
    "EvaluationConfig",
    "MeshConfig",
    "PolicyConfig",
    "RunConfig",
    "SamplerConfig",
    "require_folder_name",
    "require_ks",
    "require_seeds",
]


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """The pretrained model that is trained."""

    source: Annotated[str, tyro.conf.arg(aliases=("--policy",))] = ""
    """Folder in Hugging Face's format, a converted one or a run's, or a hub id;
    `{seed}` in it stands for the run's seed."""
    revision: str | None = None
    """Of a hub id."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Type of activations; what is trained, its moments and the teacher are
    float32."""
    remat: Remat = "full"
    """What the backward pass recomputes (`ModelConfig.remat`)."""
    attention: AttentionKind = "auto"
    """Kernel of the causal pass (`ModelConfig.attention`)."""
    lora: Annotated[LoRA, tyro.conf.subcommand("lora")] | None = None
    """Trains adapters on the frozen model; all of its parameters without."""

    def __post_init__(self) -> None:
        require_fields(
            self,
            dtype=Among("float32", "bfloat16"),
            remat=Among(*get_args(Remat)),
            attention=Among(*get_args(AttentionKind)),
        )

    @property
    def param_dtype(self) -> Literal["float32", "bfloat16"]:
        """Type in which the pretrained parameters are held."""
        return "float32" if self.lora is None else self.lora.base_dtype


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """How devices share the work (`fdjax.sharding.make_mesh`); -1 takes the rest."""

    data: int = 1
    """Replicas, each with its own part of the batch and all parameters."""
    fsdp: int = -1
    """Devices that share the batch and the parameters."""
    tensor: int = 1
    """Devices that share heads, the inner layer and the vocabulary."""


@dataclass(frozen=True, kw_only=True)
class AttemptsConfig:
    """What an iteration samples, and how it is cut into optimizer steps."""

    problems: int = 32
    """P, problems in an iteration."""
    group_size: int = 8
    """G, attempts at each."""
    updates: int = 1
    """Optimizer steps on an iteration's attempts; each takes as many."""
    max_new_tokens: int = 2048
    """Longest attempt, tokens; with tools what stands between its turns included."""
    turn_tokens: int | None = None
    """Longest turn of an attempt with tools, tokens; by default as long as fits."""
    calls: int = 16
    """Calls in an attempt with tools."""
    prompt_tokens: int | None = None
    """Longest prompt, tokens; that of the longest problem by default."""
    feedback_tokens: int = 512
    """Room for feedback in the teacher's prompt, tokens."""
    temperature: float = 1.0
    """Sampling temperature, in training and evaluation."""
    staleness: int = 0
    """k, iterations by which sampling runs ahead, so that judges and writers work while
    devices do (`RolloutSource`)."""
    judge_deadline_s: float = 3600.0
    """Seconds that the judge has for the attempts at a problem."""
    feedback_deadline_s: float = 3600.0
    """Seconds that the writer has for them."""
    stop_strings: tuple[str, ...] = ()
    """End an attempt, or its turn, as the policy's stop tokens do; not where the policy
    reviews itself."""
    sampling: PassRateSampling | None = None
    """Leaves out problems that are never or always solved of late; by default all are
    drawn equally often."""

    def __post_init__(self) -> None:
        require_fields(
            self,
            problems=Whole(1),
            group_size=Whole(1),
            updates=Whole(1),
            max_new_tokens=Whole(1),
            feedback_tokens=Whole(1),
            calls=Whole(0),
            temperature=TEMPERATURE,
            staleness=Whole(0),
            judge_deadline_s=Number(above=0),
            feedback_deadline_s=Number(above=0),
        )
        for name in ("prompt_tokens", "turn_tokens"):
            if getattr(self, name) is not None:
                require_fields(self, **{name: Whole(1)})
        if not all(self.stop_strings):
            raise ConfigError(
                "expected attempts.stop_strings that are not empty, got "
                f"{self.stop_strings}"
            )
        attempts = self.problems * self.group_size
        if attempts % self.updates:
            raise ConfigError(
                "expected attempts.updates to divide attempts.problems × "
                f"attempts.group_size = {attempts}, got {self.updates}: each optimizer "
                "step takes as many attempts"
            )

    @property
    def batch_size(self) -> int:
        """Attempts of an optimizer step."""
        return self.problems * self.group_size // self.updates


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """The share of the devices that the sampler has (docs/sampling.md)."""

    slots: int | None = None
    """Sequences that are decoded together; by default as many as an iteration has
    attempts, up to 64. Rounded up to as many for each part of the mesh."""
    page: int = 64
    """Tokens of a page (`SlotsConfig.page`)."""
    capacity: int | None = None
    """Tokens whose keys and values are held (`SlotsConfig.capacity`)."""
    tensor: int | None = None
    """Devices that share the weights; the others have the same again. By default as
    many as the key-value heads allow, of those that share them in training."""

    def __post_init__(self) -> None:
        for name in ("slots", "capacity", "tensor"):
            if getattr(self, name) is not None:
                require_fields(self, **{name: Whole(1)})


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How policies are measured on the problems held out."""

    every: int = 0
    """Iterations between measurements while training; 0 measures at the ends only."""
    samples: int = 8
    """Attempts at each problem."""
    ks: tuple[int, ...] = (1, 8)
    """k of pass@k, increasing."""
    teacher: bool = True
    """Whether the teacher is measured as well, with feedback in its prompt."""

    def __post_init__(self) -> None:
        require_fields(self, every=Whole(0), samples=Whole(1))
        require_ks(self.ks, samples=self.samples)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A run; experiments add fields of their own by inheriting from it."""

    name: str = "run"
    """Folder of the run below `runs`."""
    runs: Runs = Path("runs")
    """Where runs are kept: a folder that all hosts see, or `gs://bucket/path`."""
    resume: Resume = "no"
    """Continue the run of this name: alone or with `newest` from its newest checkpoints
    that are not damaged; `auto` begins it where there is none."""
    dry_run: bool = False
    """Print the resolved settings and what would be computed and held; do nothing."""
    seed: int = 0
    """Of data order and sampling."""
    only: tuple[str, ...] = ()
    """Names of the arms to train; all that the experiment has by default."""
    seeds: tuple[int, ...] = ()
    """A run for each of these instead, in `seed<number>` below the folder of this name;
    then a report on all of them."""
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    processes: ProcessesConfig = field(default_factory=ProcessesConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    attempts: AttemptsConfig = field(default_factory=AttemptsConfig)
    sampler: (
        Annotated[SamplerConfig, tyro.conf.subcommand("slots")]
        | Annotated[ServerConfig, tyro.conf.subcommand("server")]
    ) = field(default_factory=SamplerConfig)
    """Who samples: slots on the run's own devices, or a server of vLLM or SGLang."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    guards: GuardsConfig = field(default_factory=GuardsConfig)
    trackers: TrackersConfig = field(default_factory=TrackersConfig)
    profile: tuple[int, ...] = ()
    """Iterations of each phase, from 1, that leave a trace of JAX in `profile`."""
    checkpoints: CheckpointsConfig = field(default_factory=CheckpointsConfig)

    def __post_init__(self) -> None:
        require_folder_name(self.name)
        # A `pathlib.Path` of an address has lost a slash.
        object.__setattr__(self, "runs", place(self.runs))
        require_fields(self, resume=Among(*RESUMES), seed=SEED)
        require_fields(self, profile=TupleOf(Whole(1)))
        require_seeds(self.seeds)

    def resolved(self) -> Self:
        """The same with this run's seed in the policy's source."""
        source = self.policy.source.replace("{seed}", str(self.seed))
        return replace(self, policy=replace(self.policy, source=source))


def require_folder_name(name: str) -> None:
    """Refuses names of runs that are no plain folder name.

    Raises:
      ConfigError: it is not.
    """
    plain = name.isprintable() and not set(name) & set("/\\")
    if not plain or name in ("", ".", ".."):
        raise ConfigError(f"expected name to be a plain folder name, got {name!r}")


def require_ks(ks: tuple[int, ...], *, samples: int) -> None:
    """Refuses k of pass@k that cannot be measured with so many samples.

    Raises:
      ConfigError: they do not increase, or one is out of range.
    """
    for k in ks:
        require(
            f"each of evaluation.ks = {ks}",
            k,
            Whole(1, samples),
            remedy="raise evaluation.samples or drop the larger k",
        )
    if not ks or list(ks) != sorted(set(ks)):
        raise ConfigError(
            f"expected evaluation.ks to increase, such as 1 2 4, got {ks}"
        )


def require_seeds(seeds: tuple[int, ...]) -> None:
    """Refuses seeds of runs that are none, or not different.

    Raises:
      ConfigError: with the seeds.
    """
    require("seeds", seeds, TupleOf(SEED))
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"expected different seeds, a run for each, got {seeds}")
