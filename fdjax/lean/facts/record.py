"""Requests and reports as JSON, as every checker of ours reads and writes them."""

from collections.abc import Mapping
from typing import Any

from fdjax.lean.facts.backend import (
    RawMessage,
    RawReport,
    Request,
    RunRequest,
    Target,
    WholeFile,
)
from fdjax.lean.facts.source import alone, opening_of, source_of

__all__ = ["fields_of", "report_of"]

_KINDS = {type(None): "statement", str: "proof", WholeFile: "file"}


def fields_of(request: Request) -> dict[str, Any]:
    """What a checker is told.

    `source` is what it elaborates: statement and proof, or a file. `statement` ends in
    our own `:= sorry`; there, and in a proof's source, our `:=` begins at byte
    `opening`.
    """
    fields: dict[str, Any] = {
        "heartbeats": request.limits.heartbeats,
        "wall_ms": round(request.limits.wall_s * 1000),
        "output_bytes": request.limits.output_bytes,
    }
    if isinstance(request, RunRequest):
        return fields | {"kind": "run", "source": request.source}
    return fields | {
        "kind": _KINDS[type(request.proof)],
        "name": request.name,
        "header": request.header,
        "statement": alone(request.statement),
        "opening": opening_of(request.statement),
        "source": source_of(request).text,
    }


def report_of(record: Mapping[str, Any]) -> RawReport:
    """What a checker says; a fact that it leaves out is not so.

    Messages come in source order, though a checker prints them by importance.
    """
    target = record.get("target")
    messages = [RawMessage(**message) for message in record.get("messages", ())]
    return RawReport(
        statement_error=record.get("statement_error", ""),
        in_header=record.get("in_header", False),
        no_proof=record.get("no_proof", False),
        has_errors=record.get("has_errors", False),
        messages=tuple(sorted(messages, key=lambda message: message.start)),
        left_out=record.get("left_out", False),
        timed_out=record.get("timed_out", False),
        refused=record.get("refused", ""),
        left_proof=record.get("left_proof", False),
        target=target
        and Target(
            is_theorem=target["is_theorem"],
            matches_statement=target["matches_statement"],
            axioms=tuple(target["axioms"]),
        ),
        seconds=record.get("seconds", 0.0),
    )
