"""Refuse proofs and files that could do more than prove.

The scan reads Lean's tokens, so comments, strings and parts of longer names never
trigger it. It is the first of several walls: the host parses the text again and
applies the same policy to the syntax tree, and a verdict never depends on the scan
alone. `sorry`, `admit` and `stop` pass: giving up is not an attack, and the axioms
show it (REJECTED, not UNSAFE).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from fdjax.lean.facts.answers import misfit
from fdjax.lean.facts.backend import CheckRequest, RunRequest, Submission, WholeFile
from fdjax.lean.facts.commands import DECLARING, METAPROGRAMS, PRINTING, RUNNING
from fdjax.lean.facts.lexer import tokens
from fdjax.lean.facts.policy import LONGEST, POLICY
from fdjax.lean.facts.source import body_of

__all__ = ["refusal", "scan", "scan_file"]

_POISON = frozenset(POLICY.words)
_CODE = _POISON | {"extern", "native", "plausible", "slim_check", "unsafe"}
"""Words that run code or reach outside while elaborating, or that make compiled code
count as a proof. As a part of a longer name the further ones are harmless, as in
`h.native`."""

_THOUSANDS = re.compile(r"\s*[1-9][0-9]{3}")


def scan(proof: str) -> str:
    """Why `proof` may not be elaborated; empty when it may.

    Args:
      proof: tactic text, to be placed after `:= by`.
    """
    return _explained(_refused(proof, _PROOF), proof)


def scan_file(source: str, statement: str = "") -> str:
    """Why a whole Lean file may not be elaborated; empty when it may.

    Args:
      source: the file.
      statement: the problem's own; what copies of it say is trusted.
    """
    copies = _copies(source, statement.strip())
    return _explained(_refused(source, _FILE, copies), WholeFile(source))


def refusal(request: CheckRequest | RunRequest) -> str:
    """Why what is untrusted in a request may not be elaborated; empty when it may."""
    if isinstance(request, RunRequest):
        return scan_file(request.source)
    if isinstance(request.proof, WholeFile):
        return scan_file(body_of(request.proof, request.header), request.statement)
    return scan(request.proof or "")


def _explained(refused: str, submission: Submission) -> str:
    """A refusal behind what explains it, if anything does."""
    reason = misfit(submission) if refused else ""
    return f"{reason} ({refused})" if reason else refused


@dataclass(frozen=True, kw_only=True)
class _Rules:
    """How a scan of a proof and of a file differ."""

    commands: frozenset[str]
    """Words that are refused."""
    hash_commands: frozenset[str]
    """Words that are refused behind `#`."""
    options: tuple[str, ...]
    attributes: frozenset[str]
    """Those allowed in `@[…]`; none in a proof."""

    @property
    def declares(self) -> bool:
        """Whether it is a file's."""
        return bool(self.attributes)


_PROOF = _Rules(
    commands=DECLARING | METAPROGRAMS,
    hash_commands=PRINTING | RUNNING,
    options=POLICY.options,
    attributes=frozenset(),
)
_FILE = _Rules(
    commands=METAPROGRAMS,
    hash_commands=RUNNING,
    options=POLICY.options + POLICY.file_options,
    attributes=frozenset(POLICY.attributes),
)


def _copies(text: str, statement: str) -> dict[int, int]:
    """Where copies of a statement begin and end, each behind a blank."""
    copies: dict[int, int] = {}
    start = text.find(statement) if statement else -1
    while start >= 0:
        if not text[start - 1 : start].strip():
            copies[start] = start + len(statement)
        start = text.find(statement, start + len(statement))
    return copies


def _refused(text: str, rules: _Rules, copies: Mapping[int, int] | None = None) -> str:
    if len(text) > LONGEST:
        return f"the text is longer than {LONGEST} characters"
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        return "the text is not valid Unicode"
    option: str | None = None  # what follows `set_option` so far
    in_attributes = False
    in_imports = True
    previous = ""
    trusted_end = 0
    for kind, token, start in tokens(text):
        if copies and option is None and not in_attributes:
            # A copy counts where it begins with a token: inside of a string or comment
            # it would be something else.
            trusted_end = max(trusted_end, copies.get(start, 0))
        if kind == "comment":
            continue
        if start + len(token) <= trusted_end and kind not in ("ambiguous", "broken"):
            in_imports, previous = False, token if token.strip() else previous
            continue
        if option is not None:
            # A dotted name arrives in pieces and ends at the first other token.
            if not option and token.isspace():
                continue
            if kind in ("word", "field", "name") or token == ".":
                option += token
                continue
            if not _option_allowed(option, rules):
                return f"set_option {option} is not allowed"
            if option in POLICY.raised:
                if token.isspace():
                    continue
                if not _THOUSANDS.match(token):
                    return f"set_option {option} takes 1000 and more"
            option = None
        if "[" in token and previous in ("@", "attribute"):
            in_attributes = True
        if in_attributes and kind in ("word", "name") and _opens_item(previous):
            if token not in rules.attributes:
                return f"the attribute `{token}` is not allowed"
        elif token in ("Lean", "«Lean»") and rules.declares and not in_imports:
            return "`Lean` is not allowed: its namespace is for metaprograms"
        elif refused := _refuse(kind, token, previous, rules):
            return refused
        if in_attributes and "]" in token:
            in_attributes = False
        if token == "set_option":
            option = ""
        if kind == "word" and token != "import" and previous != "import":
            in_imports = False
        if not token.isspace():
            previous = token
    if option is not None and not _option_allowed(option, rules):
        return f"set_option {option} is not allowed"
    return ""


def _opens_item(previous: str) -> bool:
    """Whether the next word in `@[…]` is the name of an attribute."""
    return previous in ("local", "scoped", "-") or previous.rstrip()[-1:] in ("[", ",")


def _refuse(kind: str, token: str, previous: str, rules: _Rules) -> str:
    """Why a token may not follow `previous`; empty when it may."""
    forbidden = f"`{token}` is not allowed"
    if kind == "ambiguous":
        return f"{token} can be read in two ways; put spaces around it"
    if kind == "broken" and rules.declares:
        # Lean goes on somewhere behind its beginning.
        return f"what begins with {token[:2].strip()} has no proper end"
    if kind == "string":
        # In s!"{…}" the braces hold a term, strings and all.
        return "braces in a string are not allowed" if "{" in token else ""
    if kind == "name":
        return forbidden if _is_poison(token[1:-1]) else ""
    if kind == "field":
        return forbidden if _is_poison(token) else ""
    if kind == "word":
        if previous == "#" and token.rstrip("!?") in rules.hash_commands:
            return f"the command `#{token}` is not allowed"
        if token in rules.commands:
            return f"`{token}` begins something that is not allowed"
        return forbidden if token in _CODE or _is_poison(token) else ""
    if previous == "@" and token.startswith("[") and not rules.declares:
        return "attributes are not allowed in a proof"
    if previous == "eval" and token == "%":
        return "`eval%` is not allowed"
    return ""


def _is_poison(name: str) -> bool:
    """Whether a name may not even be a part of a longer one."""
    return name in _POISON or name.startswith(POLICY.reserved)


def _option_allowed(option: str, rules: _Rules) -> bool:
    return any(
        option == allowed or (allowed.endswith(".") and option.startswith(allowed))
        for allowed in rules.options
    )
