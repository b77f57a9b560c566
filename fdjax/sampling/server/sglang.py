"""SGLang's own API, with token ids; weights from a folder."""

from dataclasses import dataclass
from typing import Any

from fdjax.sampling.server.connection import Connection, RequestError
from fdjax.sampling.server.dialect import (
    Asked,
    Reply,
    Served,
    broken,
    finish_of,
)

__all__ = ["SGLang"]


@dataclass(frozen=True)
class SGLang:
    """SGLang and SGLang-JAX (`Dialect`)."""

    model: str

    def request(self, asked: Asked) -> tuple[str, dict[str, Any]]:
        """See `Dialect.request`.

        The tokenizer's end of text is a stop token, unless there are none at all:
        `ignore_eos` would ignore ours, too.
        """
        return "/generate", {
            "input_ids": asked.prompt,
            "return_logprob": True,
            "return_text_in_logprobs": False,
            "sampling_params": {
                "max_new_tokens": asked.budget,
                "temperature": asked.temperature,
                "top_p": 1.0,
                "top_k": -1,
                "min_p": 0.0,
                "repetition_penalty": 1.0,
                "presence_penalty": 0.0,
                "frequency_penalty": 0.0,
                "stop_token_ids": sorted(asked.stops),
                "ignore_eos": not asked.stops,
                **({} if asked.seed is None else {"sampling_seed": asked.seed}),
            },
        }

    def read(self, body: Any, asked: Asked) -> Reply:
        """See `Dialect.read`. Log-probabilities come with their tokens."""
        known = body.get("meta_info") if isinstance(body, dict) else None
        if not isinstance(known, dict):
            raise broken("meta_info", body)
        reason = known.get("finish_reason")
        kind = reason.get("type") if isinstance(reason, dict) else reason
        finish = finish_of(kind, reason)
        pairs = known.get("output_token_logprobs")
        if not isinstance(pairs, list) or not all(
            isinstance(pair, list) and len(pair) >= 2 for pair in pairs
        ):
            raise broken("output_token_logprobs", pairs)
        if len(pairs) != known.get("completion_tokens"):
            raise broken(
                f"{known.get('completion_tokens')} log-probabilities", len(pairs)
            )
        mark = known.get("weight_version")
        return Reply(
            tokens=[pair[1] for pair in pairs],
            logprobs=[pair[0] for pair in pairs],
            finish=finish,
            mark=None if mark is None else str(mark),
        )

    async def load(
        self, connection: Connection, served: Served, timeout_s: float
    ) -> None:
        """See `Dialect.load`. SGLang drops its prefix cache by itself."""
        order = {"model_path": served.path, "weight_version": served.mark}
        path = "/update_weights_from_disk"
        try:
            body = await connection.post(path, order, timeout_s=timeout_s)
        except RequestError as error:
            if error.status != 404:
                raise
            raise RequestError(
                f"{error}: SGLang-JAX, which loads none, is started again with each "
                "version (`restart`)",
                final=True,
            ) from None
        if not isinstance(body, dict) or body.get("success") is not True:
            raise broken("success of update_weights_from_disk", body)

    async def holds(self, connection: Connection, served: Served) -> bool | None:
        """See `Dialect.holds`: by its mark, or because it was started with them."""
        body = await connection.get("/get_model_info")
        if not isinstance(body, dict) or "model_path" not in body:
            raise broken("a model_path", body)
        if served.mark == body.get("weight_version"):
            return True
        return body["model_path"] == served.path
