"""The evaluation of a run as one JSON file, `eval.json`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from fdjax.encoding import as_float, decode, encode
from fdjax.errors import DataError
from fdjax.eval.arms import ArmResult
from fdjax.eval.claims import Claim
from fdjax.eval.passk import UNMEASURED, Estimate, bootstrap_interval
from fdjax.files import write_whole

__all__ = [
    "Evaluation",
    "TeacherResult",
    "load_evaluation",
    "mean_estimate",
    "save_evaluation",
]


@dataclass(frozen=True, kw_only=True)
class TeacherResult:
    """Whether the teacher can use feedback at all, measured before any FD step."""

    without_feedback: Estimate
    """pass@1 of the teacher on the statement alone."""
    with_feedback: Estimate
    """pass@1 of the teacher that also reads feedback."""
    theorems: int
    """Theorems of the measurement."""
    samples: int
    """Samples for each theorem."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All arms of a run on the evaluation theorems."""

    ks: tuple[int, ...]
    """Values of k, increasing, each at least 1."""
    arms: tuple[ArmResult, ...]
    """Results of the arms, in the order of the tables."""
    claims: tuple[Claim, ...] = ()
    """Decided claims."""
    teacher: TeacherResult | None = None
    """Use of feedback by the teacher, where it was measured."""
    about: Mapping[str, str | int | float] = field(default_factory=dict)
    """What a table must name: verifier and version, seeds, limits."""

    def __post_init__(self) -> None:
        if not self.ks or self.ks[0] < 1 or list(self.ks) != sorted(set(self.ks)):
            raise DataError(
                f"expected increasing values of k from 1 up, got {self.ks}: for "
                "example (1, 2, 4, 8)"
            )
        names = [arm.arm for arm in self.arms]
        if len(set(names)) != len(names):
            raise DataError(f"expected arms of different names, got {names}")


def mean_estimate(values: np.ndarray, seed: int = 0) -> Estimate | None:
    """Mean over the measured theorems with its 95 % interval.

    Args:
      values: one value for each theorem, NaN where it was not measured.
      seed: seed of the bootstrap.

    Returns:
      The estimate; None when no theorem was measured.
    """
    measured = values[~np.isnan(values)]
    return bootstrap_interval(measured, seed=seed) if measured.size else None


def save_evaluation(path: Path, evaluation: Evaluation) -> None:
    """Write `eval.json`, replacing it as a whole.

    Beside the counts, each arm gets a `summary` with pass@k, entropy and distinct
    proofs as value, interval and theorems measured, so that figures and reports need
    no statistics of their own. NaN is written as null.

    Args:
      path: file to write; its folder exists.
      evaluation: what to save.
    """
    content = {
        "k": list(evaluation.ks),
        "arms": [
            {**asdict(arm), "summary": _summary(arm, evaluation.ks)}
            for arm in evaluation.arms
        ],
        "teacher": _teacher_json(evaluation.teacher),
        "claims": [asdict(claim) for claim in evaluation.claims],
        "about": dict(evaluation.about),
    }
    write_whole(path, encode(content, indent=1))


def load_evaluation(path: Path) -> Evaluation:
    """Read what `save_evaluation` wrote.

    Raises:
      DataError: the file is missing, is not JSON, or lacks a field.
    """
    try:
        content = decode(path.read_bytes())
        return Evaluation(
            ks=tuple(content["k"]),
            arms=tuple(_arm(row) for row in content["arms"]),
            claims=tuple(_claim(row) for row in content["claims"]),
            teacher=_teacher(content["teacher"]),
            about=content["about"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"expected an evaluation in {path}, got {type(error).__name__}: {error}; "
            "write it with save_evaluation"
        ) from error


def _summary(arm: ArmResult, ks: Sequence[int]) -> dict[str, Any]:
    """The numbers of an arm that tables and figures show."""
    judged = int(np.sum(arm.judged()))
    return {
        "pass_at_k": {str(k): _described(arm.pass_at_k(k)) for k in ks},
        "entropy": _described(arm.entropy()),
        "distinct_proofs": _described(np.asarray(arm.distinct_proofs, np.float64)),
        "judged": judged,
        "missing": sum(arm.missing),
    }


def _described(values: np.ndarray) -> dict[str, Any]:
    """Mean, interval and count of a per-theorem measurement."""
    estimate = mean_estimate(values) or UNMEASURED
    return {**estimate._asdict(), "theorems": int(np.sum(~np.isnan(values)))}


def _arm(row: Mapping[str, Any]) -> ArmResult:
    known = {one.name for one in fields(ArmResult)}
    given: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in row.items()
        if key in known
    }
    given["policy_entropy"] = tuple(as_float(one) for one in row["policy_entropy"])
    return ArmResult(**given)


def _claim(row: Mapping[str, Any]) -> Claim:
    numbers = {name: as_float(row[name]) for name in ("difference", "low", "high")}
    return Claim(**{**row, **numbers})


def _teacher_json(teacher: TeacherResult | None) -> dict[str, Any] | None:
    # asdict would turn the named tuples of the estimates into bare lists.
    if teacher is None:
        return None
    return {
        "without_feedback": teacher.without_feedback._asdict(),
        "with_feedback": teacher.with_feedback._asdict(),
        "theorems": teacher.theorems,
        "samples": teacher.samples,
    }


def _teacher(row: Mapping[str, Any] | None) -> TeacherResult | None:
    if row is None:
        return None
    return TeacherResult(
        without_feedback=_estimate(row["without_feedback"]),
        with_feedback=_estimate(row["with_feedback"]),
        theorems=row["theorems"],
        samples=row["samples"],
    )


def _estimate(row: Mapping[str, Any]) -> Estimate:
    return Estimate(as_float(row["value"]), as_float(row["low"]), as_float(row["high"]))
