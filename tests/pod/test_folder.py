"""Whether the folder of runs is one, as far as one process shows it."""

import os
import uuid

import pytest

from fdjax.objects import children, place
from fdjax.pod.folder import folder_of_all


def test_a_folder_is_made_and_left_empty(tmp_path):
    assert folder_of_all(tmp_path / "new" / "runs") == [""]
    assert list((tmp_path / "new" / "runs").iterdir()) == []


def test_a_file_in_its_place_is_said(tmp_path):
    (tmp_path / "runs").write_text("")
    [wrong] = folder_of_all(tmp_path / "runs")
    assert os.fspath(tmp_path / "runs") in wrong


def test_a_bucket_is_a_folder_too():
    pytest.importorskip("gcsfs", reason="needs the extra: pip install 'fdjax[gcs]'")
    from object_store import shared_store

    server = shared_store()
    address = place(f"gs://bucket/{uuid.uuid4().hex}")
    assert folder_of_all(address) == [""]
    assert children(address) == []
    server.fault = lambda method, path: 403
    try:
        [wrong] = folder_of_all(address)
    finally:
        server.fault = lambda method, path: None
    assert "expected the object store to answer" in wrong
