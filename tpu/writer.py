"""The model that writes feedback, as a run's own flags have it."""

from collections.abc import Sequence

from fdjax.feedback import AnthropicEndpoint, OpenAIEndpoint

__all__ = ["writer_of"]

_CHOICE = "feedback.endpoint:"
_ADDRESS = "--feedback.endpoint.base-url"
_REPLAY = "--feedback.replay"
_DEFAULTS = {
    "open-ai-endpoint": OpenAIEndpoint.base_url,
    "anthropic-endpoint": AnthropicEndpoint.base_url,
}


def writer_of(flags: Sequence[str]) -> str:
    """Address of the writer's API; empty where a run asks none.

    Args:
      flags: of the experiment, such as `feedback.endpoint:open-ai-endpoint
        --feedback.endpoint.base-url http://writer:8000/v1`.
    """
    address, replays = "", False
    words = iter(flags)
    for word in words:
        flag, given, _ = word.replace("_", "-").partition("=")
        if word.startswith(_CHOICE):
            address = _DEFAULTS.get(word.removeprefix(_CHOICE), "")
        elif flag == _ADDRESS:
            address = word[len(flag) + 1 :] if given else next(words, "")
        elif flag == _REPLAY:
            replays = True
    return "" if replays else address
