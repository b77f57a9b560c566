"""vLLM's and SGLang's HTTP on a loopback socket, around `Model.apply`; with faults.

What an answer holds, and when it is refused, follows vLLM's `entrypoints/openai` and
`entrypoints/serve/dev`, and SGLang's `srt/entrypoints/http_server.py`.
"""

import asyncio
import functools
import json
import threading
from contextlib import suppress

import jax
import numpy as np

from fdjax.checkpoint import load_pretrained
from tiny import MODEL, mesh_of

WIDTH = 64
"""Tokens of prompt and completion, at most."""
EOS = 1
"""The end of text by the model's own account."""
_APPLY = jax.jit(MODEL.apply)
_STATUS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found"}


class EngineServer:
    """A server that is started with the weights of a folder.

    `faults` are met by the next requests for tokens, one each. Settings: `marks`
    (whether vLLM knows `/weight_info`), `loads` (whether weights can be loaded while
    it runs, and requests have seeds), `raw` (log-probabilities before the temperature),
    `forgets` (whether `/reset_prefix_cache` does anything), `key`.
    """

    def __init__(self, api, folder, **settings):
        self.api, self.model = api, "policy"
        self.marks = self.loads = self.forgets = True
        self.raw, self.key = False, ""
        vars(self).update(settings)
        self.faults, self.requests, self.delay_s = [], [], 0.0
        self.generated = 0
        self._folder, self._port, self._writers = folder, 0, set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._listener = None
        self.start(folder)

    @property
    def url(self):
        return f"http://127.0.0.1:{self._port}"

    def asked(self):
        """Bodies of requests for tokens, without the probe's."""
        bodies = [body for path, body in self.requests if path == self._generate]
        return [body for body in bodies if self._wants(body)["budget"] != 32]

    def start(self, folder):
        """Listens, with weights of a folder, as a new process would."""
        self._root, self._mark = str(folder), "default"
        self._loaded = self._computed = self._read(str(folder))
        self._call(self._listen())

    def stop(self):
        """Cuts all connections, as a process that ends does."""
        self._call(self._hang_up())

    def restart(self, folder=None):
        self.stop()
        self.start(folder or self._folder)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
        self._call(self._ended())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _listen(self):
        self._listener = await asyncio.start_server(
            self._serve, "127.0.0.1", self._port
        )
        self._port = self._listener.sockets[0].getsockname()[1]

    async def _hang_up(self):
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _ended(self):
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)

    @staticmethod
    @functools.cache
    def _read(folder):
        return load_pretrained(folder, mesh_of(), dtype="float32").params

    async def _serve(self, reader, writer):
        self._writers.add(writer)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            start, *lines = head.strip().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines)
            headers = {name.lower(): value for name, value in headers.items()}
            content = await reader.readexactly(int(headers.get("content-length", 0)))
            path = start.split()[1].partition("?")[0]
            body = json.loads(content) if content else None
            self.requests.append((path, body))
            if self.key and headers["authorization"] != f"Bearer {self.key}":
                said = f"wrong key {headers['authorization']}"
                writer.write(_response(401, {"error": {"message": said}}))
            elif path == self._generate:
                writer.write(await self._tokens(body, reader))
            else:
                writer.write(_response(*self._manage(path, body)))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            with suppress(RuntimeError):
                writer.close()

    @property
    def _generate(self):
        return "/v1/completions" if self.api == "vllm" else "/generate"

    # Weights

    def _manage(self, path, body):
        match self.api, path:
            case _, "/v1/models":
                card = {"id": self.model, "root": self._root}
                return 200, {"object": "list", "data": [card]}
            case "vllm", "/weight_info" if self.marks:
                return 200, {"weight_version": self._mark}
            case "vllm", "/update_weight_version" if self.marks:
                self._mark = body["new_version"]
                return 200, {"success": True, "new_version": self._mark}
            case "vllm", "/collective_rpc" if not self.loads:
                return 500, {"error": {"message": "no attribute 'reload_weights'"}}
            case "vllm", "/collective_rpc":
                assert body["method"] == "reload_weights"
                self._loaded = self._read(body["kwargs"]["weights_path"])
                return 200, {"results": [None]}
            case "vllm", "/reset_prefix_cache":
                if self.forgets:
                    self._computed = self._loaded
                return 200, {}
            case "sglang", "/update_weights_from_disk" if self.loads:
                self._loaded = self._computed = self._read(body["model_path"])
                self._root, self._mark = body["model_path"], body["weight_version"]
                return 200, {"success": True, "message": "ok"}
            case "sglang", "/get_model_info":
                said = {"model_path": self._root, "is_generation": True}
                return 200, said | (
                    {"weight_version": self._mark} if self.loads else {}
                )
        return 404, {"detail": "Not Found"}

    # Tokens

    def _wants(self, body):
        if self.api == "vllm":
            return {
                "prompt": body["prompt"],
                "budget": body["max_tokens"],
                "seed": body.get("seed"),
                **{name: body.get(name) for name in _SHARED},
            }
        settings = body["sampling_params"]
        return {
            "prompt": body["input_ids"],
            "budget": settings["max_new_tokens"],
            "seed": settings.get("sampling_seed"),
            **{name: settings.get(name) for name in _SHARED},
        }

    async def _tokens(self, body, reader):
        fault = self.faults.pop(0) if self.faults else ""
        mark, wants = self._mark, self._wants(body)
        await asyncio.sleep(self.delay_s)
        match fault:
            case "busy":
                return _response(429, _error("full"), "Retry-After: 0.001")
            case "busy_for_long":
                return _response(429, _error("full"), "Retry-After: 3600")
            case "failing":
                return _response(500, _error("internal error"))
            case "slow":
                await reader.read()  # until the client gives up
                return b""
            case "dropped":
                return b""
            case "away":
                await self._hang_up()
                return b""
            case "restart":
                await self._hang_up()
                self._root, self._mark = str(self._folder), "default"
                self._loaded = self._computed = self._read(str(self._folder))
                await self._listen()
                return b""
        if wants["seed"] is not None and not self.loads and self.api == "vllm":
            return _response(400, _error("JAX does not support per-request seed."))
        if self.api == "vllm" and body["model"] != self.model:
            return _response(404, _error("The model does not exist."))
        if len(wants["prompt"]) + wants["budget"] > WIDTH:
            return _response(400, _error("maximum context length"))
        tokens, logprobs, reason = self._sample(**wants)
        match fault:
            case "fewer":
                logprobs = logprobs[:-1]
            case "beyond":
                tokens[-1] = MODEL.config.vocab_size
            case "early":
                assert len(tokens) > 1
                tokens[0] = wants["stop_token_ids"][0]
            case "impossible":
                logprobs[0] = -9999.0
            case "abort":
                reason = "abort"
            case "no_stop":
                assert tokens[-1] in wants["stop_token_ids"]
                tokens, logprobs = tokens[:-1], logprobs[:-1]
        self.generated += 1
        if self.api == "vllm":
            answer = self._completion(body, tokens, logprobs, reason)
        else:
            answer = self._generation(tokens, logprobs, reason, mark)
        match fault:
            case "another_model":
                answer["model"] = "other"
            case "another_shape":
                answer = {"result": "ok"}
            case "half":
                return _response(200, answer)[:-20]
            case "too_large":
                return _response(200, json.dumps(answer) + 1_000_000 * " ")
            case "no_json":
                return _response(200, json.dumps(answer)[:-20])
        return _response(200, answer)

    def _sample(
        self,
        *,
        prompt,
        budget,
        seed,
        temperature,
        top_k,
        stop_token_ids,
        ignore_eos,
    ):
        rng = np.random.default_rng(seed)
        stops = {*stop_token_ids, *([] if ignore_eos else [EOS])}
        if self.api == "sglang" and ignore_eos:
            stops = set()
        ids, logprobs = list(prompt), []
        for _ in range(budget):
            row = np.zeros((1, WIDTH), np.int32)
            row[0, : len(ids)] = ids
            valid = np.arange(WIDTH)[None] < len(ids)
            logits = np.asarray(_APPLY(self._computed, row, valid=valid))
            logits = logits[0, len(ids) - 1].astype(np.float64)
            policy = _normal(logits / temperature)
            # What is not asked for comes from generation_config.json.
            cut = 20 if top_k is None else top_k
            kept = np.sort(policy)[-cut] if cut > 0 else -np.inf
            drawn = np.where(policy >= kept, policy, -np.inf)
            token = int((drawn + rng.gumbel(size=len(drawn))).argmax())
            shown = _normal(logits) if self.raw else _normal(drawn)
            ids.append(token)
            logprobs.append(float(shown[token]))
            if token in stops:
                return ids[len(prompt) :], logprobs, "stop"
        return ids[len(prompt) :], logprobs, "length"

    def _completion(self, body, tokens, logprobs, reason):
        known = {"tokens": ["?"] * len(tokens), "token_logprobs": logprobs}
        choice = {
            "index": 0,
            "text": "?",
            "finish_reason": reason,
            "logprobs": known if body.get("logprobs") is not None else None,
        }
        if body.get("return_token_ids"):
            choice |= {"token_ids": tokens, "prompt_token_ids": body["prompt"]}
        return {"object": "text_completion", "model": self.model, "choices": [choice]}

    def _generation(self, tokens, logprobs, reason, mark):
        pairs = [
            [value, token, None] for value, token in zip(logprobs, tokens, strict=False)
        ]
        known = {
            "finish_reason": {"type": reason},
            "completion_tokens": len(tokens),
            "output_token_logprobs": pairs,
        }
        if self.loads:
            known["weight_version"] = mark
        return {"text": "?", "output_ids": tokens, "meta_info": known}


_SHARED = ("temperature", "top_k", "stop_token_ids", "ignore_eos")


def _normal(scores):
    best = scores.max()
    return scores - best - np.log(np.exp(scores - best).sum())


def _error(said):
    return {"error": {"message": said}}


def _response(status, body, *headers):
    content = (body if isinstance(body, str) else json.dumps(body)).encode()
    lines = [
        f"HTTP/1.1 {status} {_STATUS.get(status, 'Error')}",
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
        "Connection: close",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + content
