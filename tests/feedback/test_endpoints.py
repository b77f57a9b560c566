"""What the two APIs answer, and what is read of it."""

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from fdjax.errors import ConfigError, InstallError
from fdjax.feedback import AnthropicEndpoint, Kind, OpenAIEndpoint
from fdjax.feedback.chat import Question, RequestError
from fdjax.feedback.chat.endpoint import status_error
from fdjax.http import redacted
from feedback.model_server import ModelServer

QUESTION = Question(system="", user="why?", template="t@1")


def answers(api, *bodies):
    """What an endpoint makes of the bodies that a server answers with, in order."""

    async def run():
        script = list(bodies)
        found = []
        async with ModelServer(lambda _: script.pop(0)).running() as server:
            endpoint = (
                OpenAIEndpoint(model="m", base_url=f"{server.url}/v1", key_env="")
                if api == "openai"
                else AnthropicEndpoint(model="m", base_url=server.url, key_env="")
            )
            connection = endpoint.connect()
            for _ in bodies:
                try:
                    found.append(await connection.send(QUESTION, 60.0))
                except RequestError as error:
                    found.append(error)
            await connection.aclose()
        return found, server.requests

    return asyncio.run(run())


def choice(message, reason="stop", **others):
    return {"choices": [{"message": message, "finish_reason": reason}], **others}


def test_openai():
    used = {"prompt_tokens": 5, "completion_tokens": 2}
    found, requests = answers(
        "openai",
        choice({"content": "fine", "reasoning_content": "hm"}, usage=used),
        choice({"content": None, "refusal": "I will not."}),
        choice({"content": "par"}, "content_filter"),
        choice({"content": "par"}, "length"),
        choice({"content": "fine"}, None, usage={"prompt_tokens": "many"}),
        choice({"content": [{"type": "text"}]}),
        choice(None),
        {"choices": []},
        {"error": {"message": "no provider has room"}},
    )
    assert (found[0].text, found[0].finish) == ("fine", "complete")
    assert (found[0].input_tokens, found[0].output_tokens) == (5, 2)
    assert [each.finish for each in found[1:5]] == [
        "refused",
        "refused",
        "cut",
        "complete",
    ]
    assert found[1].text == "I will not."
    assert found[4].input_tokens is None
    assert [each.kind for each in found[5:]] == [Kind.MALFORMED] * 4
    assert "no provider has room" in str(found[8])
    # Without a system text there is no system turn.
    assert [turn["role"] for turn in requests[0][2]["messages"]] == ["user"]


def test_anthropic():
    def block(text, kind="text"):
        return {"type": kind, kind: text}

    used = {"input_tokens": 5, "cache_read_input_tokens": 30, "output_tokens": 2}
    found, requests = answers(
        "anthropic",
        {"content": [block("hm", "thinking"), block("fi"), block("ne")], "usage": used},
        {"content": [], "stop_reason": "refusal"},
        {"content": [block("par")], "stop_reason": "max_tokens"},
        {"content": [block("par")], "stop_reason": "model_context_window_exceeded"},
        {"content": None},
        {"content": ["fine"]},
        {"content": [block(3)]},
    )
    assert (found[0].text, found[0].finish) == ("fine", "complete")
    assert (found[0].input_tokens, found[0].output_tokens) == (35, 2)
    assert [each.finish for each in found[1:4]] == ["refused", "cut", "cut"]
    assert found[1].input_tokens is None
    assert [each.kind for each in found[4:]] == [Kind.MALFORMED] * 3
    assert "system" not in requests[0][2]


def error(status, body=b"", secret="none", **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status_error(status, named, body, secret=secret)


@pytest.mark.parametrize(
    ("status", "kind", "transient"),
    [
        (400, Kind.INVALID, False),
        (401, Kind.DENIED, False),
        (402, Kind.DENIED, False),
        (403, Kind.DENIED, False),
        (404, Kind.INVALID, False),
        (408, Kind.SERVER, True),
        (409, Kind.SERVER, True),
        (413, Kind.INVALID, False),
        (429, Kind.RATE_LIMIT, True),
        (500, Kind.SERVER, True),
        (503, Kind.SERVER, True),
        (529, Kind.SERVER, True),
    ],
)
def test_what_a_status_means(status, kind, transient):
    found = error(status)
    assert (found.kind, found.transient) == (kind, transient)


def test_a_spent_quota_is_not_a_lack_of_room():
    body = b'{"error": {"code": "insufficient_quota", "message": "Add credit."}}'
    found = error(429, body)
    assert (found.kind, found.transient) == (Kind.DENIED, False)
    assert str(found) == "429 Add credit."


def test_a_server_knows_best_whether_to_ask_again():
    assert not error(500, x_should_retry="false").transient
    assert error(500, x_should_retry="true").transient


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "2"}, 2.0),
        ({"retry_after": "0.5"}, 0.5),
        ({"retry_after_ms": "1500", "retry_after": "9"}, 1.5),
        ({"retry_after": "-3"}, None),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "inf"}, None),
        ({}, None),
    ],
)
def test_how_long_to_wait(headers, seconds):
    assert error(429, **headers).retry_after_s == seconds


def test_a_moment_to_wait_for():
    moment = datetime.now(UTC) + timedelta(seconds=100)
    found = error(429, retry_after=format_datetime(moment, usegmt=True))
    assert 95 < found.retry_after_s <= 100
    past = datetime.now(UTC) - timedelta(days=1)
    assert error(503, retry_after=format_datetime(past)).retry_after_s == 0.0


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": {"message": "no"}}', "500 no"),
        (b'{"error": "no"}', "500 no"),
        (b'{"detail": "no"}', "500 no"),
        (b'["no"]', "500 ['no']"),
        (b"<html>no</html>", "500 <html>no</html>"),
        (b"\xff", "500 \ufffd"),
        (b"", "500"),
    ],
)
def test_what_a_server_says_of_an_error(body, said):
    assert str(error(500, body)) == said


def test_keys_are_taken_out():
    assert str(error(401, b"bad key my-key", secret="my-key")) == "401 bad key [key]"
    assert redacted("sk-ab12**cd is wrong", "another") == "[key] is wrong"
    # The placeholder of servers without keys is a word like any other.
    assert redacted("none of them", "none") == "none of them"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("api.example.com/v1", "got 'api.example.com/v1'"),
        ("ftp://example.com", "http"),
        ("http://[::1", "http"),
        ("https://name:secret@example.com", "without a name and a password"),
        ("https://secret@example.com", "without a name and a password"),
        ("name:secret@example.com", "without a name and a password"),
        ("https://example.com/v1?key=secret", "without a query"),
    ],
)
def test_addresses(url, said):
    for kind in (OpenAIEndpoint, AnthropicEndpoint):
        with pytest.raises(ConfigError, match=said) as caught:
            kind(model="m", base_url=url)
        assert "secret" not in str(caught.value)


def test_a_missing_sdk_is_named(monkeypatch):
    for name, kind in (("openai", OpenAIEndpoint), ("anthropic", AnthropicEndpoint)):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(InstallError, match=rf"package {name}.*fdjax\[feedback\]"):
            kind(model="m", key_env="").connect()
