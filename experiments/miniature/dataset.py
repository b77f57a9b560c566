"""Theorems for the miniature: made, checked by Lean, split, and shown with mistakes."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fdjax.data.theorems import (
    REFERENCES,
    TACTIC_COUNT,
    TACTICS,
    generate_problems,
    reword,
    split_problems,
)
from fdjax.errors import ConfigError, DataError
from fdjax.feedback import Attempt, Feedback, Writer
from fdjax.judge import Judgement
from fdjax.lean import Verdict, Verifier
from fdjax.ranges import SEED, Among, Number, TupleOf, Whole, require_fields
from fdjax.records import Problem

__all__ = [
    "DatasetConfig",
    "Row",
    "check_problems",
    "corrupted_rows",
    "make_splits",
    "plain_rows",
    "reworded_rows",
]

Row = tuple[Problem, str | None, str]
"""A problem, feedback shown in its prompt or None, and the proof to write."""

_RIGHT = 0.2
"""Share of the attempts shown to SFT that are right, so that it knows such feedback."""
_CHUNK = 256
"""Proofs handed to Lean between two looks at the clock."""


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """How many theorems, and for what."""

    problems: int = 4_000
    """Theorems to generate; all different up to renaming and reordering."""
    references: int = 2
    """Proofs of each theorem, all different."""
    seed: int = 1
    """Seed of the theorems and of their split; settings were chosen with seed 0."""
    pool: int = 800
    """Theorems for GRPO, FD and the control."""
    validation: int = 64
    """Theorems to look at while choosing settings."""
    test: int = 96
    """Theorems for the final figures only."""
    longest: int = 4
    """Tactics in the shortest proof of the hardest theorems."""
    sft_ease: float = 0.5
    """How far SFT leans to easy theorems; 0 gives every split the same mix."""
    propositional: float = 0.8
    """Share of propositional theorems; arithmetic and lists halve the rest."""
    mistakes: int = 3_000
    """Corrupted proofs checked by Lean, from which SFT learns to read feedback."""
    rewordings: int = 8
    """Copies of each SFT row, variables exchanged and hypotheses reordered."""
    withheld: tuple[str, ...] = ("right", "exfalso")
    """Tactics that SFT shows after feedback only: the policy reads of them in feedback
    but never uses them on its own, so feedback has something to teach."""

    def __post_init__(self) -> None:
        require_fields(
            self,
            problems=Whole(1),
            references=REFERENCES,
            seed=SEED,
            pool=Whole(1),
            validation=Whole(1),
            test=Whole(1),
            longest=TACTIC_COUNT,
            sft_ease=Number(least=0),
            propositional=Number(least=0, most=1),
            mistakes=Whole(1),
            rewordings=Whole(1),
            withheld=TupleOf(Among(*TACTICS)),
        )
        held = self.pool + self.validation + self.test
        if held >= self.problems:
            raise ConfigError(
                "expected data.pool + data.validation + data.test to leave some of "
                f"data.problems = {self.problems} for SFT, got {held}: raise "
                "data.problems or lower the others"
            )


def make_splits(config: DatasetConfig) -> dict[str, list[Problem]]:
    """Theorems by use: sft, pool, validation, test; disjoint by canonical statement."""
    problems = generate_problems(
        config.problems,
        seed=config.seed,
        references=config.references,
        longest=config.longest,
        families={
            "propositional": config.propositional,
            "arithmetic": (1 - config.propositional) / 2,
            "lists": (1 - config.propositional) / 2,
        },
    )
    return split_problems(
        problems,
        sizes={
            "pool": config.pool,
            "validation": config.validation,
            "test": config.test,
        },
        seed=config.seed,
        lean=config.sft_ease,
    )


def check_problems(
    problems: Sequence[Problem],
    verifier: Verifier,
    progress: Callable[[int, str], None],
) -> None:
    """Has Lean elaborate every statement and verify every reference.

    Raises:
      DataError: a statement does not elaborate or a reference is refused, naming it.
    """
    items = [
        (problem, reference) for problem in problems for reference in problem.references
    ]
    for start in range(0, len(items), _CHUNK):
        chunk = items[start : start + _CHUNK]
        for (problem, proof), verdict in zip(
            chunk, verifier.verify(chunk), strict=True
        ):
            if not verdict.verified:
                raise DataError(
                    f"Expected Lean to verify the reference of {problem.name}, got "
                    f"{verdict.status.value}: {verdict.reason}\n{problem.statement} := "
                    f"by\n{proof}\nRemove the row or correct the reference."
                )
        progress(start + len(chunk), "")


def plain_rows(problems: Sequence[Problem], withheld: Sequence[str]) -> list[Row]:
    """Rows (problem, None, reference) of the proofs that use no withheld tactic.

    Raises:
      ConfigError: every proof uses one.
    """
    rows: list[Row] = [
        (problem, None, reference)
        for problem in problems
        for reference in problem.references
        if not any(line.split()[0] in withheld for line in reference.splitlines())
    ]
    if not rows:
        raise ConfigError(
            "Expected reference proofs without withheld tactics, got none with "
            f"data.withheld = {tuple(withheld)}; withhold fewer."
        )
    return rows


def corrupted_rows(
    problems: Sequence[Problem],
    verifier: Verifier,
    writer: Writer,
    *,
    count: int,
    seed: int,
    progress: Callable[[int, str], None],
) -> list[Row]:
    """Rows (problem, feedback on an attempt, reference), for SFT with feedback.

    Most attempts are mistakes: they keep the first steps of a reference and go on
    with steps of other proofs of the same family. Lean judges each, and the feedback
    is about that reference, so that whoever reads it can write the proof.
    """
    rng = random.Random(seed)
    steps = {
        family: sorted(
            {
                line
                for problem in problems
                if problem.family == family
                for reference in problem.references
                for line in reference.splitlines()
            }
        )
        for family in {problem.family for problem in problems}
    }
    drawn = []
    for _ in range(count):
        problem = rng.choice(problems)
        reference = rng.choice(problem.references)
        proof = reference
        if rng.random() >= _RIGHT:
            lines = reference.splitlines()
            kept = lines[: rng.randrange(len(lines))]
            wrong = rng.choices(steps[problem.family], k=1 + rng.randrange(4))
            proof = "\n".join(kept + wrong)
        drawn.append((replace(problem, references=(reference,)), proof))
    verdicts: list[Verdict] = []
    for start in range(0, count, _CHUNK):
        verdicts += verifier.verify(drawn[start : start + _CHUNK])
        progress(len(verdicts), "")
    attempts = [
        Attempt(
            problem=problem, text=proof, judgement=Judgement.by_lean(verdict, proof)
        )
        for (problem, proof), verdict in zip(drawn, verdicts, strict=True)
    ]
    feedback = asyncio.run(_feedback(writer, attempts))
    return [
        (problem, note.text, problem.references[0])
        for (problem, _), note in zip(drawn, feedback, strict=True)
        if note.available
    ]


async def _feedback(writer: Writer, attempts: Sequence[Attempt]) -> list[Feedback]:
    """Feedback on each attempt, which stands for a group of its own."""
    groups = await asyncio.gather(*(writer.write([each]) for each in attempts))
    return [note for group in groups for note in group]


def reworded_rows(rows: Sequence[Row], *, copies: int, seed: int) -> list[Row]:
    """Each row `copies` times, variables exchanged and hypotheses reordered at random.

    The theorems stay the same up to renaming, so nothing reaches SFT that the splits
    keep apart.
    """
    rng = random.Random(seed)
    reworded: list[Row] = []
    for problem, feedback, proof in rows:
        for _ in range(copies):
            statement, (note, text) = reword(problem, [feedback or "", proof], rng)
            reworded.append((replace(problem, statement=statement), note or None, text))
    return reworded
