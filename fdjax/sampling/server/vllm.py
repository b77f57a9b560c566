"""vLLM's completions, with token ids; weights by its development mode's endpoints."""

from dataclasses import dataclass
from typing import Any

from fdjax.sampling.server.connection import Connection, RequestError
from fdjax.sampling.server.dialect import (
    Asked,
    Reply,
    Served,
    broken,
    finish_of,
    require_model,
)

__all__ = ["VLLM"]

_ABSENT = (404, 405)


@dataclass(frozen=True)
class VLLM:
    """From 0.10.2 on, which gives token ids (`Dialect`)."""

    model: str

    def request(self, asked: Asked) -> tuple[str, dict[str, Any]]:
        """See `Dialect.request`.

        Everything that changes a distribution is named, for what is not comes from the
        model's generation_config.json.
        """
        return "/v1/completions", {
            "model": self.model,
            "prompt": asked.prompt,
            "max_tokens": asked.budget,
            "temperature": asked.temperature,
            "top_p": 1.0,
            "top_k": -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            # 0 would do, but not on TPUs.
            "logprobs": 1,
            "return_token_ids": True,
            "stop_token_ids": sorted(asked.stops),
            # The tokenizer's end of text is no stop token unless it is one of ours.
            "ignore_eos": True,
            **({} if asked.seed is None else {"seed": asked.seed}),
        }

    def read(self, body: Any, asked: Asked) -> Reply:
        """See `Dialect.read`."""
        choices = body.get("choices") if isinstance(body, dict) else None
        if not isinstance(choices, list) or len(choices) != 1:
            raise broken("one choice", body)
        if body.get("model") != self.model:
            raise broken(f"an answer of {self.model!r}", body.get("model"))
        [choice] = choices
        known = choice.get("logprobs") if isinstance(choice, dict) else None
        if not isinstance(known, dict):
            raise broken("log-probabilities in the choice", choice)
        if choice.get("token_ids") is None:
            raise RequestError(
                "no token_ids, which vLLM gives from 0.10.2 on", final=True
            )
        if choice.get("prompt_token_ids") not in (None, asked.prompt):
            raise broken("the prompt as it was sent", choice["prompt_token_ids"])
        return Reply(
            tokens=choice["token_ids"],
            logprobs=known.get("token_logprobs", []),
            finish=finish_of(choice.get("finish_reason"), choice.get("finish_reason")),
        )

    async def load(
        self, connection: Connection, served: Served, timeout_s: float
    ) -> None:
        """See `Dialect.load`. The prefix cache holds the old weights' work: it goes."""
        rpc = {"method": "reload_weights", "kwargs": {"weights_path": served.path}}
        try:
            body = await connection.post("/collective_rpc", rpc, timeout_s=timeout_s)
        except RequestError as error:
            if error.status not in (*_ABSENT, 500, 501):
                raise
            raise RequestError(
                f"{error}: vLLM loads weights with VLLM_SERVER_DEV_MODE=1; on TPUs, "
                "which load none, it is started again with each version (`restart`)",
                final=True,
            ) from None
        if not isinstance(body, dict) or not isinstance(body.get("results"), list):
            raise broken("the results of reload_weights", body)
        forget = "/reset_prefix_cache?reset_running_requests=true"
        await connection.post(forget, None, timeout_s=timeout_s)
        mark = {"new_version": served.mark}
        try:
            await connection.post("/update_weight_version", mark, timeout_s=timeout_s)
        except RequestError as error:
            # Older ones cannot say what they hold.
            if error.status not in _ABSENT:
                raise

    async def holds(self, connection: Connection, served: Served) -> bool | None:
        """See `Dialect.holds`: by its mark, or because it was started with them."""
        mark = await _mark(connection)
        if mark == served.mark:
            return True
        card = await require_model(connection, self.model)
        if card.get("root") == served.path:
            return True
        return None if mark is None else False


async def _mark(connection: Connection) -> str | None:
    try:
        body = await connection.get("/weight_info")
    except RequestError as error:
        if error.status in _ABSENT:
            return None
        raise
    if not isinstance(body, dict) or "weight_version" not in body:
        raise broken("a weight_version", body)
    return str(body["weight_version"])
