"""A compiled TPU program as its compiler prints it: operations and their buffers.

The text of `jax.stages.Compiled.as_text()` says of each array in which memory it lies
and how it is laid out there, and of most operations how many cycles are expected.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

__all__ = ["Buffer", "Operation", "Program", "Run", "Update"]

_UNKNOWN = 2**63 - 1
"""The compiler's word for cycles that it cannot estimate."""

_BITS = {"pred": 8, "token": 0, "opaque": 0}
"""Types whose name does not say how wide they are."""

_UPDATES = {"dynamic-update-slice": 1, "scatter": 2}
"""Operations that change some of their first operand, and which operand is new."""

_INNERMOST = {
    *("all-reduce", "all-reduce-start", "reduce-scatter", "reduce", "reduce-window"),
    *("scatter", "select-and-scatter", "sort", "map", "custom-call"),
}
"""Operations that apply a computation to single elements."""

_BEGINS = re.compile(r"\s+(?:ROOT )?%?[\w.\-]+ = |(?:ENTRY )?%?[\w.\-]+ \(.*\{$")
_CLOSED = re.compile(r"\}(?:\s|$)")
_BUFFER = re.compile(r"\b([a-z]\w*)\[([\d,]*)\](?:\{([^}]*)\})?")


@dataclass(frozen=True)
class Buffer:
    """An array as it lies in a memory."""

    dtype: str
    dims: tuple[int, ...]
    size: int
    """Bytes, filled up to whole tiles."""
    space: int
    """0 for the chip's large memory (HBM), 1 for that beside its cores (VMEM)."""

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.dims))}]"


@dataclass(frozen=True)
class Operation:
    """A line of the program."""

    name: str
    opcode: str
    outputs: tuple[Buffer, ...]
    """A tuple's leaves, in order."""
    operands: tuple[str, ...]
    text: str
    root: bool = False

    def named(self, attribute: str) -> str | None:
        """Another computation that this one refers to, such as a loop's `body`."""
        found = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.text)
        return found[1] if found else None

    @property
    def called(self) -> tuple[str, ...]:
        """Computations that are executed with it; not those that add two numbers."""
        if self.opcode in _INNERMOST:
            return ()
        found = re.findall(
            r"\b(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.\-]+)",
            self.text,
        )
        if branches := re.search(r"branch_computations=\{([^}]*)\}", self.text):
            found += re.findall(r"%?([\w.\-]+)", branches[1])
        return tuple(found)

    @property
    def number(self) -> int:
        """Index of a parameter, or of what is taken from a tuple."""
        pattern = (
            r"parameter\((\d+)\)" if self.opcode == "parameter" else r"index=(\d+)"
        )
        found = re.search(pattern, self.text)
        assert found is not None
        return int(found[1])

    @property
    def cycles(self) -> int | None:
        """That the compiler expects, or None where it says nothing."""
        found = re.search(r'"estimated_cycles":"(\d+)"', self.text)
        return int(found[1]) if found and int(found[1]) != _UNKNOWN else None


@dataclass(frozen=True)
class Update:
    """A result that is an operand, changed in place."""

    place: int
    """Of the operand."""
    size: int
    """Bytes that are new."""


@dataclass(frozen=True)
class Run:
    """An operation, and how often it is executed."""

    computation: str
    operation: Operation
    times: int


@dataclass(frozen=True)
class Program:
    """Operations by name, for each computation."""

    computations: dict[str, dict[str, Operation]]
    entry: str

    @classmethod
    def parse(cls, text: str) -> "Program":
        """From `Compiled.as_text()`.

        Raises:
          ValueError: a line is none of the form that is known here.
        """
        computations: dict[str, dict[str, Operation]] = {}
        entry, current = "", None
        for line in _lines(text):
            if opened := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line):
                current = computations.setdefault(opened[2], {})
                entry = opened[2] if opened[1] else entry
            elif _CLOSED.match(line):
                current = None
            elif current is not None and line.strip():
                operation = _operation(line.strip())
                current[operation.name] = operation
        if not entry:
            raise ValueError("expected the text of a compiled program, got no ENTRY")
        return cls(computations, entry)

    def root(self, computation: str) -> Operation:
        """The operation whose result is the computation's."""
        operations = self.computations[computation].values()
        return next(operation for operation in operations if operation.root)

    def open_loop(self) -> Operation:
        """The entry's one loop whose turns nobody knows beforehand.

        Raises:
          ValueError: there is none, or more than one.
        """
        loops = [
            operation
            for operation in self.computations[self.entry].values()
            if operation.opcode == "while" and self.turns(operation) is None
        ]
        if len(loops) != 1:
            raise ValueError(f"expected one loop of unknown turns, got {len(loops)}")
        return loops[0]

    def turns(self, loop: Operation) -> int | None:
        """Of a loop that counts from zero to a constant; None for any other."""
        if said := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.text):
            return int(said[1])
        condition = self.computations[loop.named("condition") or ""]
        root = next(operation for operation in condition.values() if operation.root)
        if root.opcode != "compare" or "direction=LT" not in root.text:
            return None
        bound = condition.get(root.operands[1])
        found = bound and re.search(r"constant\((\d+)\)", bound.text)
        return int(found[1]) if found else None

    def runs(self, computation: str, times: int = 1) -> Iterator[Run]:
        """All operations of a computation, those of loops in it as often as they run.

        A loop of unknown turns is left out: see `open_loop`.

        Raises:
          ValueError: it branches.
        """
        for operation in self.computations[computation].values():
            if operation.opcode in ("conditional", "call"):
                raise ValueError(f"{operation.opcode} {operation.name} is not counted")
            if operation.opcode != "while":
                yield Run(computation, operation, times)
            elif turns := self.turns(operation):
                body = operation.named("body")
                assert body is not None
                yield from self.runs(body, times * turns)

    def update(
        self, computation: str, operation: Operation, result: int = 0
    ) -> Update | None:
        """Whether a result of an operation is one of its operands, changed in place.

        Args:
          computation: that the operation stands in.
          operation: a fusion, or what does so by its nature.
          result: its index.
        """
        known = self.computations[computation]
        if operation.opcode in _UPDATES:
            new = known[operation.operands[_UPDATES[operation.opcode]]]
            return Update(0, new.outputs[0].size)
        called = operation.named("calls")
        if operation.opcode != "fusion" or called is None:
            return None
        inside, root = self.computations[called], self.root(called)
        if root.opcode == "tuple":
            root = inside[root.operands[result]]
        root = _unwrapped(inside, root)
        found = self.update(called, root)
        if found is None:
            return None
        held = _unwrapped(inside, inside[root.operands[found.place]])
        return Update(held.number, found.size) if held.opcode == "parameter" else None

    def origin(self, computation: str, name: str) -> str:
        """The argument of the program that a buffer is, or was copied from.

        Through updates in place, and through loops; "" for anything computed.
        """
        operation = self.computations[computation][name]
        match operation.opcode:
            case "parameter" if computation == self.entry:
                found = re.search(r'op_name="([^"]*)"', operation.text)
                return found[1].replace("\\'", "'") if found else ""
            case "bitcast" | "copy" | "copy-start" | "copy-done":
                return self.origin(computation, operation.operands[0])
            case "get-tuple-element":
                return self._element(computation, operation)
        if found := self.update(computation, operation):
            return self.origin(computation, operation.operands[found.place])
        return ""

    def _element(self, computation: str, operation: Operation) -> str:
        source = self.computations[computation][operation.operands[0]]
        if source.opcode == "parameter" and computation in self._callers:
            computation, source = self._callers[computation]
        if source.opcode == "while":
            source = self.computations[computation][source.operands[0]]
        if source.opcode != "tuple":
            return ""
        return self.origin(computation, source.operands[operation.number])

    @cached_property
    def _callers(self) -> dict[str, tuple[str, Operation]]:
        """Where each loop's body is called."""
        return {
            body: (computation, operation)
            for computation, operations in self.computations.items()
            for operation in operations.values()
            if operation.opcode == "while" and (body := operation.named("body"))
        }


def _unwrapped(known: dict[str, Operation], operation: Operation) -> Operation:
    """The operation that a bitcast is another name of."""
    while operation.opcode == "bitcast":
        operation = known[operation.operands[0]]
    return operation


def _lines(text: str) -> Iterator[str]:
    """Lines, those that go on in the next, as a kernel's metadata do, as one."""
    whole = ""
    for line in text.splitlines():
        inside = whole.startswith(" ")
        if not inside or _BEGINS.match(line) or _CLOSED.match(line):
            if whole:
                yield whole
            whole = line
        else:
            whole += f" {line}"
    if whole:
        yield whole


def _operation(line: str) -> Operation:
    root = line.startswith("ROOT ")
    name, equals, rest = line.removeprefix("ROOT ").partition(" = ")
    shape = _closed(rest) if rest.startswith("(") else rest.partition(" ")[0]
    found = re.match(r" ([a-z][\w\-]*)\(", rest[len(shape) :])
    if not equals or found is None:
        raise ValueError(f"expected an operation, got {line[:200]!r}")
    operands = _closed(rest[len(shape) + found.end() - 1 :])
    return Operation(
        name=name.removeprefix("%"),
        opcode=found[1],
        outputs=tuple(_buffer(*groups) for groups in _BUFFER.findall(shape)),
        operands=tuple(re.findall(r"%([\w.\-]+)", operands)),
        text=rest,
        root=root,
    )


def _closed(text: str) -> str:
    """From an opening parenthesis to the one that closes it."""
    depth = 0
    for index, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[: index + 1]
    raise ValueError(f"expected a closing parenthesis in {text[:200]!r}")


def _buffer(dtype: str, dims: str, layout: str) -> Buffer:
    sizes = [int(size) for size in dims.split(",") if size]
    order, _, rest = layout.partition(":")
    # From the slowest to the fastest; tiles cover the fastest ones.
    physical = (
        [sizes[int(axis)] for axis in reversed(order.split(","))] if order else []
    )
    if sizes and (tile := re.match(r"T\(([\d,]+)\)", rest)):
        tiles = [int(size) for size in tile[1].split(",")]
        for axis, size in enumerate(reversed(tiles), start=1):
            if axis <= len(physical):
                physical[-axis] += -physical[-axis] % size
    bits = (
        _BITS.get(dtype)
        if dtype in _BITS
        else int(re.sub(r"^\D*(\d+).*", r"\1", dtype))
    )
    assert bits is not None
    space = re.search(r"S\((\d+)\)", rest)
    return Buffer(
        dtype=dtype,
        dims=tuple(sizes),
        size=math.prod(physical or sizes) * bits // 8,
        space=int(space[1]) if space else 0,
    )
