"""Models behind OpenAI's chat completions, or a server that speaks the same."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fdjax.errors import InstallError
from fdjax.feedback.chat.chat import Finish, Question
from fdjax.feedback.chat.endpoint import (
    Completion,
    RequestError,
    json_answer,
    malformed,
    reported,
    require_parameters,
    status_error,
)
from fdjax.feedback.failure import Kind
from fdjax.http import bound_answer, redacted, require_address, secret_of
from fdjax.ranges import Among, Whole, require_fields

__all__ = ["OpenAIEndpoint"]

_FINISH: dict[str, Finish] = {"length": "cut", "content_filter": "refused"}
"""Reasons to stop other than that the answer is complete."""


@dataclass(frozen=True, kw_only=True)
class OpenAIEndpoint:
    """A model of OpenAI, vLLM, SGLang, Ollama, OpenRouter, … (extra `feedback`)."""

    model: str
    """The server's name of it."""
    base_url: str = "https://api.openai.com/v1"
    """Address of the API."""
    key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; empty where the server asks for none."""
    max_tokens: int = 2048
    """Tokens of an answer at most, hidden reasoning included."""
    max_tokens_field: Literal["max_completion_tokens", "max_tokens"] = (
        "max_completion_tokens"
    )
    """What the server calls that limit; older servers know the second name alone."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the request, such as {"temperature": 0.7}."""

    def __post_init__(self) -> None:
        require_fields(
            self,
            max_tokens=Whole(1),
            max_tokens_field=Among("max_completion_tokens", "max_tokens"),
        )
        require_address(self.base_url)
        limits = {"max_completion_tokens", "max_tokens"}
        require_parameters(
            self.parameters, {"model", "messages", "stream", "n"} | limits
        )

    @property
    def identity(self) -> Mapping[str, Any]:
        """API, model and parameters."""
        limit = {self.max_tokens_field: self.max_tokens}
        return {
            "api": "openai",
            "model": self.model,
            "parameters": {**limit, **self.parameters},
        }

    def connect(self) -> "OpenAIConnection":
        """A client.

        Raises:
          ConfigError: `key_env` names a variable that is not set.
          InstallError: the package openai is missing.
        """
        return OpenAIConnection(self)


class OpenAIConnection:
    """An open client."""

    def __init__(self, endpoint: OpenAIEndpoint) -> None:
        """Read the key and prepare; the first request connects."""
        self._endpoint = endpoint
        self._secret = secret_of(endpoint.key_env)
        try:
            import openai
        except ImportError as error:
            raise InstallError(
                f"An OpenAI-compatible model needs the package {error.name}, which is "
                "missing; run `pip install fdjax[feedback]`, or replay a recording."
            ) from error
        # Retries are our own: two policies would multiply.
        self._client = openai.AsyncOpenAI(
            api_key=self._secret,
            base_url=endpoint.base_url,
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(
                event_hooks={"response": [bound_answer]}
            ),
        )

    async def send(self, question: Question, timeout_s: float) -> Completion:
        """Ask once (`Connection`)."""
        import openai

        endpoint = self._endpoint
        messages: list[Any] = [{"role": "user", "content": question.user}]
        if question.system:
            messages.insert(0, {"role": "system", "content": question.system})
        body = {endpoint.max_tokens_field: endpoint.max_tokens, **endpoint.parameters}
        try:
            raw = await self._client.chat.completions.with_raw_response.create(
                model=endpoint.model,
                messages=messages,
                extra_body=body,
                timeout=timeout_s,
            )
        except openai.APITimeoutError:
            raise RequestError(Kind.TIMEOUT, f"no answer in {timeout_s:g} s") from None
        except openai.APIStatusError as error:
            raise status_error(
                error.status_code,
                error.response.headers,
                error.response.content,
                secret=self._secret,
            ) from None
        except openai.APIConnectionError as error:
            what = redacted(f"{error.__cause__ or error}", self._secret)
            raise RequestError(Kind.CONNECTION, what) from None
        answer = raw.http_response
        return _read(
            json_answer(answer.headers.get("content-type", ""), answer.content)
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.close()


def _read(body: Mapping[str, Any]) -> Completion:
    """The first choice of a chat completion."""
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        # Gateways report an error with success.
        raise malformed("a list of choices", body.get("error", body))
    message, reason = choices[0].get("message"), choices[0].get("finish_reason")
    if not isinstance(message, dict):
        raise malformed("a message in the first choice", choices[0])
    content, refusal = message.get("content"), message.get("refusal")
    if not isinstance(content, str | None):
        raise malformed("text as the message's content", content)
    usage = body.get("usage")
    return Completion(
        text=content or str(refusal or ""),
        finish="refused" if refusal else _FINISH.get(str(reason), "complete"),
        input_tokens=reported(usage, "prompt_tokens"),
        output_tokens=reported(usage, "completion_tokens"),
    )
