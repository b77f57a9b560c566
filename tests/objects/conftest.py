import uuid

import pytest

from fdjax.objects import place
from object_store import shared_store


@pytest.fixture
def store():
    pytest.importorskip(
        "google_crc32c", reason="needs the extra: pip install 'fdjax[gcs]'"
    )
    server = shared_store()
    yield server
    server.fault = lambda method, path: None


@pytest.fixture
def address(store):
    return place(f"gs://bucket/{uuid.uuid4().hex}")
