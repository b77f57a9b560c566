"""Problems from a repository that LeanDojo traced, read without LeanDojo.

LeanDojo leaves a syntax tree of every file as XML next to the built file
(`.lake/build/ir/**/*.trace.xml`). Positions in it say where a theorem's statement
ends and what comes before it; the text itself is taken from the Lean file.
"""

import ast
import hashlib
import logging
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import unescape

from fdjax.errors import DataError
from fdjax.records import Problem

__all__ = ["Skipped", "Trace", "TracedTheorem", "read_trace", "traced_problems"]

_log = logging.getLogger(__name__)

BUILD = Path(".lake", "build", "ir")
SUFFIX = ".trace.xml"
LEMMAS = ("MathlibTacticLemmaNode", "LemmaNode")
"""Mathlib's `lemma`, which means `theorem`."""
IN = "Lean.Parser.Command.in"
NONREC = "Lean.Parser.Command.nonrec"


@dataclass(frozen=True, kw_only=True)
class TracedTheorem:
    """A theorem of a traced repository."""

    problem: Problem
    """Header: everything before the theorem in its file, so earlier theorems are at
    hand. Name: as the statement declares it, inside the namespace that the header
    leaves open. References: the repository's proof, where it can be cut out."""
    full_name: str
    """The name with its namespaces, as LeanDojo has it."""
    file: str
    """The Lean file's path below the repository."""
    line: int
    """1-based line of the word `theorem`."""
    premises: tuple[str, ...]
    """Full names of the constants that the proof names, in order of first use."""


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A theorem that is no problem in our form."""

    file: str
    """The Lean file's path below the repository."""
    line: int
    """1-based line where the theorem begins."""
    reason: str
    """Why it was left out."""


@dataclass(frozen=True, kw_only=True)
class Trace:
    """All theorems of a traced repository, its dependencies apart."""

    theorems: tuple[TracedTheorem, ...]
    """Those that became problems: by file, then in source order."""
    skipped: tuple[Skipped, ...]
    """Those that could not, in the same order."""


def traced_problems(path: Path) -> list[Problem]:
    """The problems of `read_trace`; logs how many theorems were left out.

    Args:
      path: root of the traced repository, as `lean_dojo.trace` wrote it.

    Raises:
      DataError: no trace is there, or a file changed after it was traced.
    """
    trace = read_trace(path)
    reasons = Counter(skipped.reason for skipped in trace.skipped)
    if reasons:
        listed = ", ".join(
            f"{count}: {reason}" for reason, count in sorted(reasons.items())
        )
        _log.warning("%s: %d theorems left out (%s)", path, len(trace.skipped), listed)
    return [theorem.problem for theorem in trace.theorems]


def read_trace(path: Path) -> Trace:
    """Cut every theorem of a traced repository into a problem.

    Attributes and `private` or `protected` are dropped: they change what follows the
    theorem, not what it says. `open … in` and its like become part of the header. Left
    out are theorems proved by equations or `where` fields, and inside `mutual`.

    Args:
      path: root of the traced repository, as `lean_dojo.trace` wrote it.

    Raises:
      DataError: no trace is there, or a file changed after it was traced.
    """
    files = sorted((path / BUILD).rglob("*" + SUFFIX))
    if not files:
        raise DataError(
            f"{path}: expected a repository traced by LeanDojo, with {BUILD}/**/*"
            f"{SUFFIX}, got none; run lean_dojo.trace, or pass the folder it wrote."
        )
    theorems: list[TracedTheorem] = []
    skipped: list[Skipped] = []
    for file in files:
        for found in _File(path, file).theorems():
            if isinstance(found, Skipped):
                skipped.append(found)
            else:
                theorems.append(found)
    return Trace(theorems=tuple(theorems), skipped=tuple(skipped))


class _UncuttableError(Exception):
    """Carries the reason why a theorem is left out."""


class _File:
    """One traced file: its syntax tree and its text."""

    def __init__(self, root: Path, trace: Path) -> None:
        relative = trace.relative_to(root / BUILD)
        self.name = relative.with_name(
            relative.name.removesuffix(SUFFIX) + ".lean"
        ).as_posix()
        tree = _parse(trace)
        try:
            source = (root / self.name).read_bytes()
        except FileNotFoundError as error:
            raise DataError(
                f"{trace}: expected the traced file {root / self.name}, which is "
                "missing; pass the root of the whole repository."
            ) from error
        # LeanDojo's own check, not a protection.
        digest = hashlib.md5(source, usedforsecurity=False).hexdigest()
        if tree.get("md5") != digest:
            raise DataError(
                f"{root / self.name}: expected the file that was traced (MD5 "
                f"{tree.get('md5')}), got another ({digest}); trace it again."
            )
        self.commands = list(tree[0])
        self.text = source.decode()
        self.lines = [0]
        for line in self.text.split("\n"):
            self.lines.append(self.lines[-1] + len(line) + 1)

    def theorems(self) -> Iterator[TracedTheorem | Skipped]:
        for command in self.commands:
            header, inner = self._unwrap(command)
            theorem = _theorem_of(inner)
            if theorem is None:
                for other in filter(_is_theorem, command.iter()):
                    yield self._skip(other, "inside another command")
                continue
            try:
                yield self._cut(header, inner, theorem)
            except _UncuttableError as reason:
                yield self._skip(theorem, str(reason))

    def _unwrap(self, command: ElementTree.Element) -> tuple[str, ElementTree.Element]:
        """The source before a command; `c in d` counts as `c` and then `d`."""
        header = self.text[: self._start(command)] if "start" in command.attrib else ""
        while command.get("kind") == IN and len(command) == 3:
            modifier, _, command = command
            header += self._source(modifier) + "\n"
        return header, command

    def _cut(
        self, header: str, command: ElementTree.Element, theorem: ElementTree.Element
    ) -> TracedTheorem:
        keyword, _, _, value = _parts(theorem)
        name = _attribute(theorem, "name")
        if value.tag != "CommandDeclvalsimpleNode":
            raise _UncuttableError("no proof after `:=`")
        assign, proof = value[0], value[1]
        signature = self.text[self._end(keyword) : self._start(assign)].rstrip()
        nonrec = any(node.get("kind") == NONREC for node in command[0].iter())
        # What follows the proof (`where`, `termination_by`) belongs to it as well.
        is_whole = not self.text[self._end(proof) : self._end(theorem)].strip()
        return TracedTheorem(
            problem=Problem(
                name=name,
                header=header,
                statement=("nonrec " if nonrec else "") + "theorem" + signature,
                references=(self._tactics(proof),) if is_whole else (),
                family=self.name,
            ),
            full_name=_attribute(theorem, "full_name") or name,
            file=self.name,
            line=self._line(keyword),
            premises=_premises(value),
        )

    def _tactics(self, proof: ElementTree.Element) -> str:
        """The proof as tactic text."""
        if proof.tag == "TermBytacticNode":
            return self._block(self._end(proof[0]), self._end(proof), "  ")
        term = self._source(proof)
        if "\n" not in term:
            return "  exact " + term
        return "  exact\n" + self._block(self._start(proof), self._end(proof), "    ")

    def _block(self, start: int, end: int, indent: str) -> str:
        """Source moved sideways as a whole, which keeps its columns' order."""
        column = start - (self.text.rfind("\n", 0, start) + 1)
        lines = (" " * column + self.text[start:end]).split("\n")
        while not lines[0].strip():
            del lines[0]
        return textwrap.indent(textwrap.dedent("\n".join(lines)), indent)

    def _skip(self, theorem: ElementTree.Element, reason: str) -> Skipped:
        return Skipped(file=self.name, line=self._line(theorem), reason=reason)

    def _source(self, node: ElementTree.Element) -> str:
        return self.text[self._start(node) : self._end(node)]

    def _start(self, node: ElementTree.Element) -> int:
        return self._offset(node.attrib["start"])

    def _end(self, node: ElementTree.Element) -> int:
        return self._offset(node.attrib["end"])

    def _line(self, node: ElementTree.Element) -> int:
        return ast.literal_eval(node.attrib["start"])[0]

    def _offset(self, position: str) -> int:
        line, column = ast.literal_eval(position)  # both from 1, in code points
        return self.lines[line - 1] + column - 1


def _parse(trace: Path) -> ElementTree.Element:
    try:
        tree = ElementTree.parse(trace).getroot()
    except ElementTree.ParseError as error:
        raise DataError(
            f"{trace}: expected LeanDojo's XML, got {error}; trace the file again."
        ) from error
    if tree.tag != "TracedFile" or not len(tree) or tree[0].tag != "FileNode":
        raise DataError(
            f"{trace}: expected LeanDojo's TracedFile with a FileNode, got {tree.tag}; "
            "trace the file again."
        )
    return tree


def _is_theorem(node: ElementTree.Element) -> bool:
    return node.tag == "CommandTheoremNode" or node.tag in LEMMAS


def _theorem_of(command: ElementTree.Element) -> ElementTree.Element | None:
    """The theorem that a command is, None when it is something else."""
    if command.tag in LEMMAS:
        return command
    if command.tag == "CommandDeclarationNode" and len(command) > 1:
        return command[1] if command[1].tag == "CommandTheoremNode" else None
    return None


def _parts(theorem: ElementTree.Element) -> list[ElementTree.Element]:
    """The keyword, the name, the signature and the value."""
    parts = list(theorem[1] if theorem.tag in LEMMAS else theorem)
    if len(parts) < 4:
        raise _UncuttableError("a tree of another shape")
    return parts[:4]


def _premises(node: ElementTree.Element) -> tuple[str, ...]:
    names = (_attribute(n, "full_name") for n in node.iter("IdentNode"))
    return tuple(dict.fromkeys(name for name in names if name))


def _attribute(node: ElementTree.Element, key: str) -> str:
    """LeanDojo escapes a value before the XML writer does."""
    return unescape(node.get(key, ""), {"&quot;": '"'})
