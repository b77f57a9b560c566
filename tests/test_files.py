import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fdjax.errors import ConfigError
from fdjax.files import naming, replacing, require_local, write_whole


def test_a_file_is_made_and_replaced(tmp_path):
    path = tmp_path / "a"
    for content in (b"one", b"two"):
        write_whole(path, content)
        assert path.read_bytes() == content
        assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_has_the_mode_that_open_gives(tmp_path):
    write_whole(tmp_path / "a", b"")
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_replaced_file_keeps_its_mode(tmp_path):
    path = tmp_path / "a"
    path.touch()
    path.chmod(0o604)
    write_whole(path, b"new")
    assert path.stat().st_mode & 0o777 == 0o604


@pytest.mark.parametrize("there", [True, False])
def test_a_block_that_raises_changes_nothing(tmp_path, there):
    path = tmp_path / "a"
    if there:
        path.write_text("old")
    before = {each: each.read_text() for each in tmp_path.iterdir()}
    with pytest.raises(TypeError), replacing(path) as file:
        file.writelines([b"half", None])
    assert {each: each.read_text() for each in tmp_path.iterdir()} == before


def test_what_cannot_take_its_place_goes(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(OSError, match="directory"):
        write_whole(folder, b"x")
    assert list(tmp_path.iterdir()) == [folder]


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    program = """
import os, pathlib, signal, sys
from fdjax.files import replacing
with replacing(pathlib.Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program, os.fspath(path)], check=False
    )
    assert ended.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    write_whole(path, b"new")
    assert path.read_text() == "new"


def test_an_error_of_a_write_names_the_file(tmp_path):
    with (
        pytest.raises(OSError, match=r"No space left on device: '.*/rows'$"),
        naming(tmp_path / "rows"),
        open("/dev/full", "wb", buffering=0) as full,
    ):
        full.write(b"x")
    with pytest.raises(OSError, match=r"missing'$"), naming(tmp_path / "rows"):
        (tmp_path / "missing").read_bytes()


@pytest.mark.parametrize("address", ["gs://bucket/runs", "s3:/bucket", "memory://a"])
def test_an_object_store_is_no_folder(address):
    with pytest.raises(ConfigError, match="expected runs to be a folder of a file sys"):
        require_local("runs", Path(address))


@pytest.mark.parametrize("path", ["runs", "/a:/b", "a/gs:/b", "./gs:", "C:/runs"])
def test_a_folder_may_have_any_name(path):
    require_local("runs", Path(path))
