"""A small object store on this machine, for tests: Cloud Storage's JSON API over HTTP.

It keeps objects in memory and speaks what tensorstore, gcsfs and google-cloud-storage
ask of it: uploads in one request, in parts and resumed ones, ranges, lists with prefix
and delimiter, compose, copies, batches, generations and their preconditions.

Faults are asked for: `server.fault` may answer any request with a status instead.
"""

import base64
import functools
import hashlib
import json
import os
import re
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

BUCKET = "bucket"

Fault = Callable[[str, str], int | None]
"""Gives for method and path the status to answer with, or None to answer truly."""


@dataclass(frozen=True)
class Blob:
    content: bytes
    generation: int
    metadata: Mapping[str, str] = field(default_factory=dict)


class ObjectStore(ThreadingHTTPServer):
    """One bucket on 127.0.0.1."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, Blob] = {}
        self.lock = threading.RLock()
        self.uploads: dict[str, tuple[str, dict[str, str], bytearray]] = {}
        self.fault: Fault = lambda method, path: None
        self.requests: list[tuple[str, str]] = []
        self._generation = 1_000

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def environment(self) -> dict[str, str]:
        """What points the three clients to it."""
        return {
            "TENSORSTORE_GCS_HTTP_URL": self.url,
            "STORAGE_EMULATOR_HOST": self.url,
            # Without credentials, and without looking for them for long.
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            "GCE_METADATA_ROOT": "127.0.0.1:1",
            "NO_GCE_CHECK": "true",
        }

    def put(self, name: str, content: bytes) -> Blob:
        with self.lock:
            self._generation += 1
            blob = self.objects[name] = Blob(bytes(content), self._generation)
            return blob

    def names(self, prefix: str = "") -> list[str]:
        with self.lock:
            return sorted(name for name in self.objects if name.startswith(prefix))

    def text(self, name: str) -> str:
        return self.objects[name].content.decode()


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """A server that answers until the block ends."""
    with ObjectStore() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _StatusError(Exception):
    def __init__(self, status: int):
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    server: ObjectStore
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _any(self) -> None:
        body = self._body()
        status, headers, content = self._answer(
            self.command, self.path, self.headers, body
        )
        self._send(status, headers, content)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _any

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            content = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return content
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _answer(
        self, method: str, target: str, headers: Any, body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        url = urlsplit(target)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        self.server.requests.append((method, unquote(url.path)))
        status = self.server.fault(method, unquote(url.path))
        try:
            if status is not None:
                raise _StatusError(status)
            with self.server.lock:
                found = self._route(method, url.path, query, headers, body)
        except _StatusError as error:
            return _json({"error": _error(error.status)}, error.status)
        return found if isinstance(found, tuple) else _json(found)

    def _route(
        self, method: str, path: str, query: dict[str, str], headers: Any, body: bytes
    ) -> Any:
        if path.startswith("/batch/"):
            return self._batch(headers, body)
        match = re.fullmatch(
            r"(?P<upload>/resumable|/upload|/download)*(?:/storage/v1)?/b/"
            r"(?P<bucket>[^/]+)(?:/(?P<kind>o|storageLayout)(?:/(?P<name>.+))?)?",
            path,
        )
        if match is None:
            raise _StatusError(404)
        if unquote(match["bucket"]) != BUCKET:
            raise _StatusError(404)
        if match["kind"] is None:
            return {"kind": "storage#bucket", "name": BUCKET, "id": BUCKET}
        if match["kind"] == "storageLayout":
            return {"bucket": BUCKET, "locationType": "region"}
        if match["upload"] == "/upload":
            return self._upload(method, query, headers, body)
        if match["name"] is None:
            return self._list(query)
        return self._object(method, match["name"], query, headers, body)

    def _object(
        self, method: str, name: str, query: dict[str, str], headers: Any, body: bytes
    ) -> Any:
        if "/compose" in name and method == "POST":
            return self._compose(unquote(name.removesuffix("/compose")), query, body)
        for verb in ("/rewriteTo/b/", "/copyTo/b/"):
            if verb in name and method == "POST":
                source, _, target = name.partition(verb)
                return self._copy(
                    unquote(source), unquote(target.partition("/o/")[2]), query
                )
        name = unquote(name)
        blob = self.server.objects.get(name)
        if blob is None:
            raise _StatusError(404)
        _require(query, blob)
        if method == "DELETE":
            del self.server.objects[name]
            return 204, {}, b""
        if query.get("alt") == "media":
            return _media(blob, headers.get("Range"))
        return _resource(name, blob)

    def _upload(
        self, method: str, query: dict[str, str], headers: Any, body: bytes
    ) -> Any:
        server = self.server
        if "upload_id" in query:
            return self._resume(method, query["upload_id"], headers, body)
        name = query.get("name", "")
        match query.get("uploadType"):
            case "media":
                return self._store(name, query, body)
            case "multipart":
                about, content = _parts(headers["Content-Type"], body)
                return self._store(name or json.loads(about)["name"], query, content)
            case "resumable":
                name = name or json.loads(body or b"{}").get("name", "")
                key = uuid.uuid4().hex
                server.uploads[key] = (name, query, bytearray())
                place = f"{server.url}{urlsplit(self.path).path}"
                location = f"{place}?uploadType=resumable&upload_id={key}"
                return 200, {"Location": location}, b""
        raise _StatusError(400)

    def _resume(self, method: str, key: str, headers: Any, body: bytes) -> Any:
        if key not in self.server.uploads:
            raise _StatusError(404)
        if method == "DELETE":
            del self.server.uploads[key]
            return 499, {}, b""
        name, query, content = self.server.uploads[key]
        given = headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", given)
        if match and match[1]:
            del content[int(match[1]) :]
        content += body
        if match and (match[3] == "*" or len(content) < int(match[3])):
            said = {"Range": f"bytes=0-{len(content) - 1}"} if content else {}
            return 308, said, b""
        del self.server.uploads[key]
        return self._store(name, query, bytes(content))

    def _store(self, name: str, query: dict[str, str], content: bytes) -> Any:
        _require(query, self.server.objects.get(name))
        return _resource(name, self.server.put(name, content))

    def _compose(self, target: str, query: dict[str, str], body: bytes) -> Any:
        objects = self.server.objects
        _require(query, objects.get(target))
        sources = [one["name"] for one in json.loads(body)["sourceObjects"]]
        if missing := [name for name in sources if name not in objects]:
            assert missing
            raise _StatusError(404)
        joined = b"".join(objects[name].content for name in sources)
        return _resource(target, self.server.put(target, joined))

    def _copy(self, source: str, target: str, query: dict[str, str]) -> Any:
        blob = self.server.objects.get(source)
        if blob is None:
            raise _StatusError(404)
        _require(query, self.server.objects.get(target))
        new = _resource(target, self.server.put(target, blob.content))
        size = str(len(blob.content))
        return {
            "kind": "storage#rewriteResponse",
            "done": True,
            "totalBytesRewritten": size,
            "objectSize": size,
            "resource": new,
        }

    def _list(self, query: dict[str, str]) -> Any:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        start, end = query.get("startOffset", ""), query.get("endOffset")
        most = int(query.get("maxResults", 1000))
        after = query.get("pageToken", "")
        entries: list[tuple[str, dict[str, Any] | None]] = []
        for name in self.server.names(prefix):
            if name < start or (end is not None and name >= end):
                continue
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                folder = prefix + rest[: rest.index(delimiter) + len(delimiter)]
                if (folder, None) not in entries[-1:]:
                    entries.append((folder, None))
            else:
                entries.append((name, _resource(name, self.server.objects[name])))
        entries = [entry for entry in entries if entry[0] > after]
        page = entries[:most]
        found: dict[str, Any] = {
            "kind": "storage#objects",
            "items": [about for _, about in page if about],
            "prefixes": [name for name, about in page if about is None],
        }
        if len(entries) > len(page):
            found["nextPageToken"] = page[-1][0]
        return found

    def _batch(self, headers: Any, body: bytes) -> Any:
        """Answers each of the requests in one."""
        boundary = f"answer-{uuid.uuid4().hex}"
        answers: list[bytes] = []
        for part in _multipart(headers["Content-Type"], body):
            payload = part.get_payload(decode=True)
            assert isinstance(payload, bytes)
            line = payload.lstrip().split(b"\r\n")[0].decode().split(" ")
            target = urlsplit(line[1])
            path = f"{target.path}?{target.query}"
            status, _, content = self._answer(line[0], path, {}, b"")
            answers.append(
                b"--%b\r\nContent-Type: application/http\r\nContent-ID: <response-%b>"
                b"\r\n\r\nHTTP/1.1 %d Said\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%b\r\n"
                % (
                    boundary.encode(),
                    (part["Content-ID"] or "<1>").strip("<>").encode(),
                    status,
                    len(content),
                    content,
                )
            )
        content = b"".join(answers) + f"--{boundary}--\r\n".encode()
        return 200, {"Content-Type": f"multipart/mixed; boundary={boundary}"}, content


def _require(query: Mapping[str, str], blob: Blob | None) -> None:
    """Holds a request to its preconditions."""
    now = 0 if blob is None else blob.generation
    wanted, unwanted = query.get("ifGenerationMatch"), query.get("ifGenerationNotMatch")
    if wanted is not None and int(wanted) != now:
        raise _StatusError(412)
    if unwanted is not None and int(unwanted) == now:
        raise _StatusError(304)


def _media(blob: Blob, wanted: str | None) -> tuple[int, dict[str, str], bytes]:
    size = len(blob.content)
    headers = {
        "Content-Type": "application/octet-stream",
        "x-goog-generation": str(blob.generation),
        "x-goog-hash": f"crc32c={_crc(blob.content)}",
        "Accept-Ranges": "bytes",
    }
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted or "")
    if match is None:
        return 200, headers, blob.content
    if match[1]:
        first, last = int(match[1]), min(int(match[2] or size - 1), size - 1)
    else:
        first, last = max(0, size - int(match[2])), size - 1
    if first >= size:
        raise _StatusError(416)
    headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    return 206, headers, blob.content[first : last + 1]


def _resource(name: str, blob: Blob) -> dict[str, Any]:
    digest = hashlib.md5(blob.content, usedforsecurity=False).digest()
    return {
        "kind": "storage#object",
        "id": f"{BUCKET}/{name}/{blob.generation}",
        "name": name,
        "bucket": BUCKET,
        "generation": str(blob.generation),
        "metageneration": "1",
        "size": str(len(blob.content)),
        "md5Hash": base64.b64encode(digest).decode(),
        "crc32c": _crc(blob.content),
        "contentType": "application/octet-stream",
        "timeCreated": "2026-01-01T00:00:00.000Z",
        "updated": "2026-01-01T00:00:00.000Z",
    }


def _crc(content: bytes) -> str:
    # Of the extra, without which only imports of this file must work.
    import google_crc32c

    return base64.b64encode(
        int(google_crc32c.value(content)).to_bytes(4, "big")
    ).decode()


def _multipart(kind: str, body: bytes) -> list[Any]:
    message = BytesParser().parsebytes(b"Content-Type: %b\r\n\r\n" % kind.encode())
    boundary = message.get_boundary()
    assert boundary is not None
    parts = body.split(b"--" + boundary.encode())[1:-1]
    return [BytesParser().parsebytes(part.lstrip(b"\r\n")) for part in parts]


def _parts(kind: str, body: bytes) -> tuple[bytes, bytes]:
    """What an upload says of an object, and its bytes as they are."""
    message = BytesParser().parsebytes(b"Content-Type: %b\r\n\r\n" % kind.encode())
    boundary = message.get_boundary()
    assert boundary is not None
    mark = b"--" + boundary.encode()
    _, about, content, _ = body.split(mark, 3)
    bare = [
        part.split(b"\r\n\r\n" if b"\r\n\r\n" in part else b"\n\n", 1)[1]
        for part in (about, content)
    ]
    return bare[0].strip(), re.sub(rb"\r?\n\Z", b"", bare[1])


def _error(status: int) -> dict[str, Any]:
    return {"code": status, "message": f"status {status}", "errors": []}


def _json(content: Any, status: int = 200) -> tuple[int, dict[str, str], bytes]:
    return (
        status,
        {"Content-Type": "application/json; charset=UTF-8"},
        json.dumps(content).encode(),
    )


@functools.cache
def shared_store() -> ObjectStore:
    """One for all tests of this process: clients keep the address they begin with."""
    server = ObjectStore()
    os.environ.update(server.environment)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server
