"""Tokens of Lean text; what Lean itself makes of such text was tried on Lean 4.28."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fdjax.lean.facts.lexer import code, tokens, without_comments


def words(text):
    return [token.text for token in code(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:=b", ["a", ":=", "b"]),
        ("fun x=>x", ["fun", "x", "=>", "x"]),
        ("h.1.trans x₁'", ["h", ".", "1", ".", "trans", "x₁'"]),
        ("Foo.bar!.«a b».c'", ["Foo.bar!.«a b».c'"]),
        ("foo.{u, v}", ["foo", ".", "{", "u", ",", "v", "}"]),
        ("λx ↦ ∀y, ℕ→ℤ", ["λ", "x", "↦", "∀", "y", ",", "ℕ", "→", "ℤ"]),
        ("αtheorem.theorem", ["αtheorem.theorem"]),
        ("a -- b\nc", ["a", "c"]),
        ("a /- b /- c -/ := -/ d", ["a", "d"]),
        ("a/- b -/c", ["a", "c"]),
        ("/-- a -/ b /-! c -/", ["/-- a -/", "b", "/-! c -/"]),
        ("'(' '\\'' '\"' c", ["'('", "'\\''", "'\"'", "c"]),
        ("h'('x')", ["h'", "(", "'x'", ")"]),
        ("α'('x')", ["α'", "(", "'x'", ")"]),
        ("α'0'0 'b'", ["α'0'0", "'b'"]),
        ('"a\\"-- b" c', ['"a\\"-- b"', "c"]),
        ('r"a\\" r#"b"c"# d', ['r"a\\"', 'r#"b"c"#', "d"]),
        ('αr"a\\"" b', ["αr", '"a\\""', "b"]),
        ('s!"a {f "b" {x := 1}} {c} d" e', ["s!", '"a {f "b" {x := 1}} {c} d"', "e"]),
        ('s!"{s!"{a}"}" b', ["s!", '"{s!"{a}"}"', "b"]),
        ('s!"\\{" b', ["s!", '"\\{"', "b"]),
        ('xs!"{" b', ["xs!", '"{"', "b"]),
        # Of what can be read in two ways the first character is passed over.
        ("{x : Int //-x = 0}", [*"{x:", "Int", *"/-x=0}"]),
        ("a /- b", ["a", "/- b"]),
        ('a "b', ["a", '"b']),
        ("a «b", ["a", "«b"]),
    ],
)
def test_what_lean_parses(text, expected):
    assert words(text) == expected
    assert all(text[t.start : t.end] == t.text for t in code(text))


def test_kinds():
    text = "/-- d -/ x := 'c' \"s"
    kinds = ["comment", "name", "symbol", "string", "broken"]
    assert [token.kind for token in code(text)] == kinds


@given(st.text("ab'\"{}/-«»!sr#.α₁ \n\\0", max_size=60))
def test_any_text_is_read_to_its_end(text):
    pieces = [token for token in tokens(text) if token.kind != "ambiguous"]
    assert all(text[t.start : t.end] == t.text for t in pieces)
    ends = [token.end for token in code(text)]
    assert ends == sorted(ends)
    assert without_comments(text).count("\n") == text.count("\n")


def test_text_without_comments():
    text = 'simp -- a "b"\n/- c\n /- d -/ -/ rfl "-- e" /-- f -/\n/- g'
    assert without_comments(text) == 'simp \n\n rfl "-- e" \n'


def test_where_a_comment_ends():
    def comment(text):
        return next(token for token in tokens(text) if token.text[:1] in "-/")

    assert comment("a -- b\nc").end == 6
    assert comment("/- /- -/ -/ c").end == 11
    assert comment("/- /- -/ c").end == 10


@pytest.mark.parametrize(("letters", "kind"), [(50, "word"), (150, "ambiguous")])
def test_a_name_is_not_read_from_far_away_again_and_again(letters, kind):
    """It may begin with a digit, so what is too far away to see is refused."""
    *_, last = tokens("α" * letters + "b'")
    assert (last.kind, last.text) == (kind, "b'")
