import math

import pytest

from fdjax.errors import DataError
from fdjax.jsonl import LineFile, iterate_rows, whole_rows


def read(tmp_path, content):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    return list(iterate_rows(path))


def test_only_line_feeds_end_a_row(tmp_path):
    content = '{"a": "x\u2028y\x0bz"}\r\n\n  \n{"a": "\\ud800"}'.encode()
    # A control character inside a string is no JSON; U+2028 is.
    with pytest.raises(DataError, match=r"rows\.jsonl, line 1: expected a JSON object"):
        read(tmp_path, content)
    rows = read(tmp_path, content.replace(b"\x0b", b" "))
    assert [row.text("a") for row in rows] == ["x\u2028y z", "\ud800"]


@pytest.mark.parametrize(
    ("line", "got"),
    [
        (b"[1]", "got list"),
        (b'{"a": 1', "got {"),
        (b"[" * 100_000, "brackets nested deeper than can be read"),
        (b'{"a": ' + b"[" * 100_000, "got {"),
    ],
)
def test_what_is_no_object_is_named_with_its_line(tmp_path, line, got):
    with pytest.raises(DataError, match="line 2: expected a JSON object") as caught:
        read(tmp_path, b"{}\n" + line)
    assert got in str(caught.value)
    assert len(str(caught.value)) < 500


def test_bytes_that_are_no_text_are_named_with_their_line(tmp_path):
    with pytest.raises(DataError, match=r"line 2: expected UTF-8, got .*0xff.*; save"):
        read(tmp_path, b'{}\n{"a": "\xff"}')


def test_a_byte_order_mark_begins_a_file_only(tmp_path):
    mark = b"\xef\xbb\xbf"
    [row] = read(tmp_path, mark + b'{"a": "x"}\n')
    assert row.values == {"a": "x"}
    assert read(tmp_path, mark + b"\n") == []
    with pytest.raises(DataError, match="line 2: expected a JSON object"):
        read(tmp_path, b"{}\n" + mark + b"{}")


def test_numbers_of_any_length_are_read(tmp_path):
    nines = b"9" * 5000
    [row] = read(tmp_path, b'{"a": %b, "b": -%b, "c": 1e999, "d": 12}' % (nines, nines))
    assert row.values == {"a": math.inf, "b": -math.inf, "c": math.inf, "d": 12}
    with pytest.raises(DataError, match="text for `a`, got inf"):
        row.text("a")


def test_a_key_given_twice_is_named(tmp_path):
    twice = b'{"name": "a", "x": 1, "x": 1, "name": null}'
    with pytest.raises(DataError, match="line 1: expected each key once, got `name`"):
        read(tmp_path, twice)
    with pytest.raises(DataError, match="got `` more than once"):
        read(tmp_path, b'{"": 1, "": 2}')
    # What a key holds that is not ours is not ours to judge.
    [row] = read(tmp_path, b'{"name": "a", "extra": [%b]}' % twice)
    assert row.text("name") == "a"


def test_lines_are_whole_in_the_file_when_appended(tmp_path):
    path = tmp_path / "lines"
    with LineFile(path) as lines:
        lines.append(b"one\n")
        assert path.read_bytes() == b"one\n"
        lines.append(b"two\n")
        assert lines.size == 8
        lines.cut(4)
        lines.append(b"three\n")
    lines.close()
    assert path.read_bytes() == b"one\nthree\n"
    with LineFile(path) as lines:
        assert lines.size == 10


def test_rows_of_a_writer_at_work(tmp_path):
    path = tmp_path / "rows.jsonl"
    content = b'{"a": 1, "b": NaN}\n{"a": 2, "b": 3}\n'
    for torn in (b"", b"{", b'{"a": 1, "b": 2}', b'{"a": 1}\n', b"[" * 100_000 + b"\n"):
        path.write_bytes(content + torn)
        lines, rows = zip(*whole_rows(path, ("a", "b")), strict=True)
        assert b"".join(lines) == content
        assert rows == ({"a": 1, "b": None}, {"a": 2, "b": 3})
    path.write_bytes(b'{"a": 1}\n' + content)
    with pytest.raises(DataError, match="with a and b in line 1 of"):
        list(whole_rows(path, ("a", "b")))
