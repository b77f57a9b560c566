"""The HTTP interface of Kimina Lean Server 2.0: messages, and no verdicts.

Replies have the shape of the community REPL's. Two things differ: text that this
server does not run comes back with an error message, and info trees are refused.
"""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request, Response

from fdjax.lean import Diagnostic, Elaboration
from fdjax.serve.models import CheckBody, LegacyBody
from fdjax.serve.work import Job, Work

__all__ = ["kimina_routes"]

SEVERITIES = {"error": "error", "warning": "warning", "information": "info"}
SORRY_KIND = "hasSorry"
"""What Lean tags the warning about a declaration that uses `sorry` with."""


def kimina_routes(work: Work) -> APIRouter:
    """`POST /api/check` and the older `POST /verify`."""
    router = APIRouter(tags=["kimina"])
    server_id = str(uuid.uuid4())

    def run(texts: Sequence[str], timeout_s: float, job: Job) -> list[dict[str, Any]]:
        """What each text's result holds besides its id."""
        limits = work.verifier.limits
        wall_s = min(timeout_s, limits.wall_s)
        if wall_s <= 0:
            return [_timed_out(timeout_s, server_id) for _ in texts]
        limits = replace(limits, wall_s=wall_s)
        found = work.verifier.elaborate(
            texts, job.progress, limits=limits, cancellation=job.cancellation
        )
        for elaboration in found:
            was_run = elaboration.ended != "unsafe"
            seconds = elaboration.seconds if was_run else None
            work.metrics.count_item(elaboration.ended, seconds)
        return [_result(elaboration, wall_s, server_id) for elaboration in found]

    @router.post("/api/check")
    @router.post("/api/check/", include_in_schema=False)
    async def check(body: CheckBody, request: Request) -> Response:
        def task(job: Job) -> dict[str, Any]:
            texts = [snippet.code for snippet in body.snippets]
            results = run(texts, float(body.timeout), job)
            for result in results:
                if not body.debug and "error" not in result:
                    del result["diagnostics"]
            named = zip(body.snippets, results, strict=True)
            return {"results": [{"id": each.id} | result for each, result in named]}

        return await work.answer(request, len(body.snippets), task)

    @router.post("/verify")
    @router.post("/one_pass_verify_batch", include_in_schema=False)
    async def verify(body: LegacyBody, request: Request) -> Response:
        def task(job: Job) -> dict[str, Any]:
            texts = [code.text for code in body.codes]
            results = run(texts, float(body.timeout), job)
            named = zip(body.codes, results, strict=True)
            rows = [_legacy(str(code.custom_id), result) for code, result in named]
            return {"results": rows}

        return await work.answer(request, len(body.codes), task)

    return router


def _result(elaboration: Elaboration, wall_s: float, server_id: str) -> dict[str, Any]:
    if elaboration.ended == "timeout":
        return _timed_out(wall_s, server_id)
    result: dict[str, Any] = {"time": round(elaboration.seconds, 6)}
    if elaboration.ended in ("memory", "crashed"):
        result["error"] = f"Lean REPL command failed: {elaboration.reason}"
    else:
        result["response"] = _response(elaboration)
    return result | {"diagnostics": {"repl_uuid": server_id}}


def _timed_out(seconds: float, server_id: str) -> dict[str, Any]:
    error = f"Lean REPL command timed out in {seconds} seconds"
    return {
        "time": seconds,
        "error": error,
        "diagnostics": {"repl_uuid": server_id},
    }


def _response(elaboration: Elaboration) -> dict[str, Any]:
    """What the REPL would print, with keys in Kimina's order."""
    messages = [_message(diagnostic) for diagnostic in elaboration.diagnostics]
    # Clients take a reply without errors for a success, so what is not shown here, or
    # was not run, must be an error.
    if elaboration.ended == "unsafe":
        messages.append(_own_error(f"this text is not run: {elaboration.reason}"))
    elif not elaboration.complete:
        messages.append(_own_error("errors or warnings are missing: too much output"))
    sorries = [
        _sorry(diagnostic)
        for diagnostic in elaboration.diagnostics
        if diagnostic.kind == SORRY_KIND
    ]
    response: dict[str, Any] = {"env": 0}
    if messages:
        response["messages"] = messages
    if sorries:
        response["sorries"] = sorries
    return response


def _message(diagnostic: Diagnostic) -> dict[str, Any]:
    message: dict[str, Any] = {
        "severity": SEVERITIES[diagnostic.severity],
        "pos": _start(diagnostic),
    }
    if (end := _end(diagnostic)) is not None:
        message["endPos"] = end
    return message | {"data": diagnostic.text}


def _own_error(text: str) -> dict[str, Any]:
    start = {"line": 1, "column": 0}
    return {"severity": "error", "pos": start, "data": f"fdjax: {text}"}


def _sorry(diagnostic: Diagnostic) -> dict[str, Any]:
    """The declaration that uses `sorry`; where in it, and the goal, is not known."""
    start = _start(diagnostic)
    return {"pos": start, "endPos": _end(diagnostic) or start, "goal": ""}


def _start(diagnostic: Diagnostic) -> dict[str, int]:
    return {"line": diagnostic.line, "column": diagnostic.column}


def _end(diagnostic: Diagnostic) -> dict[str, int] | None:
    if diagnostic.end_line is None or diagnostic.end_column is None:
        return None
    return {"line": diagnostic.end_line, "column": diagnostic.end_column}


def _legacy(custom_id: str, result: dict[str, Any]) -> dict[str, Any]:
    if "error" in result:
        return {"custom_id": custom_id, "error": result["error"]}
    response = result["response"] | {"time": result["time"]}
    return {"custom_id": custom_id, "response": response}
