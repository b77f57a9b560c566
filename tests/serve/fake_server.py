"""`make_app` around a backend that does what the texts say; run as a program.

The one argument is JSON: `server` (fields of `ServeConfig`), `limits`, `workers`,
`identity`, `port`, `broken` (while that file exists, Lean cannot be started).
"""

import json
import re
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

from fdjax.errors import BackendError
from fdjax.lean import (
    FakeBackend,
    Limits,
    RawMessage,
    RawReport,
    RunRequest,
    Verifier,
    WholeFile,
    WorkerDiedError,
)
from fdjax.lean.backends.fake import accepted, rejected
from fdjax.serve import ServeConfig
from fdjax.serve.app import make_app
from fdjax.serve.process import run

settings = json.loads(sys.argv[1])


def text_of(request):
    if isinstance(request, RunRequest):
        return request.source
    proof = request.proof or ""
    return proof.text if isinstance(proof, WholeFile) else proof


def answer(request):
    if Path(settings.get("broken", "/nonexistent")).exists():
        raise BackendError("Lean cannot be started")
    text = text_of(request)
    if found := re.search(r"sleep (\d+)", text):
        time.sleep(int(found[1]) / 1000)
    if "die" in text:
        raise WorkerDiedError("killed")
    if "memory" in text:
        return RawReport(out_of_memory=True)
    if isinstance(request, RunRequest):
        # The text comes back, so that a client sees whose answer it got.
        message = RawMessage(severity="information", line=1, column=0, text=text)
        left_out = "flood" in text
        return RawReport(messages=(message,), left_out=left_out, seconds=0.25)
    if "broken" in request.statement:
        return RawReport(statement_error="the statement does not elaborate")
    limits = request.limits
    shown = f"{limits.wall_s:g} {limits.memory_mb}"
    report = accepted() if "trivial" in text else rejected(shown)
    return replace(report, seconds=0.5)


class Backend(FakeBackend):
    identity = settings.get("identity", "fake")


listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", settings.get("port", 0)))
verifier = Verifier(
    lambda: Backend(answer),
    workers=settings.get("workers", 2),
    limits=Limits(**settings.get("limits", {})),
)
host, port = listener.getsockname()
run(
    make_app(verifier, ServeConfig(**settings.get("server", {}))),
    listener,
    10,
    lambda: print(f"Listening on http://{host}:{port}", flush=True),
)
