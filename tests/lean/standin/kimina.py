"""A server with the HTTP interface of Kimina Lean Server 2, over one REPL process.

As in the original, a snippet's leading imports are elaborated apart and kept, `env` is
theirs, lines end wherever Python says, and a snippet that takes too long ends the
process. Faults come on demand, one per request to `/api/check`.
"""

import json
import socket
import subprocess
import threading
import time
from collections import deque
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Repl:
    """One process; started with the first request and after a time-out."""

    def __init__(self, command):
        self.command = command
        self.process = None
        self.headers = {}

    def elaborate(self, code, timeout):
        """The reply to a snippet's body, and what it took."""
        lines = code.splitlines()
        count = 0
        while count < len(lines) and (
            not lines[count].strip() or lines[count].startswith("import ")
        ):
            count += 1
        header = "\n".join(line for line in lines[:count] if line.strip())
        if self.process is None:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        what = "header command" if header not in self.headers else "command"
        try:
            if header not in self.headers:
                self.headers[header] = self.ask({"cmd": header}, timeout)["env"]
            what = "command"
            begin = time.monotonic()
            body = {"cmd": "\n".join(lines[count:]), "env": self.headers[header]}
            return self.ask(body, timeout), time.monotonic() - begin
        except TimeoutError:
            text = f"Lean REPL {what} timed out in {timeout:.1f} seconds"
            raise TimeoutError(text) from None

    def ask(self, request, timeout):
        late = threading.Event()
        process = self.process

        def end():
            late.set()
            process.kill()

        killer = threading.Timer(timeout, end)
        killer.start()
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n\n")
            self.process.stdin.flush()
            answer = b""
            while (line := self.process.stdout.readline()).strip():
                answer += line
            if not line:
                raise EOFError
            return json.loads(answer)
        except (EOFError, BrokenPipeError):
            self.close()
            if late.is_set():
                raise TimeoutError from None
            raise
        finally:
            killer.cancel()
            killer.join()

    def kill(self):
        process = self.process
        if process is not None:
            process.kill()

    def close(self):
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None
        self.headers = {}


class KiminaStandIn(ThreadingHTTPServer):
    """Serves on a free port of this machine; a context manager."""

    daemon_threads = False  # closing waits for them

    def __init__(self, command, *, token=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repl = Repl(command)
        self.token = token
        self.faults = deque()
        self.requests = []
        self.connections = set()
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self):
        self.thread = threading.Thread(target=self.serve_forever, args=(0.05,))
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.shutdown()
        self.thread.join()
        for connection in list(self.connections):
            # A kept-alive connection waits for its next request.
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.repl.kill()
        self.server_close()
        self.repl.close()

    def handle_error(self, request, client_address):
        """A client that went away is no error."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self):
        self.server.connections.discard(self.connection)
        super().finish()

    def log_message(self, *args):
        """Nothing on the terminal."""

    def answer(self, status, value, headers=()):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, text in headers:
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/health":
            self.answer(200, {"status": "ok"})
        else:
            self.answer(404, {"detail": "Not Found"})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        token = self.server.token
        if token is not None and self.headers.get("Authorization") != f"Bearer {token}":
            return self.answer(401, {"detail": "Invalid API key"})
        if self.path == "/api/check":
            return self.check(body)
        if self.path == "/verify":
            return self.verify(body)
        return self.answer(404, {"detail": "Not Found"})

    def check(self, body):
        self.server.requests.append(body)
        if "snippets" not in body:
            return self.answer(422, {"detail": "Field required"})
        fault = self.server.faults.popleft() if self.server.faults else None
        if fault == "drop":
            self.close_connection = True
            return None
        if fault == "malformed":
            return self.answer(200, b'{"results": [')
        if fault == "empty":
            return self.answer(200, {"results": []})
        if fault == "slow":
            time.sleep(1.0)
        if fault == "liar":
            error = "Lean REPL command timed out in 30.0 seconds"
            names = [snippet["id"] for snippet in body["snippets"]]
            results = [{"id": name, "time": 30.0, "error": error} for name in names]
            return self.answer(200, {"results": results})
        if isinstance(fault, tuple):
            status, *headers = fault
            return self.answer(status, {"detail": f"fault {status}"}, headers)
        try:
            results = [
                self.elaborate(snippet["id"], snippet["code"], body.get("timeout", 30))
                for snippet in body["snippets"]
            ]
        except (EOFError, BrokenPipeError):
            return self.answer(500, {"detail": "JSON decode error"})
        return self.answer(200, {"results": results})

    def verify(self, body):
        results = []
        for code in body["codes"]:
            text = code.get("proof") or code["code"]
            found = self.elaborate(code["custom_id"], text, body.get("timeout", 300))
            response = {**(found.get("response") or {}), "time": found["time"]}
            results.append({"custom_id": found["id"], "response": response})
        self.answer(200, {"results": results})

    def elaborate(self, name, code, timeout):
        with self.server.lock:
            try:
                reply, seconds = self.server.repl.elaborate(code, timeout)
            except TimeoutError as error:
                return {"id": name, "time": float(timeout), "error": str(error)}
        return {"id": name, "time": seconds, "response": reply}
