"""Limits, retries, budgets and keys, against a server on a loopback socket."""

import asyncio
import logging
import time
from itertools import pairwise

import pytest

from fdjax.errors import ConfigError
from fdjax.feedback import (
    AnthropicEndpoint,
    Budget,
    Kind,
    Limits,
    OpenAIEndpoint,
    Prices,
    RemoteChat,
)
from fdjax.feedback.chat import Completion, Question, RequestError
from feedback.model_server import ModelServer


def question(text="why?", system="Be brief."):
    return Question(system=system, user=text, template="t@1")


class Scripted:
    """An endpoint that answers as it is told, and is its own connection."""

    def __init__(self, *script):
        self.identity = {"api": "script", "model": "m", "parameters": {}}
        self.script = list(script)
        self.starts = []
        self.at_once = self.most_at_once = 0

    def connect(self):
        return self

    async def send(self, question, timeout_s):
        self.starts.append(time.monotonic())
        step = self.script.pop(0) if self.script else "fine"
        if isinstance(step, BaseException):
            raise step
        if isinstance(step, float):
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            await asyncio.sleep(step)
            self.at_once -= 1
            step = "late"
        return Completion(text=step, finish="complete", input_tokens=7, output_tokens=3)

    async def aclose(self):
        self.closed = True


def asked(endpoint, count=1, **settings):
    """Answers to a few questions, and the chat that they were put to."""

    async def run():
        chat = RemoteChat(endpoint, **settings)
        try:
            questions = [question(f"{i}") for i in range(count)]
            return await chat.ask(questions), chat
        finally:
            await chat.aclose()

    return asyncio.run(run())


@pytest.mark.parametrize("api", ["openai", "anthropic"])
def test_what_is_sent(api, monkeypatch, caplog):
    monkeypatch.setenv("TEST_MODEL_KEY", "the-secret-key")
    caplog.set_level(logging.DEBUG)

    async def run():
        async with ModelServer().running() as server:
            settings = {
                "model": "m",
                "key_env": "TEST_MODEL_KEY",
                "max_tokens": 50,
                "parameters": {"temperature": 0.5},
            }
            endpoint = (
                OpenAIEndpoint(base_url=f"{server.url}/v1", **settings)
                if api == "openai"
                else AnthropicEndpoint(base_url=server.url, **settings)
            )
            chat = RemoteChat(endpoint, prices=Prices(input=3.0, output=15.0))
            [answer] = await chat.ask([question()])
            await chat.aclose()
            return endpoint, answer, server.requests[0]

    endpoint, answer, (_, headers, body) = asyncio.run(run())
    assert answer.text == "Use h1.2."
    # 100 tokens at 3 dollars and 10 at 15 dollars for a million.
    assert answer.usage.cost_usd == pytest.approx(0.00045)
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (100, 10)
    assert headers["authorization"] == "bearer the-secret-key"
    turns = [{"role": "user", "content": "why?"}]
    if api == "openai":
        turns = [{"role": "system", "content": "Be brief."}, *turns]
        others = {"max_completion_tokens": 50}
    else:
        others = {"system": "Be brief.", "max_tokens": 50}
    assert body == {"model": "m", "messages": turns, "temperature": 0.5, **others}
    assert "the-secret-key" not in f"{endpoint} {endpoint.identity} {caplog.text}"


def test_a_key_is_asked_for_before_anything_starts(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="environment variable OPENAI_API_KEY"):
        RemoteChat(OpenAIEndpoint(model="m"))


def test_parameters_have_one_home():
    with pytest.raises(ConfigError, match="without max_tokens"):
        OpenAIEndpoint(model="m", parameters={"max_tokens": 5})
    with pytest.raises(ConfigError, match="that JSON can hold"):
        AnthropicEndpoint(model="m", parameters={"temperature": float("nan")})


def test_concurrency_holds_over_all_groups():
    endpoint = Scripted(*[0.01] * 12)

    async def run():
        chat = RemoteChat(endpoint, limits=Limits(concurrency=3))
        groups = [[question(f"{g} {i}") for i in range(4)] for g in range(3)]
        return await asyncio.gather(*map(chat.ask, groups))

    answers = asyncio.run(run())
    assert endpoint.most_at_once == 3
    assert [len(group) for group in answers] == [4, 4, 4]


def test_retry_after_holds_everybody():
    busy = RequestError(Kind.RATE_LIMIT, "429", retry_after_s=0.3)
    # The first is refused, the second takes a while, the third would start then.
    endpoint = Scripted(busy, 0.05)
    answers, chat = asked(endpoint, 3, limits=Limits(concurrency=2))
    assert [answer.text for answer in answers] == ["fine", "late", "fine"]
    first, _, *later = endpoint.starts
    assert min(later) - first >= 0.3
    assert (chat.spent.requests, chat.spent.retries) == (4, 1)


def test_pauses_grow_and_are_not_in_step():
    chat = RemoteChat(Scripted(), limits=Limits(longest_pause_s=3.0))

    class State:
        """What tenacity tells of an attempt."""

        def __init__(self, number, retry_after_s=None):
            self.attempt_number = number
            self.outcome = self
            self.error = RequestError(Kind.SERVER, "", retry_after_s=retry_after_s)

        def exception(self):
            return self.error

    # Half a second that doubles: 0.5, 1, 2, then the longest allowed.
    for number, most in ((1, 0.5), (2, 1.0), (3, 2.0), (4, 3.0), (20, 3.0)):
        pauses = [chat._pause_s(State(number)) for _ in range(200)]
        assert 0 <= min(pauses) < 0.2 * most
        assert 0.8 * most < max(pauses) <= most
    assert all(chat._pause_s(State(1, 2.0)) >= 2.0 for _ in range(50))


def test_a_server_may_say_that_asking_again_is_of_no_use():
    final = RequestError(Kind.SERVER, "500", final=True)
    [failure], chat = asked(Scripted(final))
    assert failure.kind is Kind.SERVER
    assert chat.spent.requests == 1


def test_the_deadline_is_the_batchs():
    limits = Limits(deadline_s=0.5, concurrency=1, timeout_s=90.0)
    answers, _ = asked(Scripted("fine", 60.0), 3, limits=limits)
    assert answers[0].text == "fine"
    assert [answer.kind for answer in answers[1:]] == [Kind.DEADLINE] * 2


def test_a_deadline_tells_the_last_failure():
    failing = [RequestError(Kind.SERVER, "500 oh", retry_after_s=1.0)] * 9
    limits = Limits(deadline_s=0.2)
    [failure], chat = asked(Scripted(*failing), limits=limits)
    assert str(failure) == "deadline: no answer in 0.2 s, at last server: 500 oh"
    # What failed is counted all the same.
    assert failure.usage == chat.spent
    assert chat.spent.requests == 1


def test_an_answer_that_drips_is_slow():
    limits = Limits(timeout_s=0.05, attempts=1)
    [failure], _ = asked(Scripted(5.0), limits=limits)
    assert failure.kind is Kind.TIMEOUT


def test_the_pace_of_requests():
    endpoint = Scripted()
    # 1,200 a minute are one in 50 ms.
    asked(endpoint, 4, limits=Limits(requests_per_minute=1200))
    starts = sorted(endpoint.starts)
    pauses = [late - early for early, late in pairwise(starts)]
    assert min(pauses) >= 0.049


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (Budget(tokens=25), "30 of 25 tokens are used"),
        (Budget(cost_usd=1.5e-5), "0.00 of 0.00 US dollars are spent"),
    ],
)
def test_a_budget_ends_politely(budget, said):
    # Each answer takes 7 + 3 tokens, and so 10 dollars for a million.
    prices = Prices(input=1.0, output=1.0)
    limits = Limits(concurrency=1)
    answers, chat = asked(Scripted(), 5, budget=budget, prices=prices, limits=limits)
    kinds = [getattr(answer, "kind", None) for answer in answers]
    answered = 3 if budget.tokens else 2
    assert kinds == [None] * answered + [Kind.BUDGET] * (5 - answered)
    assert answers[-1].usage.requests == 0
    assert chat.spent.tokens == 10 * answered
    if budget.tokens:
        assert answers[-1].text == said


def test_a_budget_of_money_needs_prices():
    with pytest.raises(ConfigError, match="expected Prices"):
        RemoteChat(Scripted(), budget=Budget(cost_usd=1.0))


def test_tokens_that_the_server_does_not_count_are_estimated():
    async def run():
        async with ModelServer().running() as server:
            endpoint = OpenAIEndpoint(
                model="m", base_url=f"{server.url}/v1", key_env=""
            )
            chat = RemoteChat(endpoint)
            [answer] = await chat.ask([question("fault_uncounted", system="")])
            await chat.aclose()
            return answer

    usage = asyncio.run(run()).usage
    # "fault_uncounted" has 15 characters, "Use h1.2." has 9: a token for each 3 and 1.
    assert (usage.input_tokens, usage.output_tokens, usage.estimated) == (6, 4, 1)


def test_what_an_sdk_raises_by_surprise_is_data():
    [failure], _ = asked(Scripted(ZeroDivisionError("oops")))
    assert str(failure) == "failed: ZeroDivisionError: oops"


def test_one_client_belongs_to_one_loop():
    chat = RemoteChat(Scripted())
    asyncio.run(chat.ask([question()]))
    with pytest.raises(ConfigError, match="one event loop"):
        asyncio.run(chat.ask([question()]))


def test_a_stopped_run_leaves_nothing_behind():
    async def run():
        chat = RemoteChat(Scripted(60.0, 60.0))
        task = asyncio.create_task(chat.ask([question(), question()]))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}
        await chat.aclose()

    asyncio.run(run())
