"""No path leads out of a workspace, and its size has bounds."""

import os

import pytest

from fdjax.tools import ToolError, Workspace
from fdjax.tools.workspace import DEPTH, FILE_BYTES, FILES, opened_below

OUTSIDE = [
    "../out.lean",
    "a/../../out.lean",
    "a/../b.lean",
    "./a.lean",
    "/etc/out.lean",
    "//a.lean",
    "a//b.lean",
    "..",
    "",
    ".lean",
    ".hidden.lean",
    "a/.git/b.lean",
    "~/a.lean",
    "a\\..\\b.lean",
    "a\n.lean",
    "a\0.lean",
    "proof",
    "proof.lean/",
    "proof.lean.sh",
    "é.lean",
    "/".join(["a"] * DEPTH) + "/b.lean",
    "a" * 300 + ".lean",
]


@pytest.fixture
def workspace(tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret.lean").write_text("secret")
    return Workspace(tmp_path / "inside")


@pytest.mark.parametrize("path", OUTSIDE)
def test_no_other_path_is_written_or_read(workspace, tmp_path, path):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ToolError):
        workspace.write(path, "x")
    with pytest.raises(ToolError):
        workspace.read(path)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_written_is_read(workspace):
    workspace.write("a/b/proof.lean", "theorem t : ∀ p, p → p")
    assert workspace.read("a/b/proof.lean") == "theorem t : ∀ p, p → p"
    workspace.write("a/b/proof.lean", "short")
    assert workspace.read("a/b/proof.lean") == "short"


@pytest.mark.parametrize("link", ["proof.lean", "folder/proof.lean"])
def test_a_link_is_not_followed(workspace, tmp_path, link):
    inside = tmp_path / "inside"
    if "/" in link:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "proof.lean").write_text("secret")
        (inside / "folder").symlink_to(tmp_path / "elsewhere")
    else:
        (inside / link).symlink_to(tmp_path / "secret.lean")
    with pytest.raises(ToolError, match="cannot be read"):
        workspace.read(link)
    with pytest.raises(ToolError, match="cannot be written"):
        workspace.write(link, "gone")
    assert (tmp_path / "secret.lean").read_text() == "secret"


def test_a_second_name_of_a_file_outside_is_refused(workspace, tmp_path):
    os.link(tmp_path / "secret.lean", tmp_path / "inside" / "proof.lean")
    with pytest.raises(ToolError, match="another file"):
        workspace.write("proof.lean", "gone")
    with pytest.raises(ToolError, match="another file"):
        workspace.read("proof.lean")
    assert (tmp_path / "secret.lean").read_text() == "secret"


def test_a_pipe_or_a_folder_is_no_file(workspace, tmp_path):
    os.mkfifo(tmp_path / "inside" / "pipe.lean")
    (tmp_path / "inside" / "folder.lean").mkdir()
    for path in ("pipe.lean", "folder.lean"):
        with pytest.raises(ToolError):
            workspace.read(path)
        with pytest.raises(ToolError):
            workspace.write(path, "x")


def test_descriptors_are_closed(workspace):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        workspace.write("a/proof.lean", "x")
        with pytest.raises(ToolError):
            workspace.read("b/proof.lean")
    assert len(os.listdir("/proc/self/fd")) == before


def test_files_are_few_and_small(workspace):
    with pytest.raises(ToolError, match=f"{FILE_BYTES} are the most"):
        workspace.write("proof.lean", "é" * (FILE_BYTES // 2 + 1))
    assert workspace.last_text is None
    for number in range(FILES):
        workspace.write(f"f{number}.lean", "x")
    with pytest.raises(ToolError, match=f"{FILES} files already"):
        workspace.write("more.lean", "x")
    workspace.write("f0.lean", "written last")
    assert workspace.last_text == "written last"


def test_a_temporary_one_goes_with_its_files():
    with Workspace.temporary() as workspace:
        workspace.write("a/proof.lean", "x")
        folder = workspace._folder
        assert (folder / "a" / "proof.lean").exists()
    assert not folder.exists()


def test_the_opener_itself_knows_no_way_up(tmp_path):
    with pytest.raises(ToolError), opened_below(tmp_path, ["..", "x"], os.O_RDONLY):
        pass
