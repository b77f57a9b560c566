"""The scan reads tokens: nothing hides from it, and innocent text passes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fdjax.lean.safety import scan
from lean.corpus import FAILURES, GIVING_UP, THEOREMS, UNSAFE


@pytest.mark.parametrize("proof", UNSAFE)
def test_attacks_are_refused(proof):
    assert scan(proof)


@pytest.mark.parametrize("proof", [proof for _, proof in THEOREMS + FAILURES])
def test_honest_proofs_pass(proof):
    assert scan(proof) == ""


@pytest.mark.parametrize("proof", GIVING_UP)
def test_giving_up_is_left_to_the_axioms(proof):
    assert scan(proof) == ""


@pytest.mark.parametrize(
    "proof",
    [
        "  exact h.native",
        "  exact foo.unsafe",
        "  exact h_theorem",
        "  exact notation_free",
        "  simp [defn, axiom_like, macro']",
        "  exact List.prefix_append _ _",
        "  have := (5#8 : BitVec 8)",
        "  exact x#w",
        "  have := #[1, 2, 3]",
        '  have := r#"say "unsafe" twice"#',
        "  have := '\\''",
        "  rcases h with ⟨x, -⟩ | rfl",
    ],
)
def test_parts_of_words_literals_and_comments_pass(proof):
    assert scan(proof) == ""


@pytest.mark.parametrize(
    "option", ["maxHeartbeats", "pp.explicit", "linter.unusedVariables"]
)
def test_harmless_options_pass(option):
    assert scan(f"  set_option {option} 1 in rfl") == ""


@pytest.mark.parametrize("depth", ["1000", "\n  100000", "/- more -/ 4000"])
def test_more_depth_passes(depth):
    assert scan(f"  set_option maxRecDepth {depth} in rfl") == ""


@pytest.mark.parametrize("depth", ["0", "999", "0x3e8", "0000", "x", "(1000)"])
def test_less_depth_is_refused(depth):
    """`exact?` would leave lemmas out of what serves later proofs as well."""
    refused = scan(f"  set_option maxRecDepth {depth} in exact?")
    assert refused.startswith("set_option maxRecDepth")


@pytest.mark.parametrize(
    "option",
    ["", "maxRecDepthX", "pp", "x.pp.all", "«pp».all", "compiler.extract_closed"],
)
def test_other_options_are_refused(option):
    assert scan(f"  set_option {option} true in rfl").startswith("set_option")


@given(
    before=st.sampled_from(
        ["", "-- note\n", "/- /- x -/ -/ ", '"a\\"b" ', "'\\\\' ", "h' "]
    ),
    after=st.sampled_from(["", " -- end", '\n  "z"', " /- open"]),
    word=st.sampled_from(["unsafe", "native_decide", "theorem", "#eval", "run_tac"]),
    gap=st.sampled_from([" ", "\n", "(", "⟨", "[", "·", "←"]),
)
def test_a_banned_word_is_found_after_any_closed_token(before, after, word, gap):
    assert scan(f"  {before}{gap}{word}{after}")


@given(
    word=st.sampled_from(["unsafe", "native_decide", "theorem", "#eval 1", "run_tac"]),
    wrap=st.sampled_from(
        ['"{}"', "/- {} -/", "/- a /- {} -/ b -/", "-- {}\n", "x_{}_y"]
    ),
)
def test_a_banned_word_inside_text_or_a_longer_name_is_none(word, wrap):
    inner = word if "x_" not in wrap else word.removeprefix("#").removesuffix(" 1")
    assert scan("  " + wrap.format(inner)) == ""


@given(st.text(max_size=200))
def test_any_text_is_scanned_to_its_end(proof):
    assert isinstance(scan(proof), str)
