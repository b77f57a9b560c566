"""Our own routes: verdicts, and facts for clients that judge them."""

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response

from fdjax.lean import (
    CheckRequest,
    RawReport,
    RunRequest,
    Status,
    Verdict,
    WorkerDiedError,
    scan_file,
)
from fdjax.lean.backends.wire import (
    CHECK_PATH,
    IDENTITY_PATH,
    CheckAnswer,
    ServerIdentity,
)
from fdjax.lean.facts.scan import refusal
from fdjax.serve.models import VerifyBody, VerifyItem
from fdjax.serve.work import Job, Work

__all__ = ["verdict_routes"]


def verdict_routes(work: Work, *, trust_headers: bool) -> APIRouter:
    """`POST /v1/verify`, `POST /v1/check` and `GET /v1/identity`.

    Args:
      work: where it is done.
      trust_headers: whether headers and statements may hold any Lean code.
    """
    router = APIRouter(tags=["verdicts"])
    verifier = work.verifier

    def fault(problem: VerifyItem | CheckRequest) -> str:
        """Why a header or a statement may not be elaborated here."""
        if trust_headers:
            return ""
        reason = scan_file(f"{problem.header}\n{problem.statement}")
        return reason and f"header or statement: {reason}"

    @router.post("/v1/verify")
    async def verify(body: VerifyBody, request: Request) -> Response:
        def task(job: Job) -> dict[str, Any]:
            verdicts = {
                index: Verdict(
                    status=Status.REJECTED, reason=reason, broken_statement=True
                )
                for index, item in enumerate(body.items)
                if (reason := fault(item))
            }
            refused = len(verdicts)
            sound = [i for i in range(len(body.items)) if i not in verdicts]
            pairs = [(body.items[i].problem, body.items[i].submission) for i in sound]
            found = verifier.verify(
                pairs,
                lambda finished: job.progress(refused + finished),
                broken_statements="reject",
                cancellation=job.cancellation,
            )
            verdicts |= zip(sound, found, strict=True)
            for verdict in verdicts.values():
                seconds = None if verdict.cached else verdict.seconds
                work.metrics.count_item(verdict.status.value, seconds)
            rows = [verdicts[index].to_dict() for index in range(len(verdicts))]
            return {"verdicts": rows}

        return await work.answer(request, len(body.items), task)

    @router.post(CHECK_PATH)
    async def check(body: CheckRequest | RunRequest, request: Request) -> Response:
        _require_limits(body, verifier.limits.wall_s, verifier.limits.output_bytes)

        def task(job: Job) -> dict[str, Any]:
            report, died = _refusal(body, fault), ""
            if report is None:
                try:
                    report = verifier.observe(_own_memory(body), job.cancellation)
                except WorkerDiedError as error:
                    died = str(error)
            seconds = report.seconds if report else None
            work.metrics.count_item("crashed" if died else "observed", seconds)
            answer = CheckAnswer(identity=verifier.identity, report=report, died=died)
            return asdict(answer)

        return await work.answer(request, 1, task)

    @router.get(IDENTITY_PATH)
    async def identity() -> ServerIdentity:
        return ServerIdentity(identity=verifier.identity, limits=verifier.limits)

    def _own_memory(body: CheckRequest | RunRequest) -> CheckRequest | RunRequest:
        # A worker is restarted for another memory size, which is no client's business.
        memory_mb = verifier.limits.memory_mb
        return replace(body, limits=replace(body.limits, memory_mb=memory_mb))

    return router


def _refusal(
    request: CheckRequest | RunRequest, fault: Callable[[CheckRequest], str]
) -> RawReport | None:
    """The report of a text that may not be run; None when it may."""
    if isinstance(request, CheckRequest) and (broken := fault(request)):
        return RawReport(statement_error=broken)
    reason = refusal(request)
    return RawReport(refused=reason) if reason else None


def _require_limits(
    request: CheckRequest | RunRequest, wall_s: float, output_bytes: int
) -> None:
    asked = request.limits
    if asked.wall_s > wall_s or asked.output_bytes > output_bytes:
        raise HTTPException(
            422,
            f"expected limits.wall_s <= {wall_s:g} and limits.output_bytes <= "
            f"{output_bytes} on this server, got {asked.wall_s:g} and "
            f"{asked.output_bytes}; ask for less, or start it with more",
        )
