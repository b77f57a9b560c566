import json
import resource
import subprocess
import sys
from contextlib import contextmanager

import pytest

from fdjax.errors import DataError
from fdjax.lean import Problem, Status, Verdict
from fdjax.lean.facts.backend import WholeFile
from fdjax.verify.rows import (
    SubmissionRow,
    VerdictFile,
    iterate_submissions,
    line_of,
)

ROW = {"name": "t", "statement": "theorem t : True", "proof": "  trivial"}


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def row(**changes):
    """`ROW` with changes; None takes a key away."""
    return {k: v for k, v in {**ROW, **changes}.items() if v is not None}


def submission(number):
    problem = Problem(name="t", statement="theorem t : True")
    return SubmissionRow(problem=problem, submission=f"  trivial -- {number}")


def verdict(number, status=Status.VERIFIED):
    return Verdict(status=status, axioms=("propext",), seconds=float(number))


@pytest.fixture
def three(tmp_path):
    """A file with the verdicts on three submissions."""
    path = tmp_path / "out.jsonl"
    with VerdictFile(path) as file:
        for number in (1, 2, 3):
            file.append(submission(number), verdict(number))
    return path


# ---- rows in


def test_proofs_and_whole_files(tmp_path):
    path = write(
        tmp_path / "in.jsonl",
        row(header="open Nat", source_dataset="mine", extra=[1]),
        row(header=None, proof=""),
        row(proof=None, source="theorem t : True := trivial"),
        {**ROW, "source": None, "header": None},
        {**ROW, "proof": None, "source": "theorem t : True := trivial"},
    )
    whole = WholeFile("theorem t : True := trivial")
    problem = Problem(name="t", statement="theorem t : True", header="open Nat")
    bare = Problem(name="t", statement="theorem t : True")
    assert list(iterate_submissions(path)) == [
        SubmissionRow(problem=problem, submission="  trivial"),
        SubmissionRow(problem=bare, submission=""),
        SubmissionRow(problem=bare, submission=whole),
        SubmissionRow(problem=bare, submission="  trivial"),
        SubmissionRow(problem=bare, submission=whole),
    ]


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (row(name=None), "text for `name`, got nothing"),
        (row(name=" "), "text for `name`, got ' '"),
        (row(statement=None), "text for `statement`, got nothing"),
        (row(statement="theorem t : True := by"), "ends before `:=`"),
        (row(statement="theorem t : True := by simp -- easy"), "ends before `:=`"),
        (
            row(statement="import Std theorem t : True"),
            "of one theorem, got import Std",
        ),
        (row(header=3), "text for `header`, got 3"),
        (row(proof=["  trivial"]), "text for `proof`"),
        (row(proof=None), "either `proof` .* or `source` .* 'statement'"),
        (row(source="theorem t : True := trivial"), "either `proof` .* or `source`"),
        ({**ROW, "proof": None}, r"values for \['name', 'statement'\]"),
        ({**ROW, "proof": None, "source": None}, "either `proof` .* or `source`"),
    ],
)
def test_a_bad_row_is_named_with_file_line_and_remedy(tmp_path, bad, expected):
    path = write(tmp_path / "in.jsonl", ROW, bad)
    with pytest.raises(DataError, match=rf"in\.jsonl, line 2: .*{expected}.*; \w+"):
        list(iterate_submissions(path))


def test_rows_are_read_one_at_a_time(tmp_path):
    path = write(tmp_path / "in.jsonl", ROW, {})
    assert next(iterate_submissions(path)).submission == "  trivial"


def test_the_digest_tells_every_difference():
    rows = [
        SubmissionRow(
            problem=Problem(name=name, header=header, statement=statement),
            submission=body,
        )
        for name, header, statement, body in [
            ("a", "b", "c", "d"),
            ("ab", "", "c", "d"),
            ("a", "b", "cd", ""),
            ("a", "b", "c", "\ud800"),
            ("a", "b", "c", WholeFile("d")),
        ]
    ]
    digests = [row.digest() for row in rows]
    assert len(set(digests)) == len(rows)
    assert digests == [row.digest() for row in rows]


# ---- rows out


def test_a_row_holds_the_whole_verdict(three):
    rows = [json.loads(line) for line in three.read_text().splitlines()]
    assert [row["name"] for row in rows] == ["t", "t", "t"]
    assert [Verdict.from_dict(row) for row in rows] == [verdict(n) for n in (1, 2, 3)]


def test_what_is_no_unicode_is_still_written_as_utf8(tmp_path):
    path = tmp_path / "out.jsonl"
    with VerdictFile(path) as file:
        file.append(submission(1), Verdict(status=Status.UNSAFE, reason="\ud800 ⊢"))
    assert json.loads(path.read_text(encoding="utf-8"))["reason"] == "\ud800 ⊢"


def test_the_standing_of_a_file(three):
    with VerdictFile(three) as file:
        file.append(submission(4), verdict(0, Status.CRASHED))
        standing = file.check(map(submission, range(1, 7)))
    assert standing.total == 6
    assert standing.tally.rows == 4
    assert standing.tally.statuses == {Status.VERIFIED: 3, Status.CRASHED: 1}
    assert list(standing.tally.seconds) == [1.0, 2.0, 3.0]
    assert list(standing.crashed) == [3]


@pytest.mark.parametrize("cut", [1, 20])
def test_half_a_line_is_dropped(three, cut):
    whole = three.read_bytes()
    three.write_bytes(whole[:-cut])
    with VerdictFile(three) as file:
        assert file.check(map(submission, (1, 2, 3))).tally.rows == 2
        file.append(submission(3), verdict(3))
    assert three.read_bytes() == whole


@pytest.mark.parametrize("name", ["t", "Erdős", "\ud800"])
@pytest.mark.parametrize("reason", ["", "\ud800"])
def test_half_a_line_of_any_length_is_ours(tmp_path, name, reason):
    """Also where the verdict's text decides how the name is written."""
    path = tmp_path / "out.jsonl"
    problem = Problem(name=name, statement="theorem t : True")
    ours = SubmissionRow(problem=problem, submission="  trivial")
    line = line_of(ours, Verdict(status=Status.UNSAFE, reason=reason))
    for length in range(len(line)):
        path.write_bytes(line[:length])
        with VerdictFile(path) as file:
            assert file.check([ours]).tally.rows == 0
        assert path.read_bytes() == b""


@pytest.mark.parametrize(
    ("half", "line"),
    [
        (b"hello", 1),
        (b'{"name": "t", "dig', 0),
        (b'{"name": "other', 1),
        (b'{"name": "t", "digest": "0', 1),
        (b'{"name": "t", "digest": "0', 4),
        (b"[1]", 4),
    ],
)
def test_half_a_line_of_somebody_else_stays(three, half, line):
    content = half if line < 4 else three.read_bytes() + half
    three.write_bytes(content)
    numbers = range(1, 6) if line else ()
    with (
        VerdictFile(three) as file,
        pytest.raises(DataError, match=rf"line {line or 1}: .*--overwrite"),
    ):
        file.check(map(submission, numbers))
    assert three.read_bytes() == content


@pytest.mark.parametrize(
    ("numbers", "spoil", "expected"),
    [
        ((1, 5, 3), b"", "line 2: expected the verdict on t"),
        ((1, 2), b"", "line 3: expected no more rows"),
        ((1, 2, 3, 4), b"not JSON\n", "line 4: .* got not JSON"),
        ((1, 2, 3, 4), b"[]\n", "line 4"),
        ((1, 2, 3, 4), b'{"digest": "", "status": "verified"}\n', "line 4"),
        ((1, 2, 3, 4), b'{"digest": "", "status": "done", "seconds": 1}\n', "line 4"),
    ],
)
def test_a_file_of_another_input_stays_as_it_is(three, numbers, spoil, expected):
    content = three.read_bytes() + spoil + b'{"half'
    three.write_bytes(content)
    with (
        VerdictFile(three) as file,
        pytest.raises(DataError, match=expected) as caught,
    ):
        file.check(map(submission, numbers))
    assert "--overwrite" in str(caught.value)
    assert three.read_bytes() == content


def test_replacing_rows(three):
    three.chmod(0o640)
    own = three.with_name(three.name + ".tmp")
    own.write_text("of the user")
    with VerdictFile(three) as file:
        file.replace({1: (submission(2), verdict(9))})
        file.append(submission(4), verdict(4))
    rows = [json.loads(line) for line in three.read_text().splitlines()]
    assert [row["seconds"] for row in rows] == [1.0, 9.0, 3.0, 4.0]
    assert three.stat().st_mode & 0o777 == 0o640
    assert own.read_text() == "of the user"
    assert set(three.parent.iterdir()) == {three, own}


def test_a_replacement_that_fails_leaves_nothing(three):
    whole = three.read_bytes()
    with VerdictFile(three) as file:
        with (
            file_size_limit(len(whole) - 10),
            pytest.raises(DataError, match=r"File too large.*; free disk space"),
        ):
            file.replace({1: (submission(2), verdict(9))})
        file.append(submission(4), verdict(4))
    assert three.read_bytes().startswith(whole)
    assert list(three.parent.iterdir()) == [three]


def test_one_writer_at_a_time(three):
    lines = "import pathlib, sys", "from fdjax.verify.rows import VerdictFile"
    program = "; ".join([*lines, "VerdictFile(pathlib.Path(sys.argv[1])).close()"])
    command = [sys.executable, "-c", program, three]
    with VerdictFile(three) as file:
        file.replace({})
        other = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "expected no other writer" in other.stderr.lower()
    assert subprocess.run(command, check=False).returncode == 0


def test_a_new_file_without_rows_does_not_stay(tmp_path):
    VerdictFile(tmp_path / "new" / "folder" / "out.jsonl").close()
    assert list(tmp_path.iterdir()) == []
    there = tmp_path / "there"
    there.mkdir()
    VerdictFile(there / "out.jsonl").close()
    assert list(there.iterdir()) == []
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    VerdictFile(empty).close()
    assert empty.exists()


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="Expected a file for verdicts"):
        VerdictFile(tmp_path)


def test_a_folder_that_cannot_be_made_has_a_remedy(three):
    with pytest.raises(DataError, match=r"got .*; .* name a file in a folder"):
        VerdictFile(three / "folder" / "out.jsonl")


@contextmanager
def file_size_limit(size):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_leaves_whole_rows(three):
    whole = three.read_bytes()
    with VerdictFile(three) as file:
        # The kernel writes ten bytes of the row, then refuses.
        with (
            file_size_limit(len(whole) + 10),
            pytest.raises(DataError, match=r"File too large.*; .*limit on file sizes"),
        ):
            file.append(submission(4), verdict(4))
        assert three.read_bytes() == whole
        file.append(submission(4), verdict(4))
    assert three.read_bytes().startswith(whole)
    assert len(three.read_bytes().splitlines()) == 4
