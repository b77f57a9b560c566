"""A checker inside a Lean session that is seen through messages only.

Our Lean program (see `program`) is elaborated right after a header's imports. It
defines one command under a random name. A submission reaches Lean only as a string in
that command: it is parsed, scanned and elaborated by the program on a copy of the
session's state, so it can neither end a command nor see the nonce. The answer is one
message, `<nonce> {json}`, and nothing else that a session prints is ever believed.
"""

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from fdjax.lean.backends.program import program_text
from fdjax.lean.facts.backend import (
    CheckRequest,
    RawMessage,
    RawReport,
    Request,
    RunRequest,
    WholeFile,
)
from fdjax.lean.facts.lexer import code
from fdjax.lean.facts.policy import POLICY
from fdjax.lean.facts.record import fields_of, report_of

__all__ = [
    "NOT_TEXT",
    "Program",
    "imports_of",
    "is_text",
    "read_record",
    "run_report",
    "trusted_report",
    "without_program",
]

NOT_TEXT = RawReport(refused="text that is not valid Unicode")
"""The report of what `is_text` denies."""

_IMPORTING = frozenset({"all", "import", "meta", "private", "public"})
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_ESCAPED = re.compile(r"[\u0080-\uffff]")


@dataclass(frozen=True, kw_only=True)
class Program:
    """The checker's source and the commands that it understands."""

    word: str = field(default_factory=lambda: f"fdjax_{secrets.token_hex(8)}")
    """What the program's names and its command begin with."""

    def begin(self, source: str) -> str:
        """The imports of a header or a file, and the program."""
        lines = [f"import {module}" for module in imports_of(source)]
        return "\n".join([*lines, program_text("session", self.word)])

    def header(self, source: str, nonce: str) -> str:
        """The command that elaborates a header; the session goes on from it."""
        return self._command(verb="header", nonce=nonce, header=source)

    def statement(self, request: CheckRequest, nonce: str) -> str:
        """The command that keeps the type of a trusted statement in the session."""
        fields = fields_of(request)
        trusted = {key: fields[key] for key in ("name", "statement", "opening")}
        return self._command(verb="statement", nonce=nonce, **trusted)

    def check(self, request: Request, nonce: str) -> str:
        """The command that elaborates a submission; the session stays as it was."""
        fields = fields_of(request)
        for in_session in ("header", "statement"):
            fields.pop(in_session, None)
        return self._command(verb="check", nonce=nonce, policy=asdict(POLICY), **fields)

    def _command(self, **fields: Any) -> str:
        # Printable text on one line, whatever it is about: no reader on the way may
        # take a character for a line's end. Lean's JSON reader knows no surrogate
        # pairs, so what lies beyond \uffff stays as it is.
        text = json.dumps(fields, ensure_ascii=False)
        text = _ESCAPED.sub(lambda match: f"\\u{ord(match.group()):04x}", text)
        literal = text.replace("\\", "\\\\").replace('"', '\\"')
        return f'{self.word} "{literal}"'


def imports_of(source: str) -> tuple[str, ...]:
    """The modules that a file's header names, in order, and `Lean` for our program.

    `Init` is left out: it comes with any other. Lean reads the header again, so a
    module missing here is an error there.
    """
    modules = []
    is_named = False
    for token in code(source):
        if token.text in _IMPORTING:
            is_named = is_named or token.text == "import"
        elif is_named and token.kind == "name" and len(token.text.splitlines()) == 1:
            modules.append(token.text)
            is_named = False
        else:
            break
    named = dict.fromkeys([*modules, "Lean"])
    return tuple(module for module in named if module != "Init")


def is_text(request: Request) -> bool:
    """Whether what is untrusted can be sent at all: valid Unicode."""
    if isinstance(request, RunRequest):
        text = request.source
    elif isinstance(request.proof, WholeFile):
        text = request.proof.text
    else:
        text = request.proof or ""
    return not _SURROGATE.search(text)


def read_record(reply: Mapping[str, Any], nonce: str) -> dict[str, Any] | None:
    """What the program answered under `nonce`; None when it did not."""
    for message in reply.get("messages") or ():
        found, _, record = message["data"].partition(" ")
        if found == nonce:
            return json.loads(record)
    return None


def without_program(source: str, reply: Mapping[str, Any]) -> dict[str, Any]:
    """The record about a header after which our program does not answer.

    Args:
      source: the header.
      reply: the answer to its imports and our program.
    """
    errors = [
        message["data"]
        for message in reply.get("messages") or ()
        if message["severity"] == "error"
    ]
    reason = f"cannot import {', '.join(imports_of(source))}"
    said = f" ({errors[0][:500]})" if errors else ""
    return {"statement_error": f"the header does not elaborate: {reason}{said}"}


def trusted_report(
    record: Mapping[str, Any], *, is_header: bool = False
) -> RawReport | None:
    """What is wrong with a statement, or with a header; None when nothing."""
    report = report_of(record)
    return replace(report, in_header=is_header) if report.statement_error else None


def run_report(report: RawReport) -> RawReport:
    """The same about a bare file, which has no statement: an error of its own."""
    message = RawMessage(
        severity="error", line=1, column=0, text=report.statement_error
    )
    return RawReport(has_errors=True, messages=(message,))
