"""Workspaces live as long as their sessions."""

import asyncio
from contextlib import contextmanager

import pytest

from fdjax.serve.mcp_sessions import CALLS_AT_ONCE, Sessions
from fdjax.tools import Parameter, Toolbox, ToolSpec


class Wait:
    """A tool that counts how many of its calls are under way."""

    spec = ToolSpec(
        name="wait",
        description="Wait.",
        parameters=(Parameter(name="text", type="string", description="x"),),
    )

    def __init__(self):
        self.running = self.most = 0

    async def call(self, arguments):
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0.01)
        self.running -= 1
        return arguments["text"]


class Tools:
    """Opens toolboxes as `LeanTools` does, and remembers which are open."""

    def __init__(self):
        self.opened, self.open_now = [], 0

    @contextmanager
    def open(self):
        self.open_now += 1
        self.opened.append(Wait())
        try:
            yield Toolbox([self.opened[-1]])
        finally:
            self.open_now -= 1


def test_a_session_keeps_its_toolbox_until_it_ends():
    async def talk():
        for session in ("a", "a", "b"):
            with sessions.request(session):
                seen = await sessions.call(session, "wait", {"text": session})
                assert seen.text == session
        assert (len(sessions), len(tools.opened)) == (2, 2)
        sessions.end("a")
        sessions.end("a")
        assert (len(sessions), tools.open_now) == (1, 1)
        await sessions.call("a", "wait", {"text": "x"})
        assert len(tools.opened) == 3
        sessions.close()
        assert (len(sessions), tools.open_now) == (0, 0)

    tools = Tools()
    sessions = Sessions(tools)
    asyncio.run(talk())


def test_a_session_may_end_while_a_stream_of_it_is_open():
    sessions = Sessions(Tools())
    with sessions.request("a"):
        asyncio.run(sessions.call("a", "wait", {"text": "x"}))
        sessions.end("a")
    assert (len(sessions), sessions._requests, sessions._seen) == (0, {}, {})


def test_few_calls_of_a_session_are_carried_out_at_once():
    async def talk():
        calls = [sessions.call("a", "wait", {"text": str(n)}) for n in range(20)]
        return [seen.text for seen in await asyncio.gather(*calls)]

    tools = Tools()
    sessions = Sessions(tools)
    assert asyncio.run(talk()) == [str(number) for number in range(20)]
    assert len(tools.opened) == 1
    assert tools.opened[0].most == CALLS_AT_ONCE


def test_idle_sessions_end_and_busy_ones_do_not():
    async def talk():
        sweeping = asyncio.create_task(sessions.sweep())
        with sessions.request("busy"):
            await sessions.call("busy", "wait", {"text": "x"})
            with sessions.request("idle"):
                await sessions.call("idle", "wait", {"text": "x"})
            async with asyncio.timeout(10):
                while len(sessions) == 2:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            assert len(sessions) == 1
        async with asyncio.timeout(10):
            while len(sessions):
                await asyncio.sleep(0.01)
        sweeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sweeping

    tools = Tools()
    sessions = Sessions(tools, idle_s=0.05)
    asyncio.run(talk())
    assert tools.open_now == 0
