"""What policies prefer and write on problems held out: the first run's last probes."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fdjax.plots.held_out import Probes, last_probes

__all__ = ["Answers", "Favourites", "answers", "favourites"]


class Favourites(NamedTuple):
    """The likeliest tokens of a policy, averaged over all positions."""

    policy: str
    """The arm; "base" before any."""
    reader: str
    """student, or teacher: the one who has read feedback."""
    tokens: list[tuple[str, float]]
    """Text and probability, likeliest first."""


class Answers(NamedTuple):
    """First attempts at one problem."""

    problem: str
    """Its name."""
    by: list[tuple[str, str, str]]
    """Policy, reader and attempt."""


def favourites(runs: Sequence[Probes]) -> list[Favourites]:
    """Of the pretrained policy, its teacher, and each arm at its end."""
    return [
        Favourites(
            policy, reader, [(text, likely) for text, likely in row["top_tokens"]]
        )
        for policy, reader, row in _writers(runs)
    ]


def answers(runs: Sequence[Probes]) -> list[Answers]:
    """By the pretrained policy, its teacher, and each arm at its end."""
    writers = _writers(runs)
    problems = writers[0][2].get("examples", {}) if writers else {}
    return [
        Answers(
            problem,
            [
                (policy, reader, row["examples"][problem])
                for policy, reader, row in writers
                if problem in row.get("examples", {})
            ],
        )
        for problem in problems
    ]


def _writers(runs: Sequence[Probes]) -> list[tuple[str, str, Mapping[str, Any]]]:
    """The first run's last probe of each policy, and of the teacher before training."""
    first = runs[:1]
    names = dict.fromkeys(row["policy"] for rows in first for row in rows)
    asked = [("base", "student"), ("base", "teacher")]
    asked += [(policy, "student") for policy in names if policy != "base"]
    return [
        (policy, reader, row)
        for policy, reader in asked
        for row in last_probes(first, policy, reader)
    ]
