"""A problem from Lean source that ends in its theorem, as other provers' rows hold."""

from fdjax.data.rows.answers import fill_answers, open_answer
from fdjax.data.rows.shapes import LEAN_3, Shape
from fdjax.data.rows.words import words
from fdjax.jsonl import Row, shorten
from fdjax.lean.facts.lexer import code, tokens
from fdjax.lean.facts.statement import Theorem, last_theorem
from fdjax.records import Problem

__all__ = ["named_theorem", "problem_of"]


def problem_of(row: Row, shape: Shape, *, with_answers: bool) -> Problem:
    """The problem that a row holds in one of the public formats.

    Args:
      row: of the file.
      shape: where its parts are.
      with_answers: whether to fill in the answers that comments give.

    Raises:
      DataError: the row is not as the shape says, rests on `sorry` before the theorem,
        holds a proof, or says the same thing twice and differently.
    """
    if row.values.get(LEAN_3) is not None:
        raise row.error(
            "a statement of Lean 4",
            f"`{LEAN_3}`, with which ProofNet's rows for Lean 3 come",
            "take a port to Lean 4",
        )
    given = [key for key in shape.sources if row.values.get(key) is not None]
    first, *copies = given or shape.sources[:1]
    theorem = _open_theorem(row, shape, first, with_answers=with_answers)
    header = _joined_header(row, shape, first, theorem.header)
    for key in copies:
        copy = _open_theorem(row, shape, key, with_answers=with_answers)
        _check_copy(row, first, (header, theorem), key, copy)
    return Problem(
        name=theorem.name,
        statement=theorem.statement,
        header=header,
        informal=_informal(row, shape, theorem.statement),
        family=row.text(shape.family) if shape.family else "",
    )


def named_theorem(row: Row, source: str, key: str, *, needs_name: bool) -> Theorem:
    """The last theorem of a source, which has the name that the row gives it.

    Args:
      row: whose error to raise.
      source: Lean text.
      key: under which the row may name the theorem; empty: it does not.
      needs_name: whether it must.

    Raises:
      DataError: there is no theorem, or one of another name or without any.
    """
    is_named = needs_name or (bool(key) and row.values.get(key) is not None)
    name = row.text(key, required=True) if is_named else ""
    theorem = last_theorem(source)
    if theorem is None:
        raise row.error(
            "a statement that declares a theorem",
            shorten(source.strip()),
            "write it as `theorem NAME … : TYPE`",
        )
    if not theorem.name or (is_named and theorem.name != name):
        remedy = f"make `{key}` and the statement agree, «» included"
        if not needs_name:
            remedy += '; where names are of problems, name the format "goedel"'
        raise row.error(
            f"a statement that declares `theorem {name or 'NAME'}`",
            shorten(theorem.statement),
            remedy if is_named else "name the theorem",
        )
    return theorem


def _open_theorem(row: Row, shape: Shape, key: str, *, with_answers: bool) -> Theorem:
    """The theorem under a key, whose proof is left open."""
    source = row.text(key, required=True)
    if with_answers:
        source = fill_answers(source)
    theorem = named_theorem(row, source, shape.name, needs_name=False)
    if not theorem.proof or not theorem.is_open:
        raise row.error(
            f"a `{key}` that ends in `:= by` or `:= by sorry`",
            shorten(theorem.proof or theorem.statement[-40:]),
            "end it there and leave the proof out",
        )
    return theorem


def _joined_header(row: Row, shape: Shape, key: str, inner: str) -> str:
    """The row's header and what stands before the theorem in its source."""
    header = row.text(shape.header) if shape.header else ""
    if opened := open_answer(header) or open_answer(inner):
        raise row.error(
            "nothing before the theorem that rests on `sorry`",
            shorten(opened),
            "fill it in, or pass with_answers=True where a comment behind it does: a "
            "problem is one theorem, and a submission proves that only",
        )
    if not header.strip() or header.strip() == inner.strip():
        return inner
    if any(token.text == "import" for token in code(inner)):
        raise row.error(
            f"imports at the beginning of `{shape.header}`, as there is one",
            f"{shorten(inner.strip())} in `{key}`",
            "move them there",
        )
    return "\n".join(part for part in (header, inner) if part)


def _check_copy(
    row: Row, key: str, read: tuple[str, Theorem], other: str, copy: Theorem
) -> None:
    """Makes sure that a row says the same in two places, comments aside."""
    header, theorem = read
    mine, theirs = (
        [word.text for text in texts for word in words(text)]
        for texts in ((header, theorem.statement), (copy.header, copy.statement))
    )
    if mine == theirs:
        return
    same = next(
        (
            index
            for index, (one, another) in enumerate(zip(mine, theirs, strict=False))
            if one != another
        ),
        min(len(mine), len(theirs)),
    )
    one, another = (" ".join(found[same : same + 6]) for found in (mine, theirs))
    raise row.error(
        f"one theorem in `{key}` and `{other}`",
        f"{one or 'the end'} in one where the other has {another or 'the end'}",
        "keep the one that is meant",
    )


def _informal(row: Row, shape: Shape, statement: str) -> str:
    """The problem in words: the row's own, else the theorem's documentation."""
    texts = {key: _bare(row.text(key)) for key in shape.informal}
    texts = {key: text for key, text in texts.items() if text}
    if len({" ".join(text.split()) for text in texts.values()}) > 1:
        keys = " and ".join(f"`{key}`" for key in texts)
        raise row.error(
            f"one text in {keys}",
            " and ".join(shorten(repr(text)) for text in texts.values()),
            "keep the one that is meant",
        )
    if texts:
        return next(iter(texts.values()))
    documentation = (token.text for token in code(statement) if token.kind == "comment")
    return _bare(next(documentation, ""))


def _bare(text: str) -> str:
    """A text without blanks around it and, if it is one comment of Lean, its marks."""
    text = text.strip()
    if text.startswith("/-") and [token.kind for token in tokens(text)] == ["comment"]:
        text = text.removeprefix("/-").removesuffix("-/")
        text = text[1:] if text[:1] in ("-", "!") else text
    return text.strip()
