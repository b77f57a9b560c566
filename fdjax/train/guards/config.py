"""Which guards a run has, their bounds, and which of them end it."""

from dataclasses import dataclass
from typing import Literal, get_args

from fdjax.errors import ConfigError
from fdjax.ranges import Number, Whole, require_fields

__all__ = ["Guard", "GuardsConfig"]

Guard = Literal[
    "non_finite",
    "equal_groups",
    "crashed",
    "timeout",
    "feedback",
    "logprob_gap",
    "length",
    "kl",
    "entropy",
    "marginal_entropy",
    "canaries",
]
"""Names of the guards, as settings and events have them."""

_SHARE = Number(least=0, most=1)


@dataclass(frozen=True, kw_only=True)
class GuardsConfig:
    """What is watched while a run trains (docs/training.md#guards-in-a-run).

    A guard warns once when its metric has been beyond its bound for `patience` rows;
    those in `stop` end the run instead, with its state saved.
    """

    stop: tuple[Guard, ...] = ("non_finite", "crashed", "feedback", "canaries")
    """Guards that end the run; the others warn."""
    off: tuple[Guard, ...] = ()
    """Guards that do not watch at all."""
    patience: int = 3
    """Rows of metrics beyond a bound, one after the other."""
    median_of: int = 20
    """Rows whose median bounds the next value, for spikes and collapses."""
    non_finite: float = 0.2
    """Largest share of skipped steps in the newest `median_of` rows."""
    dumps: int = 3
    """Batches of skipped steps that are written to look at, in each phase."""
    live_groups: float = 0.05
    """Smallest share of groups whose rewards differ, for policy gradients."""
    crashed: float = 0.5
    """Largest share of attempts without a verdict."""
    timeout: float = 0.5
    """Largest share of attempts whose verification took too long."""
    feedback_missing: float = 0.5
    """Largest share of attempts without feedback."""
    logprob_gap: float | None = None
    """Largest mean difference between the sampler's and the trainer's
    log-probabilities, nats; by default 0.001 in float32, 0.05 in bfloat16."""
    length_factor: float = 2.0
    """Attempts this many times longer than the median before run away."""
    finished: float = 0.1
    """Smallest share of attempts that end by themselves."""
    kl_factor: float = 5.0
    """A divergence this many times the median before is a spike."""
    collapse_factor: float = 0.3
    """An entropy below this multiple of the median before collapses."""
    entropy: float = 0.01
    """Smallest entropy of the sampled tokens, nats."""
    marginal_entropy: float = 0.5
    """Smallest entropy of the mean distribution over sampled tokens, nats."""
    canary_every: int = 25
    """Iterations between canaries, proofs whose verdict is known."""

    def __post_init__(self) -> None:
        for name in ("stop", "off"):
            if unknown := set(getattr(self, name)) - set(get_args(Guard)):
                raise ConfigError(
                    f"expected guards.{name} of {', '.join(get_args(Guard))}, got "
                    f"{', '.join(sorted(unknown))}"
                )
        require_fields(
            self,
            patience=Whole(1),
            median_of=Whole(1),
            non_finite=_SHARE,
            dumps=Whole(0),
            live_groups=_SHARE,
            crashed=_SHARE,
            timeout=_SHARE,
            feedback_missing=_SHARE,
            length_factor=Number(above=1),
            finished=_SHARE,
            kl_factor=Number(above=1),
            collapse_factor=Number(least=0, below=1),
            entropy=Number(least=0),
            marginal_entropy=Number(least=0),
            canary_every=Whole(1),
        )
        if self.logprob_gap is not None:
            require_fields(self, logprob_gap=Number(above=0))
