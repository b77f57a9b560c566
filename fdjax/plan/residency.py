"""What lies on each device at the same time, over the phases of an iteration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import jax

from fdjax.model import LoRA, Model, adapt, init_adapters
from fdjax.plan.compiling import Compiled
from fdjax.plan.programs import ADAPTERS, DECODE, EVALUATION, GAP, HAND_OVER, PREFILL
from fdjax.plan.subject import Subject
from fdjax.run.memory import held_in
from fdjax.sampling import SlotsConfig
from fdjax.sampling.memory import held_bytes
from fdjax.train import PhaseConfig

__all__ = ["PAGES", "Moment", "held", "moments", "sampler_held", "tightest"]

PAGES = "sampler's pages"
"""Among the parts of a moment: what fewer slots make smaller."""
_POLICY = ("policy", "base", "adapters")
_NAMES = {
    HAND_OVER: "weights go to the sampler",
    ADAPTERS: "adapters go to the sampler",
    PREFILL: "prompts are read",
    DECODE: "attempts are sampled",
    GAP: "some attempts are read again",
    EVALUATION: "policies are measured",
}


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A part of an iteration, and what is there meanwhile."""

    phase: str
    """Of the run."""
    name: str
    program: str
    """That runs then."""
    parts: Mapping[str, int]
    """Bytes on the fullest device by name, what stays longest first."""
    usable: int
    """Bytes of the chip."""

    @property
    def size(self) -> int:
        """Bytes together."""
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        """Whether the chip has as much."""
        return self.size <= self.usable

    @property
    def excess(self) -> int:
        """Bytes beyond it; negative where some are free."""
        return self.size - self.usable


def held(subject: Subject, phase: PhaseConfig) -> Mapping[str, int]:
    """Bytes that stay through all of a phase of the run, by name."""
    # What is recomputed or cut in parts holds no more.
    config = replace(subject.model.config, remat="full")
    return _held(
        replace(phase, microbatches=1),
        Model(config, subject.mesh),
        subject.config.policy.lora,
    )


def sampler_held(subject: Subject, *, adapters: bool = True) -> Mapping[str, int]:
    """Bytes from hand-over until the step: weights and pages; none for a server.

    Args:
      subject: the run.
      adapters: whether those that it trains, if any, count among the weights.
    """
    made = subject.slotting
    if made is None:
        return {}
    config = replace(subject.model.config, remat="full")
    lora = subject.config.policy.lora if adapters else None
    return _sampler_held(Model(config, made.mesh), made.slots, lora)


def moments(subject: Subject, compiled: Sequence[Compiled]) -> list[Moment]:
    """Of each phase of the run, what is there while each program runs.

    The sampler lets weights and pages go before attempts are read again; while policies
    are measured it keeps them. Between two phases there is no more: what the next does
    not take over is freed before its own is made (`fdjax.train.hand_over`).

    Args:
      subject: the run.
      compiled: its programs.
    """
    found = []
    sampler = {f"sampler's {name}": n for name, n in sampler_held(subject).items()}
    weights = {name: n for name, n in sampler.items() if name != PAGES}
    copied = sum(weights.values())
    copied_base = sampler_held(subject, adapters=False).get("weights", 0)
    for phase in subject.phases:
        always = held(subject, phase)
        policy = sum(always[name] for name in _POLICY if name in always)
        state = sum(always.values()) - always.get("pretrained", 0)
        adapters = always["adapters"] if "base" in always else 0
        # The program; beside what stays; what of all that are its own arguments and
        # results; and what it is for.
        rows = [
            (HAND_OVER, weights, policy - adapters + copied_base),
            (ADAPTERS, weights, adapters + copied - copied_base),
            (PREFILL, sampler, sum(sampler.values())),
            (DECODE, sampler, sum(sampler.values())),
            (GAP, {}, policy),
            *((each.name, {}, state) for each in compiled if phase.name in each.phases),
            (EVALUATION, sampler, policy),
        ]
        by_name = {each.name: each for each in compiled}
        for name, beside, own in rows:
            if name not in by_name:
                continue
            parts = {**always, **beside}
            parts |= {"temporaries": max(0, by_name[name].peak - own)}
            found.append(
                Moment(
                    phase=phase.name,
                    name=_NAMES.get(name, "the optimizer steps"),
                    program=name,
                    parts={key: size for key, size in parts.items() if size},
                    usable=subject.chip.usable_bytes,
                )
            )
    return found


def tightest(found: Sequence[Moment]) -> Moment:
    """The moment with the least room."""
    return max(found, key=lambda moment: moment.excess)


@lru_cache(maxsize=256)
def _held(phase: PhaseConfig, model: Model, lora: LoRA | None) -> Mapping[str, int]:
    return held_in(phase, model, lora)


@lru_cache(maxsize=256)
def _sampler_held(
    model: Model, slots: SlotsConfig, lora: LoRA | None
) -> Mapping[str, int]:
    return held_bytes(model, slots, _params(model, lora))


@lru_cache(maxsize=16)
def _params(model: Model, lora: LoRA | None) -> object:
    key = jax.random.key(0)
    params = jax.eval_shape(model.init, key)
    if lora is None:
        return params
    fresh = jax.eval_shape(lambda base: init_adapters(key, base, lora), params)
    return adapt(params, fresh)
