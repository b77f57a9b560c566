"""A language model's API on a loopback socket, with the faults that real ones have."""

import asyncio
import json
import re
import threading
from contextlib import asynccontextmanager, contextmanager

USAGE = {
    "openai": {"prompt_tokens": 100, "completion_tokens": 10},
    "anthropic": {"input_tokens": 100, "output_tokens": 10},
}


class ModelServer:
    """Answers both APIs. A request that holds the word `fault_NAME` gets that fault."""

    def __init__(self, reply=lambda text: "Use h1.2."):
        self.reply = reply
        self.requests = []
        """(path, headers, body) of each."""
        self.seen = {}
        """Name of a fault to how often it was met."""
        self.delay_s = 0.0

    @asynccontextmanager
    async def running(self):
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            yield self

    async def _serve(self, reader, writer):
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            start, *lines = head.strip().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines)
            content = await reader.readexactly(int(headers["content-length"]))
            body = json.loads(content)
            self.requests.append((start.split()[1], headers, body))
            await asyncio.sleep(self.delay_s)
            answer = self._answer(start.split()[1], json.dumps(body), body)
            if answer is None:
                await reader.read()  # until the client gives up
            writer.write(answer or b"")
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, path, text, body):
        api = "anthropic" if path == "/v1/messages" else "openai"
        found = re.search(r"fault_(\w+)", text)
        name = found[1] if found else ""
        self.seen[name] = self.seen.get(name, 0) + 1
        said = self.reply(body["messages"][-1]["content"])
        good = said if isinstance(said, dict) else message(api, said)
        match name:
            case "busy_once" if self.seen[name] == 1:
                return response(429, {"error": {"message": "slow down"}})
            case "busy_once_retry_after" if self.seen[name] == 1:
                error = {"error": {"message": "slow down"}}
                return response(429, error, {"Retry-After": "0.1"})
            case "busy":
                return response(429, {"error": {"message": "slow down"}})
            case "busy_for_long":
                error = {"error": {"message": "come back tomorrow"}}
                return response(429, error, {"Retry-After": "86400"})
            case "failing":
                return response(500, {"error": {"message": "internal error"}})
            case "overloaded":
                return response(529, {"error": {"message": "overloaded"}})
            case "slow":
                return None
            case "half":
                return response(200, good)[:-40]
            case "dropped":
                return b""
            case "too_large":
                return response(200, json.dumps(good) + 1_000_000 * " ")
            case "malformed":
                return response(200, json.dumps(good)[:-10])
            case "another_shape":
                return response(200, {"result": "ok"})
            case "no_object":
                return response(200, ["ok"])
            case "content_type":
                page = "<html>Please log in</html>"
                return response(200, page, {"Content-Type": "text/html"})
            case "empty":
                return response(200, message(api, ""))
            case "blank":
                return response(200, message(api, " \n"))
            case "refusal":
                return response(200, message(api, "I cannot help.", "refused"))
            case "cut":
                return response(200, message(api, "Use the", "cut"))
            case "denied":
                key = "Incorrect API key provided: sk-secret-of-the-test"
                return response(401, {"error": {"message": key}})
            case "invalid":
                return response(400, {"error": {"message": "unknown model"}})
            case "uncounted":
                return response(200, {**good, "usage": None})
        return response(200, good)


def message(api, text, finish="complete"):
    """A model's answer in the words of an API."""
    if api == "anthropic":
        reasons = {"complete": "end_turn", "cut": "max_tokens", "refused": "refusal"}
        return {
            "id": "msg",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": [{"type": "text", "text": text}] if text else [],
            "stop_reason": reasons[finish],
            "usage": USAGE[api],
        }
    reasons = {"complete": "stop", "cut": "length", "refused": "content_filter"}
    return {
        "id": "chatcmpl",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": reasons[finish],
            }
        ],
        "usage": USAGE[api],
    }


def response(status, body, headers=None):
    """Bytes of an HTTP answer."""
    content = body if isinstance(body, str) else json.dumps(body)
    fields = {
        "Content-Type": "application/json",
        "Content-Length": str(len(content.encode())),
        "Connection": "close",
        **(headers or {}),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Said\r\n{lines}\r\n{content}".encode()


@contextmanager
def in_thread(server):
    """The server in a thread of its own, for clients with a loop of their own."""
    loop = asyncio.new_event_loop()
    started, stop = threading.Event(), asyncio.Event()

    async def run():
        async with server.running():
            started.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    started.wait()
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
