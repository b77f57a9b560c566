"""Rows are written here by hand; none comes from a published dataset."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fdjax.data.problems import load_problems, read_problems, write_problems
from fdjax.errors import ConfigError, DataError
from fdjax.records import Problem

OWN = {"name": "swap", "statement": "theorem swap (p q : Prop) (h : p ∧ q) : q ∧ p"}
DEEPSEEK = {
    "name": "double_le",
    "split": "valid",
    "informal_prefix": "/-- Twice a number is at least the number. -/\n",
    "formal_statement": "theorem double_le (n : Nat)\n  : n ≤ n + n := by\n",
    "header": "set_option maxHeartbeats 1000",
}


def write_rows(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_own_row(tmp_path):
    row = OWN | {"references": ["  exact ⟨h.2, h.1⟩"], "family": "logic"}
    path = write_rows(tmp_path / "rows.jsonl", row | {"difficulty": 1})
    assert read_problems(path) == [
        Problem(
            name="swap",
            statement=OWN["statement"],
            references=("  exact ⟨h.2, h.1⟩",),
            family="logic",
            difficulty=1,
        )
    ]


def test_deepseek_row_keeps_the_statement_and_drops_the_rest(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", DEEPSEEK)
    assert read_problems(path) == [
        Problem(
            name="double_le",
            statement="theorem double_le (n : Nat)\n  : n ≤ n + n",
            header="set_option maxHeartbeats 1000",
            informal="Twice a number is at least the number.",
            family="valid",
        )
    ]


@pytest.mark.parametrize(
    "end",
    [":= by", ":=by\n", ":=\n  by", ":=", ":= sorry", ":= by\n  sorry -- TODO\n"],
)
def test_deepseek_statement_may_end_in_several_ways(tmp_path, end):
    row = {"name": "t", "formal_statement": f"theorem t : True {end}"}
    path = write_rows(tmp_path / "rows.jsonl", row)
    assert read_problems(path, "deepseek")[0].statement == "theorem t : True"


@pytest.mark.parametrize(
    ("own", "header"), [("", "{}"), ("open Int", "open Int\n{}"), ("{}\n", "{}")]
)
@pytest.mark.parametrize(
    "before", ["set_option maxHeartbeats 9", "open Nat\ndef f (n : Nat) := n"]
)
def test_what_stands_before_the_theorem_belongs_to_the_header(
    tmp_path, own, header, before
):
    statement = "/-- The theorem. -/\n@[simp] theorem t : True"
    row = {
        "header": own.format(before),
        "formal_statement": f"{before}\n\n{statement} := by sorry",
    }
    [problem] = read_problems(write_rows(tmp_path / "rows.jsonl", row))
    assert problem == Problem(
        name="t",
        statement=statement,
        header=header.format(before),
        informal="The theorem.",
    )


def test_imports_may_come_with_the_theorem(tmp_path):
    source = "import Mathlib\nimport Aesop\nopen Nat\n\ntheorem t : True := by"
    path = write_rows(tmp_path / "rows.jsonl", {"formal_statement": source})
    assert read_problems(path)[0].header == "import Mathlib\nimport Aesop\nopen Nat"


@pytest.mark.parametrize("key", ["statement", "formal_statement"])
@pytest.mark.parametrize("name", ["«a b»", "Foo.«a.b».c'", "αβ₁"])
def test_the_name_is_spelled_as_in_the_statement(tmp_path, key, name):
    about = "/-- This lemma is Theorem 1; the theorem follows. -/\n-- lemma x\n"
    statement = f"{about}theorem {name}.{{u}} (α : Type u) : α = α"
    end = " := by" if key == "formal_statement" else ""
    row = {"name": name, key: statement + end}
    [problem] = read_problems(write_rows(tmp_path / "rows.jsonl", row))
    assert (problem.name, problem.statement) == (name, statement)
    bare = row | {"name": name.replace("«", "").replace("»", "") + "'"}
    with pytest.raises(DataError, match="make `name` and the statement agree, «» incl"):
        read_problems(write_rows(tmp_path / "rows.jsonl", bare))


@pytest.mark.parametrize("key", ["statement", "header", "informal", "references"])
def test_a_lone_surrogate_is_an_error_of_its_row(tmp_path, key):
    texts = {"statement": "theorem t : \ud800", "references": ["  \ud800"]}
    row = OWN | {"name": "t", "statement": "theorem t : True"}
    row |= {key: texts.get(key, "\ud800")}
    path = write_rows(tmp_path / "rows.jsonl", row)
    with pytest.raises(
        DataError, match=r"line 1: expected texts in valid Unicode.*ud800"
    ):
        read_problems(path)


@pytest.mark.parametrize("header", ["open Nat", "open Nat\n", ""])
def test_headers_are_kept_as_they_are(tmp_path, header):
    path = write_rows(
        tmp_path / "rows.jsonl", OWN | {"header": header}, DEEPSEEK | {"header": header}
    )
    assert [problem.header for problem in read_problems(path)] == [header, header]


def test_formats_may_be_mixed_and_blank_lines_are_skipped(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(OWN) + "\n\n" + json.dumps(DEEPSEEK), encoding="utf-8")
    assert [problem.name for problem in read_problems(path)] == ["swap", "double_le"]


def test_line_separator_inside_a_string_does_not_end_the_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    row = OWN | {"references": ["  exact ⟨h.2, h.1⟩ -- \u2028"]}
    path.write_text(json.dumps(row, ensure_ascii=False), encoding="utf-8")
    assert read_problems(path)[0].references == ("  exact ⟨h.2, h.1⟩ -- \u2028",)


@pytest.mark.parametrize(
    ("row", "expected", "got"),
    [
        ({"name": "t"}, "`statement` or `formal_statement`", "['name']"),
        (
            OWN | DEEPSEEK,
            "keys of one format",
            "deepseek (`formal_statement`) and fdjax",
        ),
        ({"statement": "theorem t : True"}, "text for `name`", "nothing"),
        (OWN | {"name": 3}, "text for `name`", "3"),
        (OWN | {"name": ""}, "text for `name`", "''"),
        (OWN | {"statement": " "}, "text for `statement`", "' '"),
        (OWN | {"name": "other"}, "declares `theorem other`", "theorem swap"),
        (OWN | {"references": "simp"}, "list of proofs", "'simp'"),
        (OWN | {"references": [1]}, "list of proofs", "[1]"),
        (OWN | {"difficulty": "2"}, "integer", "'2'"),
        (OWN | {"difficulty": -1}, "integer", "-1"),
        (OWN | {"difficulty": True}, "integer", "True"),
        (
            OWN | {"statement": "theorem swap : True := by"},
            "ends before `:=`",
            ":= by behind it",
        ),
        (
            OWN | {"statement": f"import Std\n{OWN['statement']}"},
            "`statement` of one theorem",
            "import Std before it",
        ),
        (OWN | {"statement": "def swap : Nat"}, "declares a theorem", "def swap"),
        (
            DEEPSEEK | {"formal_statement": "theorem double_le : True"},
            "ends in `:= by`",
            "theorem double_le : True",
        ),
        (
            DEEPSEEK | {"formal_statement": "theorem double_le : True := by trivial"},
            "ends in `:= by` or `:= by sorry`",
            ":= by trivial",
        ),
        (
            DEEPSEEK | {"formal_statement": "theorem : True := by"},
            "declares `theorem double_le`",
            "theorem : True",
        ),
        (DEEPSEEK | {"name": " "}, "text for `name`", "' '"),
        ({"formal_statement": "def f := 1"}, "declares a theorem", "def f := 1"),
        (
            {"formal_statement": "abbrev s : Nat := sorry\ntheorem t : s = 2 := sorry"},
            "nothing before the theorem that rests on `sorry`",
            "abbrev s : Nat := sorry",
        ),
        (
            {
                "header": "open Nat",
                "formal_statement": "import Std\ntheorem t : p := by",
            },
            "imports at the beginning of `header`",
            "import Std in `formal_statement`",
        ),
        (["swap"], "JSON object", "list"),
    ],
)
def test_malformed_row_names_place_expected_and_got(tmp_path, row, expected, got):
    path = write_rows(tmp_path / "rows.jsonl", OWN, row)
    with pytest.raises(DataError) as caught:
        read_problems(path)
    message = str(caught.value)
    assert message.startswith(f"{path}, line 2: expected ")
    assert expected in message
    assert got in message.partition("got ")[2]
    assert "; " in message


def test_broken_json_names_the_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"name": "t", \n', encoding="utf-8")
    with pytest.raises(
        DataError, match=r"line 1: expected a JSON object, got \{\"name"
    ):
        read_problems(path)


def test_a_named_format_is_not_guessed(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", OWN)
    with pytest.raises(DataError, match="text for `formal_statement`, got nothing"):
        read_problems(path, "deepseek")


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"format": "putnm"}, "format to be one of"), ({"on_error": "warn"}, "on_error")],
)
def test_settings_are_checked(tmp_path, setting, message):
    path = write_rows(tmp_path / "rows.jsonl", OWN)
    with pytest.raises(ConfigError, match=message):
        load_problems(path, **setting)


def test_rows_without_a_problem_are_left_out_on_demand(tmp_path):
    path = tmp_path / "rows.jsonl"
    good, bad = json.dumps(OWN), json.dumps(OWN | {"difficulty": -1})
    lines = [good, "", bad, '{"name": "t", ', good, "\udc80", "[1]"]
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match="line 3: expected an integer"):
        read_problems(path)
    found = load_problems(path, on_error="skip")
    assert [problem.name for problem in found.problems] == ["swap", "swap"]
    assert [row.number for row in found.left_out] == [3, 4, 6, 7]
    for row, got in zip(found.left_out, ["-1", "{", "utf-8", "list"], strict=True):
        assert row.reason.startswith(f"{path}, line {row.number}: expected ")
        assert f"got {got}" in row.reason.replace("'", "")


def test_a_file_of_which_nothing_is_left_is_an_error(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", {"name": "t"}, {"name": "u"})
    with pytest.raises(DataError, match=r"got 2 rows that hold none; .*line 1: expec"):
        load_problems(path, on_error="skip")


def test_missing_file_is_a_data_error_with_remedy(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.jsonl.*correct the path"):
        read_problems(tmp_path / "nowhere.jsonl")


def test_wrong_encoding_is_a_data_error(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="UTF-8"):
        read_problems(path)


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_empty_file_is_a_data_error(tmp_path, text):
    path = tmp_path / "rows.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"at least one JSON row.*empty"):
        read_problems(path)


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@given(
    header=words,
    informal=words,
    family=words,
    references=st.lists(words.filter(str.strip), max_size=3),
    difficulty=st.integers(0, 99),
)
def test_written_problems_read_back_equal(
    tmp_path_factory, header, informal, family, references, difficulty
):
    problem = Problem(
        name="t",
        statement="theorem t : True",
        header=header,
        informal=informal,
        family=family,
        references=tuple(references),
        difficulty=difficulty,
    )
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    write_problems([problem, problem], path)
    assert read_problems(path) == [problem, problem]


def test_published_rows_are_understood():
    folder = os.environ.get("FDJAX_TEST_DATA")
    if not folder:
        pytest.skip("FDJAX_TEST_DATA is not set to the folder with minif2f_core.jsonl")
    problems = read_problems(Path(folder) / "minif2f_core.jsonl")
    # 121 is the row count of that file (wc -l).
    assert len(problems) == 121
    assert {problem.family for problem in problems} == {"valid", "test"}
    assert all(p.statement.startswith(f"theorem {p.name}") for p in problems)
    assert not any(p.statement.endswith((":=", "by")) for p in problems)
