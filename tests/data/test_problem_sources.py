"""Files, folders and datasets; `datasets` itself is an extra, its tests need it."""

import json
import sys

import pytest

from fdjax.data.problems import load_problems, read_problems
from fdjax.errors import ConfigError, DataError, InstallError
from fdjax.records import Problem

ROWS = [
    {"name": f"t{number}", "formal_statement": f"theorem t{number} : True := by"}
    for number in range(3)
]
READ = tuple(Problem(name=f"t{n}", statement=f"theorem t{n} : True") for n in range(3))
LEAN = "import Mathlib\r\n\n/-- Words. -/\ntheorem {} : True := by sorry\n"


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("start", ["", "\ufeff", "\n\n ", "\ufeff\n"])
def test_an_array_is_read_like_lines(tmp_path, indent, start):
    path = tmp_path / "rows.json"
    path.write_text(start + json.dumps(ROWS, indent=indent) + "\n", encoding="utf-8")
    assert load_problems(path).problems == READ


def test_lines_are_read_whatever_the_file_is_called(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text("\ufeff" + "\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    assert load_problems(path).problems == READ


def test_items_of_an_array_are_left_out_by_number(tmp_path):
    path = tmp_path / "rows.json"
    text = ", ".join([json.dumps(ROWS[0]), '{"a": 1, "a": 2}', "3", '"["', "{}"])
    path.write_text(f"[{text}]")
    found = load_problems(path, on_error="skip")
    assert found.problems == READ[:1]
    assert [row.number for row in found.left_out] == [2, 3, 4, 5]
    for row, got in zip(
        found.left_out, ["`a` more than", "int", "str", "the keys []"], strict=True
    ):
        assert row.reason.startswith(f"{path}, item {row.number}: expected ")
        assert f"got {got}" in row.reason


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('[{"a": 1}', "item 2: expected an array of JSON objects, got the end of the"),
        ('[{"a": 1', "item 1"),
        ('[{"a": 1} {"a": 2}]', "item 2"),
        ('[{"a": 1}] []', "item 2"),
        ("[" * 10_000, "item 1"),
    ],
)
def test_a_damaged_array_is_an_error_in_any_case(tmp_path, text, place):
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(DataError, match=f"rows.json, {place}.*; write the file again"):
        load_problems(path, on_error="skip")


def test_an_array_in_another_encoding_is_an_error(tmp_path):
    path = tmp_path / "rows.json"
    path.write_bytes(b'["\xff"]')
    with pytest.raises(DataError, match="expected UTF-8, got"):
        load_problems(path)


def test_an_empty_array_is_an_error(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text("[]")
    with pytest.raises(DataError, match="at least one JSON row"):
        load_problems(path)


def test_lean_files_are_problems(tmp_path):
    """As PutnamBench and CombiBench keep them: one theorem a file, the rest before."""
    (tmp_path / "b.lean").write_text(LEAN.format("b"), newline="")
    (tmp_path / "a.lean").write_text("\ufeff" + LEAN.format("a"), newline="")
    (tmp_path / "c.lean").write_bytes(b"theorem c : True := \xff")
    (tmp_path / "d.lean").write_text("def d := 1")
    (tmp_path / "notes.txt").write_text("no Lean")
    (tmp_path / "with_solution").mkdir()
    found = load_problems(tmp_path, on_error="skip")
    assert found.problems == tuple(
        Problem(
            name=name,
            statement=f"/-- Words. -/\ntheorem {name} : True",
            header="import Mathlib",
            informal="Words.",
        )
        for name in "ab"
    )
    assert [row.number for row in found.left_out] == [3, 4]
    assert f"{tmp_path / 'c.lean'}: expected UTF-8" in found.left_out[0].reason
    assert f"{tmp_path / 'd.lean'}: expected a stat" in found.left_out[1].reason
    assert read_problems(tmp_path / "a.lean") == list(found.problems[:1])


def test_lean_files_have_no_format(tmp_path):
    with pytest.raises(
        ConfigError, match=r"no format for the Lean files .* got putnam"
    ):
        load_problems(tmp_path, "putnam")
    with pytest.raises(DataError, match=r"Lean files in the folder .*, got none"):
        load_problems(tmp_path)


@pytest.mark.parametrize("name", ["rows.parquet", "rows.arrow"])
def test_the_extra_is_named_where_it_is_missing(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, "datasets", None)
    message = r"pip install fdjax\[datasets\]"
    with pytest.raises(InstallError, match=message):
        load_problems(tmp_path / name)
    with pytest.raises(InstallError, match=message):
        load_problems("somebody/problems", split="train")


@pytest.mark.parametrize("setting", ["config", "revision"])
@pytest.mark.parametrize(("name", "split"), [("x.jsonl", None), ("x.parquet", "train")])
def test_what_is_said_of_a_dataset_needs_one(tmp_path, setting, name, split):
    with pytest.raises(ConfigError, match="a dataset that is loaded by its name"):
        load_problems(tmp_path / name, split=split, **{setting: "v1"})


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    """The package, offline, with its cache in the test's folder."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    module = pytest.importorskip("datasets", reason="needs fdjax[datasets]")
    monkeypatch.setattr(module.config, "HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr(module.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    module.disable_progress_bars()
    return module


@pytest.fixture
def parquet(datasets, tmp_path):
    """Three problems, a row without one, and columns that JSON cannot hold."""
    rows = [*ROWS, {"name": "t3", "formal_statement": None}]
    return as_parquet(
        tmp_path, [{**row, "split": None, "raw": b"\xff"} for row in rows]
    )


def as_parquet(folder, rows):
    import pyarrow
    import pyarrow.parquet

    path = folder / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def test_parquet_is_read_by_rows(parquet):
    found = load_problems(parquet, on_error="skip")
    assert found.problems == READ
    [row] = found.left_out
    assert (row.number, row.reason.partition(": ")[0]) == (4, f"{parquet}, row 4")
    assert load_problems(str(parquet), split="train[1:3]").problems == READ[1:]


def test_columns_of_nulls_are_absent(datasets, tmp_path):
    own = {"name": "t0", "statement": "theorem t0 : True", "difficulty": 1}
    nulls = dict.fromkeys(["name", "statement", "difficulty", "src_header"])
    rows = [
        own | {"formal_statement": None, "src_header": None},
        nulls | {"formal_statement": "theorem t1 : True := by"},
        own | {"difficulty": None, "src_header": None},
        nulls | {"formal_statement": "theorem t3 : true :=", "src_header": "import x"},
    ]
    found = load_problems(as_parquet(tmp_path, rows), on_error="skip")
    assert [problem.name for problem in found.problems] == ["t0", "t1", "t0"]
    assert [problem.difficulty for problem in found.problems] == [1, 0, 0]
    [row] = found.left_out
    assert "row 4: expected a statement of Lean 4" in row.reason


def test_saved_datasets_are_read(datasets, parquet, tmp_path):
    files = str(parquet)
    table = datasets.load_dataset("parquet", data_files=files, split="train")
    table.select(range(3)).save_to_disk(tmp_path / "one")
    assert load_problems(tmp_path / "one").problems == READ
    with pytest.raises(DataError, match="one without splits, asked for train"):
        load_problems(tmp_path / "one", split="train")
    splits = {"train": table.select([0]), "test": table.select([1])}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "two")
    assert load_problems(tmp_path / "two", split="test").problems == READ[1:2]
    with pytest.raises(DataError, match=r"one split of .*, got train, test; name one"):
        load_problems(tmp_path / "two")
    with pytest.raises(DataError, match=r"a dataset at .*, got KeyError"):
        load_problems(tmp_path / "two", split="valid")


def test_a_split_is_read_as_the_package_reads_it(datasets, tmp_path):
    folder = tmp_path / "published"
    folder.mkdir()
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    (folder / "train.jsonl").write_text(lines)
    assert load_problems(folder, split="train").problems == READ
    with pytest.raises(DataError, match=r"a dataset at somebody/problems, got "):
        load_problems("somebody/problems", split="train")


def test_a_dataset_of_something_else_says_which_columns_it_has(datasets, tmp_path):
    path = as_parquet(tmp_path, [{"text": "x"}])
    with pytest.raises(DataError, match=r"columns that a format knows, got \['text'\]"):
        load_problems(path)
