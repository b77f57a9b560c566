"""What becomes of a sample when the model's server fails: the table of the document."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from fdjax import http
from fdjax.feedback import (
    AnthropicEndpoint,
    Critique,
    Limits,
    OpenAIEndpoint,
    RemoteChat,
    feedback_metrics,
)
from fdjax.feedback.writing import aclose_all
from feedback.attempts import failed
from feedback.model_server import ModelServer

DOCUMENT = Path(__file__).parents[2] / "docs" / "feedback.md"
ATTEMPTS = 3
FAULTS = {
    "busy_once": "429 once, without `Retry-After`",
    "busy_once_retry_after": "429 once, with `Retry-After`",
    "busy": "429 every time",
    "busy_for_long": "429 with `Retry-After` beyond `longest_pause_s`",
    "failing": "500 every time",
    "overloaded": "529 every time",
    "slow": "nothing for longer than `timeout_s`",
    "half": "half an answer, then the connection ends",
    "dropped": "the connection ends without an answer",
    "too_large": "more than 64 MiB",
    "malformed": "malformed JSON",
    "another_shape": "JSON of another shape",
    "content_type": "a page of HTML with status 200",
    "empty": "no text",
    "blank": "blanks alone",
    "refusal": "a refusal",
    "cut": "an answer cut at `max_tokens`",
    "denied": "401: the key is wrong",
    "invalid": "400: the request is wrong",
}
PATIENT = Limits(attempts=ATTEMPTS, longest_pause_s=0.2)
IMPATIENT = replace(PATIENT, timeout_s=0.2)


def endpoint(api, url, key_env=""):
    if api == "openai":
        return OpenAIEndpoint(model="m", base_url=f"{url}/v1", key_env=key_env)
    return AnthropicEndpoint(model="m", base_url=url, key_env=key_env)


async def table_of(api):
    """For each fault the feedback on an attempt that meets it, between two others."""
    rows = {}
    async with ModelServer().running() as server:
        writers = {
            limits: Critique(chat=RemoteChat(endpoint(api, server.url), limits=limits))
            for limits in (PATIENT, IMPATIENT)
        }
        # Only where the server never answers does it matter how long one waits.
        faults = [name for name in FAULTS if name != "slow"]
        groups = [
            [failed("  a"), failed(f"  fault_{name}"), failed("  b")] for name in faults
        ]
        *notes, slow = await asyncio.gather(
            *map(writers[PATIENT].write, groups),
            writers[IMPATIENT].write([failed("  fault_slow")]),
        )
        await aclose_all(writers.values())
        for name, (before, met, after) in zip(faults, notes, strict=True):
            assert before.text == after.text == "Use h1.2.", name
            rows[name] = met
    return {name: rows.get(name, slow[0]) for name in FAULTS}


@pytest.fixture(scope="module")
def tables():
    """Rows of both SDKs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http, "LARGEST_ANSWER", 100_000)
        return {api: asyncio.run(table_of(api)) for api in ("openai", "anthropic")}


def outcome(note):
    requests = note.usage.requests
    sent = f"{requests} request" + ("s" if requests > 1 else "")
    return sent, f"no feedback: `{note.kind}`" if note.kind else "feedback"


def test_both_sdks_fail_alike(tables):
    for name in FAULTS:
        found = {api: outcome(rows[name]) for api, rows in tables.items()}
        assert found["openai"] == found["anthropic"], (name, tables)


def test_the_document_has_the_table(tables):
    lines = ["| The server answers | Sent | The sample has |", "| --- | --- | --- |"]
    for name, words in FAULTS.items():
        lines.append(f"| {words} | {' | '.join(outcome(tables['openai'][name]))} |")
    assert "\n".join(lines) in DOCUMENT.read_text(), "\n".join(lines)


def test_missing_feedback_is_counted(tables):
    notes = list(tables["openai"].values())
    metrics = feedback_metrics(notes)
    missing = [note for note in notes if not note.available]
    assert metrics["feedback/missing"] == (len(missing), len(FAULTS))
    assert metrics["feedback/missing_rate_limit"] == (2, len(FAULTS))
    assert metrics["feedback/missing_empty"] == (2, len(FAULTS))
    assert metrics["feedback/missing_refusal"].total == 1


def test_no_error_tells_the_key(tables):
    for rows in tables.values():
        assert rows["denied"].error == ("denied: 401 Incorrect API key provided: [key]")
