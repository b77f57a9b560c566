"""The run that is planned: an experiment's settings and arms, on devices not here."""

import importlib
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from jax.sharding import Mesh

from fdjax.checkpoint.description import stop_tokens
from fdjax.errors import ConfigError
from fdjax.feedback import PolicyFeedback
from fdjax.model import Model
from fdjax.model.config import Remat
from fdjax.plan.chips import Chip, chip_of
from fdjax.plan.sizes import policy_config
from fdjax.plan.topology import slice_devices
from fdjax.run import Arm, RunConfig
from fdjax.run.config import MeshConfig, SamplerConfig
from fdjax.run.sampler import Slotting, slotting
from fdjax.run.task import chosen_arms, phases_of
from fdjax.sharding import batch_parts, make_mesh
from fdjax.train import PhaseConfig

__all__ = ["PROMPT", "Experiment", "Subject", "find_experiment"]

PROMPT = 1_024
"""Tokens of the longest prompt where settings say none: no problem is read here."""
_STOPS = (0, 1)
"""As many ids as chat models have; which they are changes no program."""


@dataclass(frozen=True)
class Experiment:
    """What a module says of its runs."""

    config: RunConfig
    """Its `CONFIG`."""
    arms: Callable[[Any], Iterable[Arm]]


def find_experiment(name: str) -> Experiment:
    """The experiment of a module.

    Args:
      name: as `python -m` takes it, such as experiments.prover; also of the folder that
        the command runs in.

    Raises:
      ConfigError: there is no such module, or it has no settings and arms.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise ConfigError(
            f"expected a module of an experiment, such as experiments.prover, got "
            f"{name!r}, which is not to be found from {here}"
        ) from error
    config: Any = getattr(module, "CONFIG", None)
    arms: Any = getattr(module, "arms", None)
    if not isinstance(config, RunConfig) or not callable(arms):
        raise ConfigError(
            f"expected {name} to have CONFIG, a RunConfig, and arms(config), as "
            "experiments.prover does; without them nobody knows what would be trained"
        )
    return Experiment(config, cast(Callable[[Any], Iterable[Arm]], arms))


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A run before anything of it is there.

    Raises:
      ConfigError: settings do not fit one another, the policy or the devices.
    """

    config: RunConfig
    arms: tuple[Arm, ...]
    topology: str
    """Such as "v5p:2x4x4"; a run has all devices of a slice."""

    def __post_init__(self) -> None:
        longest = self.teacher_width + self.config.attempts.max_new_tokens
        positions = self.model.config.max_position_embeddings
        if longest > positions:
            raise ConfigError(
                f"expected prompts of {self.prompt_width} tokens, feedback of "
                f"{self.config.attempts.feedback_tokens} and attempts of "
                f"{self.config.attempts.max_new_tokens} to fit into the policy's "
                f"{positions} positions, got {longest}: lower attempts.prompt_tokens, "
                "feedback_tokens or max_new_tokens"
            )
        rows, parts = self.config.attempts.batch_size, batch_parts(self.mesh)
        for phase in self.phases:
            if rows % (parts * phase.microbatches):
                raise ConfigError(
                    f"expected attempts of an optimizer step, {rows}, to be divisible "
                    f"by the {parts} devices that share them × microbatches = "
                    f"{phase.microbatches} of {phase.name}; change attempts.problems, "
                    "attempts.group_size, attempts.updates, the mesh or microbatches"
                )

    @property
    def chip(self) -> Chip:
        """What its devices are."""
        return chip_of(self.topology)

    @property
    def chips(self) -> int:
        """In the slice."""
        return self.mesh.size // self.chip.devices

    @cached_property
    def mesh(self) -> Mesh:
        """Of training."""
        sizes = self.config.mesh
        return make_mesh(
            data=sizes.data,
            fsdp=sizes.fsdp,
            tensor=sizes.tensor,
            devices=slice_devices(self.topology),
        )

    @cached_property
    def model(self) -> Model:
        """Without weights."""
        settings = self.config.policy
        config = replace(
            policy_config(settings.source),
            dtype=settings.dtype,
            remat=settings.remat,
            attention=settings.attention,
        )
        return Model(config, self.mesh)

    @cached_property
    def phases(self) -> Sequence[PhaseConfig]:
        """Of all arms that are asked for."""
        return phases_of(chosen_arms(self.arms, self.config.only))

    @property
    def prompt_width(self) -> int:
        """Tokens of the student's prompts."""
        return self.config.attempts.prompt_tokens or PROMPT

    @property
    def teacher_width(self) -> int:
        """Tokens of the teacher's prompts."""
        return self.prompt_width + self.config.attempts.feedback_tokens

    @property
    def writer(self) -> PolicyFeedback | None:
        """Settings by which the policy reviews itself, where an experiment has them."""
        values = vars(self.config).values()
        return next((each for each in values if isinstance(each, PolicyFeedback)), None)

    @cached_property
    def slotting(self) -> Slotting | None:
        """Slots, pages and devices to sample on; None where a server samples."""
        settings = self.config.sampler
        if not isinstance(settings, SamplerConfig):
            return None
        folder = Path(self.config.policy.source)
        return slotting(
            self.config,
            settings,
            self.model.config,
            self.mesh,
            prompt_width=self.prompt_width,
            stop_tokens=stop_tokens(folder) if folder.is_dir() else _STOPS,
            writer=self.writer,
        )

    @cached_property
    def sampling_model(self) -> Model:
        """On the mesh to sample on.

        Raises:
          ConfigError: a server samples.
        """
        if self.slotting is None:
            raise ConfigError("expected slots to sample with, got a server")
        return Model(self.model.config, self.slotting.mesh)

    def with_settings(
        self,
        *,
        mesh: MeshConfig | None = None,
        remat: Remat | None = None,
        microbatches: int | None = None,
        slots: int | None = None,
    ) -> "Subject":
        """The same run with some settings of its own; None keeps one.

        Args:
          mesh: of training.
          remat: of the policy.
          microbatches: of every phase.
          slots: of the sampler, where it is the run's.

        Raises:
          ConfigError: they do not fit.
        """
        config, arms = self.config, self.arms
        if mesh is not None:
            config = replace(config, mesh=mesh)
        if remat is not None:
            config = replace(config, policy=replace(config.policy, remat=remat))
        if slots is not None and isinstance(config.sampler, SamplerConfig):
            config = replace(config, sampler=replace(config.sampler, slots=slots))
        if microbatches is not None:
            arms = tuple(
                replace(
                    arm,
                    phases=tuple(
                        replace(phase, microbatches=microbatches)
                        for phase in arm.phases
                    ),
                )
                for arm in arms
            )
        return Subject(config=config, arms=arms, topology=self.topology)
