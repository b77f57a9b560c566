"""The tools over MCP: real clients of the SDK, a real server, the real Lean."""

import asyncio
import json
import time

import pytest

from fdjax import cli
from fdjax.lean import install
from fdjax.tools import LEAN_TOOLS
from serving import Server, wait_until

pytest.importorskip("mcp", reason="the `mcp` extra is not installed")

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

STATEMENT = "theorem t (p q : Prop) (h : p ∧ q) : q ∧ p"


@pytest.fixture(scope="module")
def workspaces(tmp_path_factory):
    """Where the server's temporary folders are."""
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def server(workspaces):
    install()
    arguments = ["--workers", "1", "--mcp"]
    with Server.command(*arguments, TMPDIR=str(workspaces)) as server:
        yield server


def here(workspaces):
    return sorted(workspaces.glob("fdjax-workspace-*"))


async def said(client, tool, **arguments):
    """The text of a call's answer, and whether it is an error."""
    result = await client.call_tool(tool, arguments)
    [content] = result.content
    return content.text, result.is_error


def url(server):
    return f"{server.url}/mcp"


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_client_finds_the_tools_and_calls_them(server, mode):
    async def talk():
        async with Client(url(server), mode=mode) as client:
            tools = (await client.list_tools()).tools
            assert [tool.name for tool in tools] == [spec.name for spec in LEAN_TOOLS]
            for tool, spec in zip(tools, LEAN_TOOLS, strict=True):
                assert tool.input_schema == spec.schema
                assert tool.description == spec.description
            right = await said(client, "run_lean", code=f"{STATEMENT} := h.symm")
            assert right == ("No errors, no warnings.", False)
            wrote = await said(client, "write_file", path="a.lean", content="#check 1")
            assert wrote[0].startswith("Wrote a.lean. No errors")
            text, _ = await said(client, "check_file", path="a.lean")
            assert "cites no lemmas" in text
            text, _ = await said(client, "search_library", text="And.symm")
            path, line, statement = text.splitlines()[0].split(":", 2)
            assert statement.startswith("And.symm {a b : Prop}")
            read = await said(
                client, "read_library", path=path, first_line=int(line), lines=1
            )
            assert statement in read[0]

    asyncio.run(talk())


def test_errors_are_answers(server):
    async def talk():
        async with Client(url(server)) as client:
            for tool, arguments, words in (
                ("write_file", {"path": "../a.lean", "content": ""}, "no path"),
                ("read_library", {"path": "/etc/passwd"}, "end in .lean"),
                ("run_lean", {}, "needs the argument `code`"),
                ("run_lean", {"code": 1}, "must be of type string"),
                ("rm", {}, "there is no tool `rm`"),
            ):
                text, is_error = await said(client, tool, **arguments)
                assert is_error
                assert words in text
            # An error of Lean's is what the tool is for.
            text, is_error = await said(client, "run_lean", code=f"{STATEMENT} := h")
            assert not is_error
            assert "1 error" in text

    asyncio.run(talk())


def test_clients_in_parallel_have_workspaces_of_their_own(server, workspaces):
    # A session that has just ended may still be clearing its folder away.
    assert wait_until(lambda: not here(workspaces))

    async def talk(number):
        async with Client(url(server)) as client:
            own = f"theorem own_{number} : {number} = {number} := rfl"
            await said(client, "write_file", path="proof.lean", content=own)
            await started.wait()
            assert len(here(workspaces)) == CLIENTS
            text, is_error = await said(client, "check_file", path="proof.lean")
            assert not is_error
            other = f"proof{(number + 1) % CLIENTS}.lean"
            await said(client, "write_file", path=f"proof{number}.lean", content="--")
            text, is_error = await said(client, "check_file", path=other)
            assert is_error
            assert f"files so far: proof.lean, proof{number}.lean" in text

    async def all_of_them():
        async with asyncio.TaskGroup() as tasks:
            for number in range(CLIENTS):
                tasks.create_task(talk(number))
            while len(here(workspaces)) < CLIENTS:
                await asyncio.sleep(0.02)
            started.set()

    CLIENTS, started = 6, asyncio.Event()
    asyncio.run(asyncio.wait_for(all_of_them(), 60))
    assert wait_until(lambda: not here(workspaces))


def test_calls_of_one_client_may_overlap(server):
    async def talk():
        async with Client(url(server)) as client:
            calls = [
                said(client, "run_lean", code=f"#check ({n} : Nat)") for n in range(12)
            ]
            for number, (text, _) in enumerate(await asyncio.gather(*calls)):
                assert f"{number} : Nat" in text

    asyncio.run(talk())


def test_a_request_without_a_session_is_told_so(server):
    async def talk():
        async with Client(url(server), mode="2026-07-28") as client:
            text, is_error = await said(client, "run_lean", code="")
            assert is_error
            assert "belongs to none" in text

    asyncio.run(talk())


OPENING = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "0"},
    },
}
ACCEPT = {"Accept": "application/json, text/event-stream"}


def opened(server, **headers):
    body = json.dumps(OPENING).encode()
    status, answered, _ = server.request("POST", "/mcp", body, ACCEPT | headers)
    return status, {name.lower(): value for name, value in answered.items()}


def test_pages_of_a_browser_may_not_ask(server):
    """One that came under another name (DNS rebinding), or from elsewhere."""
    assert opened(server)[0] == 200
    assert opened(server, Host="lean.example:8000")[0] == 421
    assert opened(server, Origin="http://lean.example")[0] == 403


def test_a_session_that_is_over_is_unknown(server, workspaces):
    _, headers = opened(server)
    session = ACCEPT | {"mcp-session-id": headers["mcp-session-id"]}
    assert server.request("DELETE", "/mcp", headers=session)[0] == 200
    assert server.request("DELETE", "/mcp", headers=session)[0] == 404


def test_a_token_guards_it_and_a_stop_leaves_no_workspace(tmp_path):
    """Stopped while a session is open, with its stream of events."""
    (tmp_path / "token").write_text("secret")
    key = {"Authorization": "Bearer secret"}
    arguments = ["--workers", "1", "--mcp", "--token-file", str(tmp_path / "token")]
    install()

    async def talk(server):
        async with httpx2.AsyncClient(headers=key) as http:
            transport = streamable_http_client(url(server), http_client=http)
            async with Client(transport) as client:
                await said(client, "write_file", path="a.lean", content="--")
                assert len(here(tmp_path)) == 1
                begin = time.monotonic()
                code = await asyncio.to_thread(server.stop, timeout=30)
                return code, time.monotonic() - begin

    with Server.command(*arguments, TMPDIR=str(tmp_path)) as server:
        assert opened(server)[0] == 401
        # With a token, other names for this machine are no danger.
        assert opened(server, Host="lean.example:8000", **key)[0] == 200
        code, seconds = asyncio.run(talk(server))
    assert code == 0
    assert seconds < 20
    assert not here(tmp_path)


def test_only_a_library_on_this_machine_can_be_served(capsys):
    with pytest.raises(SystemExit):
        cli.main(["serve", "--backend", "fake", "--mcp", "--port", "0"])
    assert "take wasm, native or repl" in " ".join(capsys.readouterr().err.split())
