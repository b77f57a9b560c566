"""The sampler of a run: one for all that its policies say."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
from jax.sharding import Mesh

from fdjax.checkpoint import save_pretrained
from fdjax.errors import ConfigError
from fdjax.feedback import PolicyFeedback, Writer
from fdjax.model import ModelConfig
from fdjax.run.config import RunConfig, SamplerConfig
from fdjax.run.policy import PolicyDescription
from fdjax.run.task import Task
from fdjax.sampling import (
    SamplingConfig,
    SharedSampler,
    SlotSampler,
    SlotsConfig,
    StopStrings,
)
from fdjax.sampling.server import ServerConfig, ServerSampler
from fdjax.sharding import batch_parts

__all__ = ["MAY_CHANGE", "RunSampler", "Slotting", "make_sampler", "slotting"]

RunSampler = SlotSampler | SharedSampler | ServerSampler

MAY_CHANGE = tuple(
    f"sampler.{name}"
    for name in (
        *("base_url", "folder", "seen_as", "key_env", "concurrency", "timeout_s"),
        *("attempts", "longest_pause_s", "load_s"),
    )
)
"""Settings that a resumed run may change: where a server is, and how long to wait."""
_SLOTS = 64


class Slotting(NamedTuple):
    """What a run's `SlotSampler` is made of, beside the model."""

    sampling: SamplingConfig
    slots: SlotsConfig
    mesh: Mesh


def make_sampler(
    config: RunConfig,
    task: Task,
    policy: PolicyDescription,
    mesh: Mesh,
    prompt_width: int,
    *,
    stopping: Callable[[], bool] = lambda: False,
) -> RunSampler:
    """The sampler that the settings name; it holds nothing and has asked nobody yet.

    Several processes share slots.

    Args:
      config: of the run.
      task: says whether the policy reviews its own attempts.
      policy: without its weights.
      mesh: of training; slots have its devices in a shape of their own.
      prompt_width: tokens of the student's prompts.
      stopping: see `SharedSampler`.

    Raises:
      ConfigError: settings do not fit the policy, the devices or the server.
      InstallError: a package that asks servers is missing.
    """
    attempts, settings = config.attempts, config.sampler
    asked = _asked(config, prompt_width, task.writer)
    if isinstance(settings, ServerConfig):
        sampling = _sampling(config, asked, policy.stop_tokens)
        return _on_server(settings, attempts.stop_strings, sampling, policy)

    def decode(tokens: Sequence[int]) -> str:
        text = policy.tokenizer.decode(tokens, skip_special_tokens=False)
        return cast(str, text)

    strings = None
    if attempts.stop_strings:
        strings = StopStrings(strings=attempts.stop_strings, decode=decode)
    made = slotting(
        config,
        settings,
        policy.model.config,
        mesh,
        prompt_width=prompt_width,
        stop_tokens=policy.stop_tokens,
        writer=task.writer,
    )
    sampler = SlotSampler(
        policy.model, made.sampling, made.slots, made.mesh, stop_strings=strings
    )
    if jax.process_count() == 1:
        return sampler
    return SharedSampler(sampler, stopping=stopping)


def slotting(
    config: RunConfig,
    settings: SamplerConfig,
    model: ModelConfig,
    mesh: Mesh,
    *,
    prompt_width: int,
    stop_tokens: tuple[int, ...],
    writer: Writer | PolicyFeedback | None = None,
) -> Slotting:
    """Slots, pages and devices as the settings say.

    Args:
      config: of the run.
      settings: its sampler's.
      model: of the policy.
      mesh: of training.
      prompt_width: tokens of the student's prompts.
      stop_tokens: ids that end an answer.
      writer: of feedback; the policy reviews itself where it is `PolicyFeedback`.

    Raises:
      ConfigError: settings do not fit the policy or the devices.
    """
    asked = _asked(config, prompt_width, writer)
    own = _sampling_mesh(settings, model, mesh)
    parts, attempts = batch_parts(own), config.attempts
    slots = settings.slots or min(attempts.problems * attempts.group_size, _SLOTS)
    return Slotting(
        _sampling(config, asked, stop_tokens),
        SlotsConfig(
            longest=max(map(sum, asked)),
            slots=-(-slots // parts) * parts,
            page=settings.page,
            capacity=settings.capacity,
        ),
        own,
    )


def _asked(
    config: RunConfig, prompt_width: int, writer: Writer | PolicyFeedback | None
) -> list[tuple[int, int]]:
    """Tokens of the longest prompts, and of what follows them."""
    attempts = config.attempts
    asked = [(prompt_width + attempts.feedback_tokens, attempts.max_new_tokens)]
    if isinstance(writer, PolicyFeedback):
        if attempts.stop_strings:
            raise ConfigError(
                "expected no attempts.stop_strings where the policy reviews itself, "
                f"got {attempts.stop_strings}: they would end its reviews, too"
            )
        asked.append((writer.prompt_tokens, writer.max_new_tokens))
    return asked


def _sampling(
    config: RunConfig, asked: list[tuple[int, int]], stop_tokens: tuple[int, ...]
) -> SamplingConfig:
    return SamplingConfig(
        max_new_tokens=max(tokens for _, tokens in asked),
        temperature=config.attempts.temperature,
        stop_tokens=stop_tokens,
    )


def _on_server(
    settings: ServerConfig,
    stop_strings: Sequence[str],
    sampling: SamplingConfig,
    policy: PolicyDescription,
) -> ServerSampler:
    if stop_strings:
        raise ConfigError(
            f"expected no attempts.stop_strings with a server, got {stop_strings}: it "
            "may drop the tokens that hold them; leave them out, or sample in slots"
        )

    def export(params: Any, folder: Path) -> None:
        save_pretrained(params, policy.model.config, folder, description=policy.folder)

    return ServerSampler(policy.model, sampling, settings, export)


def _sampling_mesh(settings: SamplerConfig, model: ModelConfig, mesh: Mesh) -> Mesh:
    """The devices of training, as many of them sharing the weights as is set."""
    sizes = {
        "devices": mesh.size,
        "heads": model.num_heads,
        "key-value heads": model.num_kv_heads,
        "inner width": model.intermediate_size,
        "vocabulary": model.vocab_size,
    }
    tensor = settings.tensor
    if tensor is None:
        shared = mesh.shape["fsdp"] * mesh.shape["tensor"]
        tensor = math.gcd(shared, *sizes.values())
    if any(size % tensor for size in sizes.values()):
        given = ", ".join(f"{size} {name}" for name, size in sizes.items())
        raise ConfigError(
            f"expected sampler.tensor to divide each of {given}, got {tensor}: "
            f"{math.gcd(*sizes.values())} is the most that does"
        )
    # In training's order, so that weights go over by one program (`place_weights`);
    # neighbours there are neighbours in the slice.
    return Mesh(
        mesh.devices.reshape(-1, 1, tensor),
        mesh.axis_names,
        axis_types=mesh.axis_types,
    )
