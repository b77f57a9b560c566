"""`fdjax convert` from a hub, which is a server on loopback here."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

import pytest
from huggingface_hub import constants

from checkpoint.folders import read_folder, side_bytes, write_folder
from fdjax.cli import main

_REVISION = "0123456789abcdef0123456789abcdef01234567"


class _Hub(ThreadingHTTPServer):
    """Serves a folder as the repository org/prover; can hang up in mid-file."""

    daemon_threads = True

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.hang_up_in = None
        self.ranges = []


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, *, body):
        path = unquote(urlparse(self.path).path)
        files = sorted(p for p in self.server.folder.iterdir() if p.is_file())
        if path.startswith("/api/models/org/prover/revision/"):
            names = [{"rfilename": p.name} for p in files]
            return self._json({"id": "org/prover", "sha": _REVISION, "siblings": names})
        if path.startswith("/api/models/org/prover/tree/"):
            return self._json(
                [
                    {
                        "type": "file",
                        "path": p.name,
                        "size": p.stat().st_size,
                        "oid": "0",
                    }
                    for p in files
                ]
            )
        if path.startswith("/org/prover/resolve/"):
            return self._file(self.server.folder / path.rsplit("/", 1)[1], body)
        content = json.dumps({"error": "Repository not found"}).encode()
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content if body else b"")

    def _json(self, value):
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _file(self, path, body):
        content = path.read_bytes()
        start = 0
        asked = self.headers.get("Range")
        if asked and body:
            start = int(asked.removeprefix("bytes=").split("-")[0])
            self.server.ranges.append((path.name, start))
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", _REVISION)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            span = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.send_header("Content-Range", span)
        self.end_headers()
        if not body:
            return
        rest = content[start:]
        if path.name == self.server.hang_up_in:
            self.server.hang_up_in = None
            self.wfile.write(rest[: len(rest) // 2])
            self.wfile.flush()
            self.close_connection = True
            return
        self.wfile.write(rest)


@pytest.fixture
def hub(tmp_path):
    server = _Hub(write_folder(tmp_path / "origin", files=3))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_hub_id_is_downloaded_and_goes_on_after_a_hang_up(hub, tmp_path):
    # Downloads are written in pieces of 10 MB; what is less begins anew.
    (hub.folder / "merges.txt").write_bytes(b"a b\n" * 6_000_000)
    hub.hang_up_in = "merges.txt"
    settings = {
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
        "HF_HOME": str(tmp_path / "cache"),
        "NO_PROXY": "127.0.0.1",
    }
    result = subprocess.run(
        [sys.executable, "-m", "fdjax", "convert", "org/prover", "new", "--to", "hf"],
        cwd=tmp_path,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert read_folder(tmp_path / "new") == read_folder(hub.folder)
    assert side_bytes(tmp_path / "new") == side_bytes(hub.folder)
    (resumed,) = [start for name, start in hub.ranges if name == "merges.txt"]
    assert resumed >= 10_000_000


@pytest.fixture
def refusal(hub, tmp_path, monkeypatch, capsys):
    """What a command that fails says; it runs in this process, which has JAX already.

    The hub's library reads its variables when it is imported.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))

    def convert(name, endpoint=f"http://127.0.0.1:{hub.server_port}"):
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        with pytest.raises(SystemExit) as stop:
            main(["convert", name, "new", "--to", "hf"])
        assert stop.value.code == 2
        return capsys.readouterr().err

    return convert


def test_an_unknown_hub_id_is_an_error(refusal):
    said = refusal("org/nothing")
    assert "error Expected to download org/nothing from the hub" in said
    assert "Traceback" not in said


def test_neither_folder_nor_hub_id_is_an_error(refusal):
    assert "Expected a folder or a hub id" in refusal("no/such/folder")


def test_a_hub_that_is_away_is_an_error(refusal):
    said = refusal("org/prover", endpoint="http://127.0.0.1:9")
    assert "the same command goes on" in said
    assert "Traceback" not in said
