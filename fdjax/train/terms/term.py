"""What a term is: one summand of an objective, and what it reads."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import (
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    Protocol,
    TypeVar,
    get_args,
    runtime_checkable,
)

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int32

from fdjax.errors import ConfigError
from fdjax.ranges import Among, Number, require
from fdjax.records import Metrics
from fdjax.rollout.arrays import Batch
from fdjax.rollout.batch import Score

__all__ = [
    "AdvantageName",
    "Needs",
    "Reading",
    "Route",
    "SequenceTerm",
    "Term",
    "TokenTerm",
    "Tokens",
    "Weight",
    "given",
    "require_weight",
    "routed",
]

Weight = float | Callable[[Any], Any]
"""Of a term: a number, or an optax schedule, a function of the optimizer steps."""
Route = Literal["all", "passed", "failed"]
"""Which attempts a term learns from."""
Reading = Literal["feedback", "wrong_feedback", "nothing"]
"""What the teacher reads beside the question."""
AdvantageName = Literal["zscore", "centred", "leave_one_out"]
"""A function of `fdjax.advantages`."""

ROUTE = Among(*get_args(Route))

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What terms read beyond tokens and rewards; nothing else is made, held or sent."""

    teacher: frozenset[Reading] = frozenset()
    """What the teacher reads, a forward pass each; without any there is no teacher."""
    score: Score | None = None
    """Which tokens of a failed attempt are scored under its feedback."""
    advantage: AdvantageName | None = None
    """Which advantages."""
    old_logprobs: bool = False
    """Log-probabilities of the policy that sampled."""

    @property
    def feedback(self) -> bool:
        """Whether feedback must be written at all."""
        return bool(self.teacher - {"nothing"})

    def __or__(self, other: "Needs") -> "Needs":
        """What both need.

        Raises:
          ConfigError: they need different things under one name.
        """
        joined: dict[str, Any] = {
            "teacher": self.teacher | other.teacher,
            "old_logprobs": self.old_logprobs or other.old_logprobs,
        }
        for field in fields(self):
            if field.name in joined:
                continue
            values = {getattr(self, field.name), getattr(other, field.name)} - {None}
            if len(values) > 1:
                raise ConfigError(
                    f"expected terms that agree on {field.name}, got "
                    f"{', '.join(sorted(map(str, values)))}: a batch has one"
                )
            joined[field.name] = values.pop() if values else None
        return Needs(**joined)


class Tokens(NamedTuple):
    """A chunk of R tokens as a term sees them."""

    logits: Float32[Array, "R 1 V"]
    """The student's; they carry the gradient. Of tokens that no term scores they are
    those of a hidden state of zeros."""
    tokens: Int32[Array, "R 1"]
    """Ids that these logits predict."""
    mask: Bool[Array, "R 1"]
    """True for those that the term scores."""
    rows: Mapping[str, Array]
    """What `Term.rows` gave, of these tokens: [R, 1]."""
    normalizer: Float32[Array, ""]
    """What `Term.normalizer` gave, of the global batch."""
    temperature: float
    """At which the tokens were sampled."""
    teacher_logits: Callable[[Reading], Float32[Array, "R 1 V"]]
    """Of the teacher that reads so; without gradient."""


@runtime_checkable
class Term(Protocol):
    """One summand of an objective: a loss with a weight.

    A frozen dataclass that is a `TokenTerm` or a `SequenceTerm` as well: `FD`, `GRPO`,
    `GSPO`, `SFT`, or your own.
    """

    name: ClassVar[str]
    """First part of its metrics' names, such as "fd"; no two terms share it."""

    @property
    def weight(self) -> Weight:
        """Factor of its loss."""
        ...

    @property
    def needs(self) -> Needs:
        """What it reads."""
        ...

    def mask(self, batch: Batch) -> Bool[Array, "B T"]:
        """The tokens that it scores."""
        ...

    def normalizer(self, mask: Bool[Array, "B T"]) -> Float32[Array, ""]:
        """Z of the loss, from the mask of the global batch."""
        ...


@runtime_checkable
class TokenTerm(Term, Protocol):
    """A term that is a sum over tokens, each by itself.

    All terms of this kind share the student's logits, which exist for a chunk of tokens
    at a time.
    """

    def rows(
        self, batch: Batch, mask: Bool[Array, "B T"], step: Int32[Array, ""]
    ) -> dict[str, Array]:
        """Arrays [B, T] that its loss reads beside the tokens."""
        ...

    def of_tokens(self, tokens: Tokens) -> tuple[Float32[Array, ""], Metrics]:
        """Loss and metrics of some tokens: sums, so that chunks add up."""
        ...


@runtime_checkable
class SequenceTerm(Term, Protocol):
    """A term that looks at whole sequences, and at no teacher."""

    def of_sequences(
        self,
        logprobs: Float[Array, "B T"],
        *,
        batch: Batch,
        mask: Bool[Array, "B T"],
        normalizer: Float[Array, ""],
    ) -> tuple[Float32[Array, ""], Metrics]:
        """Loss and metrics from the log-probability of each scored token, nats."""
        ...


def require_weight(name: str, weight: Weight) -> None:
    """Refuses a number that is no factor of a loss; schedules are taken as they are.

    Raises:
      ConfigError: the weight is not positive.
    """
    if not callable(weight):
        require(name, weight, Number(above=0), remedy="leave the term out instead")


def routed(route: Route, batch: Batch) -> Bool[Array, "B 1"]:
    """The attempts with a reward that go this way."""
    known = jnp.asarray(batch.known)
    match route:
        case "all":
            chosen = known
        case "passed":
            chosen = known & batch.passed
        case "failed":
            chosen = known & ~jnp.asarray(batch.passed)
    return chosen[:, None]


def given(value: Value | None, name: str, term: str) -> Value:
    """A part of the batch that a term reads.

    Raises:
      ConfigError: the batch has none.
    """
    if value is None:
        raise ConfigError(
            f"expected a batch with {name}, which {term} reads, got None: make it with "
            "what `Objective.needs` says"
        )
    return value
