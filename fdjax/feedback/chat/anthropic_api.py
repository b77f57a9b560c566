"""Models behind Anthropic's messages API."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

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
from fdjax.ranges import Whole, require_fields

__all__ = ["AnthropicEndpoint"]

_FINISH: dict[str, Finish] = {
    "max_tokens": "cut",
    "model_context_window_exceeded": "cut",
    "refusal": "refused",
}
"""Reasons to stop other than that the answer is complete."""
_INPUT = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
"""What a request's input is the sum of."""


@dataclass(frozen=True, kw_only=True)
class AnthropicEndpoint:
    """A model of Anthropic, or of a server that speaks its API (extra `feedback`)."""

    model: str
    """The server's name of it."""
    base_url: str = "https://api.anthropic.com"
    """Address of the API."""
    key_env: str = "ANTHROPIC_API_KEY"
    """Environment variable that holds the key; empty where the server asks for none."""
    max_tokens: int = 2048
    """Tokens of an answer at most, thinking included."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the request, such as {"thinking": {"type": "adaptive"}}."""

    def __post_init__(self) -> None:
        require_fields(self, max_tokens=Whole(1))
        require_address(self.base_url)
        own = {"model", "messages", "system", "stream", "max_tokens"}
        require_parameters(self.parameters, own)

    @property
    def identity(self) -> Mapping[str, Any]:
        """API, model and parameters."""
        return {
            "api": "anthropic",
            "model": self.model,
            "parameters": {"max_tokens": self.max_tokens, **self.parameters},
        }

    def connect(self) -> "AnthropicConnection":
        """A client.

        Raises:
          ConfigError: `key_env` names a variable that is not set.
          InstallError: the package anthropic is missing.
        """
        return AnthropicConnection(self)


class AnthropicConnection:
    """An open client."""

    def __init__(self, endpoint: AnthropicEndpoint) -> None:
        """Read the key and prepare; the first request connects."""
        self._endpoint = endpoint
        self._secret = secret_of(endpoint.key_env)
        try:
            import anthropic
        except ImportError as error:
            raise InstallError(
                f"Anthropic's models need the package {error.name}, which is missing; "
                "run `pip install fdjax[feedback]`, or replay a recording."
            ) from error
        # Retries are our own: two policies would multiply.
        self._client = anthropic.AsyncAnthropic(
            api_key=self._secret,
            base_url=endpoint.base_url,
            max_retries=0,
            http_client=anthropic.DefaultAsyncHttpxClient(
                event_hooks={"response": [bound_answer]}
            ),
        )

    async def send(self, question: Question, timeout_s: float) -> Completion:
        """Ask once (`Connection`)."""
        import anthropic

        endpoint = self._endpoint
        try:
            raw = await self._client.messages.with_raw_response.create(
                model=endpoint.model,
                max_tokens=endpoint.max_tokens,
                messages=[{"role": "user", "content": question.user}],
                system=question.system or anthropic.omit,
                extra_body=dict(endpoint.parameters),
                timeout=timeout_s,
            )
            body = await raw.read()
        except anthropic.APITimeoutError:
            raise RequestError(Kind.TIMEOUT, f"no answer in {timeout_s:g} s") from None
        except anthropic.APIStatusError as error:
            raise status_error(
                error.status_code,
                error.response.headers,
                error.response.content,
                secret=self._secret,
            ) from None
        except anthropic.APIConnectionError as error:
            what = redacted(f"{error.__cause__ or error}", self._secret)
            raise RequestError(Kind.CONNECTION, what) from None
        return _read(json_answer(raw.headers.get("content-type", ""), body))

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.close()


def _read(body: Mapping[str, Any]) -> Completion:
    """The text blocks of a message; its thinking is left out."""
    blocks = body.get("content")
    if not isinstance(blocks, list) or not all(isinstance(b, dict) for b in blocks):
        raise malformed("a list of content blocks", blocks or body)
    texts = [block.get("text") for block in blocks if block.get("type") == "text"]
    if not all(isinstance(text, str) for text in texts):
        raise malformed("text in each text block", blocks)
    usage = body.get("usage")
    counts = [reported(usage, key) for key in _INPUT]
    return Completion(
        text="".join(map(str, texts)),
        finish=_FINISH.get(str(body.get("stop_reason")), "complete"),
        input_tokens=None if counts[0] is None else sum(n or 0 for n in counts),
        output_tokens=reported(usage, "output_tokens"),
    )
