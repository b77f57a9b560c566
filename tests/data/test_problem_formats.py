"""Rows in the shapes of public files; their theorems are written here by hand."""

import json

import pytest

from fdjax.data.problems import load_problems, read_problems
from fdjax.errors import DataError
from fdjax.records import Problem

IMPORTS = "import Mathlib\nimport Aesop\n\nset_option maxHeartbeats 0\n\nopen Nat"
WORDS = "Twice a number is even."
TYPE = "(n : ℕ) : Even (2 * n)"

# miniF2F and ProofNet of DeepSeek-Prover-V1.5: datasets/*.jsonl; a blank line at the
# header's end, a doc comment for the words, `by` or nothing behind `:=`.
DEEPSEEK = {
    "name": "twice",
    "split": "valid",
    "informal_prefix": f"/-- {WORDS}-/\n",
    "formal_statement": f"theorem twice {TYPE} :=",
    "goal": "n : ℕ\n⊢ Even (2 * n)",
    "header": f"{IMPORTS}\n\n",
}
# miniF2F of Goedel-Prover-V2: dataset/minif2f.jsonl; everything twice.
GOEDEL = {
    "name": "twice",
    "informal_prefix": f"/-- {WORDS}-/\n",
    "formal_statement": f"{IMPORTS}\n\n/-- {WORDS}-/\ntheorem twice {TYPE} := by\n",
    "split": "test",
    "lean4_code": f"{IMPORTS}\n\n/-- {WORDS}-/\ntheorem twice {TYPE} := by sorry",
    "problem_id": "twice",
}
# MathOlympiadBench, dataset/MOBench.jsonl there: the problem's name is none of Lean's,
# the words are a module's documentation, an answer may stand before the theorem.
OLYMPIAD = {
    "name": "Fdj2026P1",
    "solved": True,
    "tags": ["number theory"],
    "problem_id": "Fdj2026P1",
    "header": f"\n{IMPORTS}\n",
    "informal_prefix": f"/-!\n# Fdjax 2026, Problem 1\n\n{WORDS}\n-/",
    "formal_statement": (
        "abbrev factor : ℕ := 2\n\ntheorem fdj2026_p1 (n : ℕ) : Even (factor * n) := by"
        " sorry"
    ),
    "split": "test",
    "lean4_code": (
        f"\n{IMPORTS}\n\n/-!\n# Fdjax 2026, Problem 1\n\n{WORDS}\n-/\nabbrev factor : ℕ"
        " := 2\n\ntheorem fdj2026_p1 (n : ℕ) : Even (factor * n) := by sorry"
    ),
    "category": "number theory",
}
# NuminaMath-LEAN (AI-MO and project-numina on the Hub): header and words inside.
NUMINA = {
    "uuid": "00000000-0000-0000-0000-000000000000",
    "problem": WORDS,
    "question_type": "proof",
    "answer": "proof",
    "author": "human",
    "formal_statement": (
        f"import Mathlib\n\n/- {WORDS} -/\ntheorem algebra_1 {TYPE} := by sorry"
    ),
    "formal_ground_truth": None,
    "ground_truth_type": "statement",
    "formal_proof": None,
    "rl_data": {"n_correct_proofs": 0, "n_proofs": 0, "win_rate": 0.0},
    "source": "olympiads",
    "problem_type": "Number Theory",
    "exam": None,
}
# Lean-Workbook (internlm on the Hub): two blanks before `by sorry`, no header.
WORKBOOK = {
    "id": "lean_workbook_0",
    "status": "proved",
    "tactic": "simp",
    "state_before": "n : ℕ\n⊢ Even (2 * n)",
    "state_after": "no goals",
    "natural_language_statement": f"{WORDS}\n",
    "answer": "",
    "formal_statement": f"theorem lean_workbook_0 {TYPE}  :=  by sorry",
}
# ProofNet# (PAug on the Hub): a port of ProofNet to Lean 4.
PROOFNET = {
    "id": "Nobody|exercise_1_1",
    "nl_statement": WORDS,
    "nl_proof": "By definition.",
    "lean4_src_header": "import Mathlib\n\nopen Nat\n\n",
    "lean4_formalization": f"theorem exercise_1_1 {TYPE} :=\n  by sorry",
}
# PutnamBench as lean4/scripts/extract_to_json.py writes it: no imports, an answer that
# may be open, and its value in the comment behind.
PUTNAM = {
    "name": "putnam_0000_a1",
    "lean4_statement": (
        "abbrev putnam_0000_a1_solution : ℕ := sorry\n-- 2\n"
        f"/--\n{WORDS}\n-/\ntheorem putnam_0000_a1\n(n : ℕ)\n"
        ": Even (putnam_0000_a1_solution * n) :=\nsorry"
    ),
    "informal_statement": WORDS,
    "informal_solution": "2",
    "tags": ["number_theory"],
    "coq_statement": "null",
    "isabelle_statement": "null",
}
# CombiBench (AI-MO on the Hub), its columns as its repository's configuration has them.
COMBIBENCH = {
    "theorem_name": "hackmath_0",
    "natural_language": WORDS,
    "answer": "",
    "source": "",
    "tag": "hackmath",
    "formal_statement": (
        f"import Mathlib\n\nopen Nat\n\n/--\n{WORDS}\n-/\ntheorem hackmath_0 {TYPE} := "
        "by sorry"
    ),
}


def problem(name: str, **fields: str) -> Problem:
    default = {"statement": f"theorem {name} {TYPE}", "header": IMPORTS}
    return Problem(name=name, informal=WORDS, **default | fields)


READ = [
    ("deepseek", DEEPSEEK, problem("twice", header=f"{IMPORTS}\n\n", family="valid")),
    (
        "goedel",
        GOEDEL,
        problem(
            "twice",
            statement=f"/-- {WORDS}-/\ntheorem twice {TYPE}",
            family="test",
        ),
    ),
    (
        "goedel",
        OLYMPIAD,
        Problem(
            name="fdj2026_p1",
            statement="theorem fdj2026_p1 (n : ℕ) : Even (factor * n)",
            header=f"\n{IMPORTS}\n\nabbrev factor : ℕ := 2",
            informal=f"# Fdjax 2026, Problem 1\n\n{WORDS}",
            family="test",
        ),
    ),
    (
        "numina",
        NUMINA,
        problem(
            "algebra_1",
            statement=f"/- {WORDS} -/\ntheorem algebra_1 {TYPE}",
            header="import Mathlib",
            family="olympiads",
        ),
    ),
    ("lean-workbook", WORKBOOK, problem("lean_workbook_0", header="")),
    (
        "proofnet",
        PROOFNET,
        problem("exercise_1_1", header="import Mathlib\n\nopen Nat\n\n"),
    ),
    (
        "combibench",
        COMBIBENCH,
        problem(
            "hackmath_0",
            statement=f"/--\n{WORDS}\n-/\ntheorem hackmath_0 {TYPE}",
            header="import Mathlib\n\nopen Nat",
        ),
    ),
]


def written(tmp_path, *rows):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("format", "row", "expected"), READ, ids=[case[2].name for case in READ]
)
def test_a_format_is_told_by_its_keys_or_named(tmp_path, format, row, expected):
    path = written(tmp_path, row)
    assert read_problems(path) == [expected]
    assert read_problems(path, format) == [expected]


def test_formats_may_stand_in_one_file(tmp_path):
    rows = [case[1] for case in READ]
    assert read_problems(written(tmp_path, *rows)) == [case[2] for case in READ]


def test_an_open_answer_is_left_out_with_its_reason(tmp_path):
    found = load_problems(written(tmp_path, WORKBOOK, PUTNAM), on_error="skip")
    assert len(found.problems) == 1
    [row] = found.left_out
    assert row.number == 2
    assert "nothing before the theorem that rests on `sorry`" in row.reason
    assert "got abbrev putnam_0000_a1_solution : ℕ := sorry; " in row.reason


def test_an_open_answer_is_filled_in_on_demand(tmp_path):
    found = load_problems(
        written(tmp_path, PUTNAM), with_answers=True, header="import X"
    )
    statement = (
        f"/--\n{WORDS}\n-/\ntheorem putnam_0000_a1\n(n : ℕ)\n"
        ": Even (putnam_0000_a1_solution * n)"
    )
    header = "import X\nabbrev putnam_0000_a1_solution : ℕ := 2"
    assert found.problems == (
        problem("putnam_0000_a1", statement=statement, header=header),
    )


@pytest.mark.parametrize(
    "source",
    [
        "abbrev a : ℕ := sorry",  # nothing says what it is
        "abbrev a : ℕ := sorry\n\n-- 2",  # a comment on something else
        "abbrev a : ℕ := sorry\n--",
        "abbrev a : ℕ := sorry /- 2 -/",
        "abbrev a : ℕ := id sorry -- 2",
        "lemma a : 2 = 2 := sorry\n-- rfl",  # no answer but a proof
        "def a : ℕ := have h : True := sorry -- trivial\n  2",
    ],
)
def test_only_an_answer_with_its_comment_is_filled_in(tmp_path, source):
    row = {"formal_statement": f"{source}\ntheorem t : a = 2 := sorry -- easy"}
    with pytest.raises(DataError, match="rests on `sorry`"):
        load_problems(written(tmp_path, row), with_answers=True)


def test_a_filled_answer_is_what_lean_proves(tmp_path, verifier):
    """Lean's own word: with the answer 2 it is a theorem, with 3 it is none."""
    source = "abbrev a : Nat := sorry -- {}\ntheorem t : 1 + 1 = a := sorry -- open"
    rows = [{"formal_statement": source.format(answer)} for answer in (2, 3)]
    right, wrong = load_problems(written(tmp_path, *rows), with_answers=True).problems
    assert right.header == "abbrev a : Nat := 2"
    verdicts = verifier.verify([(right, "  rfl"), (wrong, "  rfl")])
    assert [verdict.status.value for verdict in verdicts] == ["verified", "rejected"]


@pytest.mark.parametrize(
    ("row", "expected", "got"),
    [
        (
            GOEDEL | {"lean4_code": GOEDEL["lean4_code"].replace("2 * n", "4 * n")},
            "one theorem in `formal_statement` and `lean4_code`",
            "2 * n ) in one where the other has 4 * n )",
        ),
        (
            GOEDEL | {"lean4_code": f"theorem twice {TYPE} := by"},
            "one theorem in `formal_statement` and `lean4_code`",
            "import Mathlib",
        ),
        (
            GOEDEL | {"lean4_code": f"{GOEDEL['formal_statement']}  simp"},
            "a `lean4_code` that ends in `:= by`",
            ":= by",
        ),
        (
            DEEPSEEK | {"informal_stmt": "A number is even."},
            "one text in `informal_prefix` and `informal_stmt`",
            "'Twice a number is even.' and 'A number is even.'",
        ),
        (DEEPSEEK | {"informal_prefix": 3}, "text for `informal_prefix`", "3"),
        (
            DEEPSEEK | {"name": "Twice"},
            "a statement that declares `theorem Twice`",
            "theorem twice (n : ℕ) : Even (2 * n); make `name` and the statement "
            'agree, «» included; where names are of problems, name the format "goedel"',
        ),
        (
            NUMINA | {"natural_language": WORDS},
            "the keys of one format",
            "numina (`problem`) and combibench (`natural_language`); name the format",
        ),
        (
            NUMINA | {"statement": WORDS},
            "the keys of one format",
            "numina (`problem`) and fdjax (`statement`)",
        ),
        (
            # ProofNet's first edition (hoskinson-center on the Hub)
            {
                "id": "Nobody|exercise_1_1",
                "nl_statement": WORDS,
                "formal_statement": "theorem exercise_1_1 (n : ℕ) : even (2 * n) :=",
                "src_header": "import .common\n\nopen_locale nat\n",
            },
            "a statement of Lean 4",
            "`src_header`, with which ProofNet's rows for Lean 3 come",
        ),
        (
            # ProofNet holds definitions, too.
            DEEPSEEK | {"formal_statement": "def twice (n : ℕ) : ℕ :="},
            "a statement that declares a theorem",
            "def twice (n : ℕ) : ℕ :=",
        ),
    ],
)
def test_a_row_that_contradicts_itself_is_an_error(tmp_path, row, expected, got):
    with pytest.raises(DataError) as caught:
        read_problems(written(tmp_path, row))
    message = str(caught.value)
    assert f"line 1: expected {expected}" in message
    assert got in message.partition("got ")[2]


def test_comments_are_no_contradiction(tmp_path):
    code = GOEDEL["lean4_code"].replace(f"/-- {WORDS}-/", "-- twice, you see")
    words = f"{WORDS.replace(' ', chr(10))}"
    row = GOEDEL | {"lean4_code": code, "informal_statement": words}
    assert len(read_problems(written(tmp_path, row))) == 1


def test_a_named_format_settles_what_keys_leave_open(tmp_path):
    path = written(tmp_path, NUMINA | {"natural_language": "Other words."})
    [read] = read_problems(path, "numina")
    assert read.informal == WORDS


def test_a_key_that_holds_null_is_absent(tmp_path):
    row = WORKBOOK | {"problem": None, "statement": None, "name": None}
    assert read_problems(written(tmp_path, row)) == [READ[4][2]]


def test_the_words_are_the_documentation_where_no_key_has_them(tmp_path):
    source = f"/-- {WORDS} -/\n@[simp] theorem t {TYPE} := by"
    [read] = read_problems(written(tmp_path, {"formal_statement": source}))
    assert read.informal == WORDS
    bare = {"formal_statement": f"-- easy\ntheorem t {TYPE} := by"}
    assert read_problems(written(tmp_path, bare))[0].informal == ""


def test_a_header_of_imports_is_for_problems_without_any(tmp_path):
    rows = [WORKBOOK, NUMINA, {"formal_statement": "open Nat\ntheorem t : True := by"}]
    found = load_problems(written(tmp_path, *rows), header="import Mathlib\nopen Real")
    assert [read.header for read in found.problems] == [
        "import Mathlib\nopen Real",
        "import Mathlib",
        "import Mathlib\nopen Real\nopen Nat",
    ]
