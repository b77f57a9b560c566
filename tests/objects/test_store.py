import os

import pytest

from fdjax.errors import ConfigError, StoreError
from fdjax.objects import (
    append,
    children,
    delete,
    download,
    exists,
    is_whole,
    on_disk,
    open_store,
    place,
    publish,
    read,
    upload,
    walk,
    write,
)
from fdjax.objects import store as module


def test_objects_are_written_listed_moved_and_deleted(address, tmp_path):
    write(address / "a", b"one")
    write(address / "b" / "c", b"two")
    assert read(address / "b" / "c") == b"two"
    assert children(address) == ["a", "b"]
    assert walk(address) == {"a": 3, "b/c": 3}
    assert exists(address / "a")
    assert not exists(address / "b")
    module.move(address / "b", address / "d")
    download(address, tmp_path, leave_out=("a",))
    assert (tmp_path / "d" / "c").read_bytes() == b"two"
    assert not (tmp_path / "a").exists()
    delete(address)
    assert walk(address) == {}
    with pytest.raises(FileNotFoundError, match="expected an object at gs://"):
        read(address / "a")


def test_a_large_file_goes_in_parts(address, tmp_path, monkeypatch, store):
    monkeypatch.setattr(module, "_PART_BYTES", 1 << 21)
    content = os.urandom(9_000_000)
    (tmp_path / "file").write_bytes(content)
    before = len(store.requests)
    upload(tmp_path / "file", address)
    assert read(address) == content
    assert sum("/upload/" in path for _, path in store.requests[before:]) == 6


def appended(address, path, store):
    """What is sent of a file of which the store has the first 6 bytes."""
    path.write_bytes(b"first\nsecond\n")
    sizes = []
    put = store.put
    store.put = lambda name, content: sizes.append(len(content)) or put(name, content)
    try:
        append(path, 6, address)
    finally:
        del store.put
    assert read(address) == b"first\nsecond\n"
    assert walk(address.parent) == {address.name: 13}
    return sizes


def test_only_what_is_new_is_sent(address, tmp_path, store):
    write(address / "rows", b"first\n")
    assert appended(address / "rows", tmp_path / "rows", store) == [7, 13]


def test_an_object_of_another_size_is_written_whole(address, tmp_path, store):
    write(address / "rows", b"fir")
    assert appended(address / "rows", tmp_path / "rows", store) == [13]
    delete(address)
    assert appended(address / "rows", tmp_path / "rows", store) == [13]


def test_an_append_whose_answer_is_lost_is_not_done_twice(address, tmp_path, store):
    """The client repeats it, and meets its own effect."""
    write(address / "rows", b"first\n")
    lost = []

    def answer(handler, method, target, headers, body):
        said = true_answer(handler, method, target, headers, body)
        if "/compose" in target and not lost:
            lost.append(target)
            return 503, {}, b""
        return said

    handler = store.RequestHandlerClass
    true_answer = handler._answer
    handler._answer = answer
    try:
        appended(address / "rows", tmp_path / "rows", store)
    finally:
        handler._answer = true_answer
    assert lost


def test_a_published_folder_is_known_by_the_file_that_goes_last(
    address, tmp_path, store
):
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).write_text(name)
    store.fault = lambda method, path: (
        403 if method == "POST" and exists_now(store, address) == 2 else None
    )
    with pytest.raises(StoreError):
        publish(folder, address)
    store.fault = lambda method, path: None
    assert not is_whole(address)
    assert "config.json" not in children(address)
    publish(folder, address)
    assert is_whole(address)
    assert not folder.exists()


def exists_now(store, address):
    return len(store.names(str(address).removeprefix("gs://bucket/")))


def test_a_copy_on_disk_gives_back_what_was_written(address):
    write(address / "config.json", b"{}")
    write(address / "checkpoints" / "fd" / "1" / "state", b"large")
    with on_disk(address) as folder:
        assert [path.name for path in folder.iterdir()] == ["config.json"]
        (folder / "report.html").write_text("<p>")
    assert read(address / "report.html") == b"<p>"


def test_a_busy_store_is_asked_again_and_one_that_is_gone_is_said(
    address, store, monkeypatch
):
    left = [2]

    def busy(method, path):
        left[0] -= 1
        return 503 if left[0] >= 0 else None

    store.fault = busy
    write(address, b"once")
    assert read(address) == b"once"
    monkeypatch.setattr(module, "PATIENCE_S", 1.0)
    store.fault = lambda method, path: 503
    with pytest.raises(StoreError, match="same command goes on from it"):
        write(address, b"again")


def test_a_refusal_is_a_setting_to_correct(address, store, monkeypatch):
    with pytest.raises(ConfigError, match=r"NotFound.*check the bucket's name"):
        open_store(place("gs://elsewhere/runs"))
    store.fault = lambda method, path: 403 if method == "POST" else None
    with pytest.raises(ConfigError, match=r"Forbidden.*Storage Object User"):
        open_store(address)
    open_store(address, writes=False)
    monkeypatch.setattr(module, "_FIRST_S", 0.5)
    store.fault = lambda method, path: 503
    with pytest.raises(StoreError, match="start again once it does"):
        open_store(address)


def test_missing_credentials_are_named(address, monkeypatch, tmp_path):
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    module._client.cache_clear()
    try:
        with pytest.raises(ConfigError, match="gcloud auth application-default login"):
            open_store(address)
    finally:
        module._client.cache_clear()
