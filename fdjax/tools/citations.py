"""Which lemmas a file cites, and whether Lean knows them."""

from collections.abc import Iterator
from dataclasses import dataclass

from fdjax.lean import Elaboration
from fdjax.lean.facts.commands import DECLARING
from fdjax.lean.facts.lexer import Token, code

__all__ = ["Citations"]

MOST = 40
"""Names of a file that are looked up."""
_SPACES = frozenset(("open", "namespace"))
_NO_LEMMAS = _SPACES | {"end", "export", "import", "section", "set_option", "universe"}
"""First words of lines whose names are no lemmas."""


@dataclass(frozen=True, kw_only=True)
class Citations:
    """Names in a file that are written like those of lemmas, and how to read each.

    With a dot and a capital letter first, as in `Nat.add_comm`; or with an underscore,
    as in `absurd_of_not`, which may also be the name of a hypothesis. Names that the
    file declares itself are left out.
    """

    readings: dict[str, tuple[str, ...]]
    """For each name what it may stand for, the likeliest first: itself, or the same in
    a namespace of the file."""
    imports: tuple[str, ...]
    """The file's imports, each on one line."""

    @classmethod
    def of(cls, text: str) -> "Citations":
        """The citations of a file, the first of them if there are very many."""
        lines = list(_lines(text))
        spaces = _names(line for line in lines if line[0].text in _SPACES)
        own = set(_declared(lines))
        cited = _names(line for line in lines if line[0].text not in _NO_LEMMAS)
        names = [n for n in cited if n not in own and _like_a_lemma(n)][:MOST]
        return cls(
            readings={
                name: (name, *(f"{s}.{name}" for s in spaces if s[0].isupper()))
                for name in names
            },
            imports=tuple(
                " ".join(token.text for token in line)
                for line in lines
                if line[0].text == "import"
            ),
        )

    @property
    def source(self) -> str:
        """A file that asks Lean for each reading of each name, one a line."""
        asked = (f"#check @{full}" for each in self.readings.values() for full in each)
        return "\n".join([*self.imports, *asked])

    def text(self, found: Elaboration) -> str:
        """What the answers to `source` say of the names.

        A name that might be a hypothesis' is told only where it is a lemma's.
        """
        if found.ended != "done" or not found.complete:
            return "Whether the lemmas that it cites exist could not be looked up."
        wrong = {each.line for each in found.diagnostics if each.severity == "error"}
        line = len(self.imports)
        there: dict[str, None] = {}
        missing: list[str] = []
        for name, readings in self.readings.items():
            known = [
                full for at, full in enumerate(readings, line + 1) if at not in wrong
            ]
            line += len(readings)
            if known:
                there[known[0]] = None
            elif "." in name:
                missing.append(name)
        lines = [f"Cited and known: {', '.join(there) or 'none'}."]
        if missing:
            lines.append(f"Cited, but unknown: {', '.join(missing)}.")
        return "\n".join(lines)


def _like_a_lemma(name: str) -> bool:
    if "«" in name or not name.isascii():
        return False
    return name[0].isupper() if "." in name else "_" in name.strip("_")


def _names(lines: Iterator[list[Token]]) -> list[str]:
    """The names on some lines behind their first words, each once."""
    found = (token.text for line in lines for token in line if token.kind == "name")
    return list(dict.fromkeys(found))


def _declared(lines: list[list[Token]]) -> Iterator[str]:
    """What stands behind the words that declare something."""
    before = ""
    for token in (token for line in lines for token in line):
        if before in DECLARING:
            yield token.text
        before = token.text


def _lines(text: str) -> Iterator[list[Token]]:
    """The code of each line that has some."""
    line: list[Token] = []
    for token in code(text):
        if line and "\n" in text[line[-1].end : token.start]:
            yield line
            line = []
        line.append(token)
    if line:
        yield line
