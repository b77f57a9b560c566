"""The scan reads tokens: nothing hides from it, and innocent text passes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fdjax.lean import CheckRequest, RunRequest, WholeFile
from fdjax.lean.facts.scan import refusal, scan, scan_file
from fdjax.records import Problem
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


NAMED = 'theorem t (n : Lean.Name) (h : "{" = s!"{1}") : n = n'


@pytest.mark.parametrize("before", ["", "-- a copy\n", "def f := 1\n\n", "section "])
def test_a_copy_of_the_statement_is_not_judged(before):
    assert scan_file(f"{before}{NAMED} := rfl", NAMED) == ""
    assert scan_file(f"{before}{NAMED} := rfl", f"\n{NAMED} ") == ""
    assert scan_file(f"{before}{NAMED} := rfl") != ""


@pytest.mark.parametrize(
    "file",
    [
        f"{NAMED} := Lean.rfl",
        f"def l : Lean.Name := .anonymous\n{NAMED} := rfl",
        f"{NAMED} := rfl\n#eval 1",
        f"{NAMED}.foo unsafe",
        f'{NAMED} := by simp [s!"{{1}}"]',
        f'def f := " {NAMED} := rfl',
        f'def f := s!"{{ {NAMED} }}"',
        f"α{NAMED} := rfl",
        f"@[ {NAMED} := rfl",
        f"set_option {NAMED} := rfl",
        f"/- {NAMED} -/ def f : Lean.Name := .anonymous",
        NAMED.replace("n = n", "n = m") + " := rfl",
    ],
)
def test_what_is_no_copy_or_follows_one_is_judged(file):
    assert scan_file(file, NAMED) != ""


def test_a_statement_about_what_files_may_not_name_can_be_proved(verifier):
    problem = Problem(name="t", statement=NAMED)
    file = WholeFile(f"theorem one : 1 = 1 := rfl\n{NAMED} := by\n  rfl")
    [verdict, proof] = verifier.verify([(problem, file), (problem, "  rfl")])
    assert verdict.verified
    assert proof.verified


def test_a_copy_that_can_be_read_in_two_ways_is_refused():
    statement = "theorem t (α' : Char → p) : α'\"'\" = h"
    assert "can be read in two ways" in scan_file(f"{statement} := h", statement)


def test_refusals_say_what_a_submission_is_instead():
    assert scan("theorem t : p := h").startswith("a whole theorem is given as `proof`")
    assert scan_file("A Lean proof:").endswith(
        "(`Lean` is not allowed: its namespace is for metaprograms)"
    )
    assert scan("  exact unsafe h") == "`unsafe` is not allowed"


@pytest.mark.parametrize(
    ("proof", "refused"),
    [
        (None, ""),
        ("  rfl", ""),
        ("  exact unsafe h", "`unsafe` is not allowed"),
        # The header's own copy is trusted; what follows it is not.
        (WholeFile('macro "m" : tactic => `(tactic| rfl)\n' + f"{NAMED} := rfl"), ""),
        (WholeFile('macro "n" : tactic => `(tactic| rfl)\n' + f"{NAMED} := rfl"), "m"),
    ],
)
def test_what_is_untrusted_in_a_request_is_scanned(proof, refused):
    request = CheckRequest(
        name="t",
        header='macro "m" : tactic => `(tactic| rfl)',
        statement=NAMED,
        proof=proof,
    )
    assert refused in refusal(request)
    assert bool(refused) == bool(refusal(request))
    assert refusal(RunRequest(source="def one := 1")) == ""
    assert refusal(RunRequest(source="#eval 1")) == "the command `#eval` is not allowed"
