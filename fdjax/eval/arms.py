"""What one arm of an experiment did on the evaluation theorems."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64, Int64

from fdjax.errors import DataError
from fdjax.eval.passk import pass_at_k
from fdjax.records import Status

__all__ = ["ArmResult", "common_theorems"]


@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """Counts of one arm: N theorems, the same number of samples for each."""

    arm: str
    """Name of the arm, unique in an evaluation."""
    theorems: tuple[str, ...]
    """Names of the N theorems, each once."""
    samples: int
    """Proofs drawn for each theorem; at least 1."""
    successes: tuple[int, ...]
    """Verified samples of each theorem."""
    missing: tuple[int, ...]
    """Samples of each theorem that have no verdict (the verifier crashed)."""
    distinct_proofs: tuple[int, ...]
    """Different verified proofs of each theorem (`distinct_proofs`)."""
    policy_entropy: tuple[float, ...]
    """Mean policy entropy of each theorem, nats per sampled token; NaN: unmeasured."""
    distinct_sequences: tuple[int, ...] | None = None
    """Different tactic sequences among the verified proofs of each theorem."""
    tactic_entropy: float | None = None
    """Entropy of the tactics of all verified proofs, nats."""
    statuses: Mapping[str, int] = field(default_factory=dict)
    """Verdict status (lower case) to the samples that got it."""

    def __post_init__(self) -> None:
        columns = {
            "successes": self.successes,
            "missing": self.missing,
            "distinct_proofs": self.distinct_proofs,
            "policy_entropy": self.policy_entropy,
        }
        if self.distinct_sequences is not None:
            columns["distinct_sequences"] = self.distinct_sequences
        for name, column in columns.items():
            if len(column) != len(self.theorems):
                raise DataError(
                    f"expected {len(self.theorems)} {name} in arm {self.arm!r}, one "
                    f"for each theorem, got {len(column)}"
                )
        if len(set(self.theorems)) != len(self.theorems):
            raise DataError(f"expected different theorem names in arm {self.arm!r}")
        if self.samples < 1:
            raise DataError(
                f"expected at least one sample in arm {self.arm!r}, got {self.samples}"
            )
        for name, proved, lost in zip(
            self.theorems, self.successes, self.missing, strict=True
        ):
            if proved < 0 or lost < 0 or proved + lost > self.samples:
                raise DataError(
                    f"expected successes + missing <= {self.samples} for {name} in "
                    f"arm {self.arm!r}, got {proved} + {lost}"
                )

    @property
    def crashed(self) -> int:
        """Samples on which the checker failed."""
        return self.statuses.get(Status.CRASHED.value, 0)

    def judged(self) -> Int64[np.ndarray, " N"]:
        """Samples of each theorem that have a verdict."""
        return self.samples - np.asarray(self.missing, np.int64)

    def pass_at_k(self, k: int) -> Float64[np.ndarray, " N"]:
        """Unbiased pass@k of each theorem; NaN where fewer than k were judged."""
        return pass_at_k(np.asarray(self.successes, np.int64), self.judged(), k)

    def mean_pass(self, ks: Sequence[int]) -> Float64[np.ndarray, " N"]:
        """Mean of pass@k over `ks`, of each theorem; NaN where one k is missing."""
        return np.mean([self.pass_at_k(k) for k in ks], axis=0)

    def entropy(self) -> Float64[np.ndarray, " N"]:
        """Policy entropy of each theorem, nats per sampled token."""
        return np.asarray(self.policy_entropy, np.float64)

    def select(self, theorems: Sequence[str]) -> "ArmResult":
        """The same arm on some of its theorems, in the order given.

        Raises:
          DataError: the arm was not evaluated on one of them.
        """
        place = {name: index for index, name in enumerate(self.theorems)}
        unknown = [name for name in theorems if name not in place]
        if unknown:
            raise DataError(
                f"expected theorems of arm {self.arm!r}, got {unknown[:3]}: evaluate "
                "every arm on the same theorems"
            )
        rows = [place[name] for name in theorems]
        sequences = self.distinct_sequences
        return ArmResult(
            arm=self.arm,
            theorems=tuple(theorems),
            samples=self.samples,
            successes=tuple(self.successes[row] for row in rows),
            missing=tuple(self.missing[row] for row in rows),
            distinct_proofs=tuple(self.distinct_proofs[row] for row in rows),
            policy_entropy=tuple(self.policy_entropy[row] for row in rows),
            distinct_sequences=(
                None if sequences is None else tuple(sequences[row] for row in rows)
            ),
        )


def common_theorems(arms: Sequence[ArmResult]) -> tuple[str, ...]:
    """Theorems that all arms were evaluated on, in the order of the first arm."""
    if not arms:
        return ()
    shared = set(arms[0].theorems).intersection(*(arm.theorems for arm in arms[1:]))
    return tuple(name for name in arms[0].theorems if name in shared)
