"""The published `kimina-client` against a server; prints what it found as JSON.

A program of its own: on Python 3.11 the client's 0.2.1 uses `typing.TypedDict`, which
pydantic refuses there, and giving it the one of `typing_extensions` is nothing to do
in the process of other tests.
"""

import asyncio
import json
import sys
import typing

import typing_extensions

if sys.version_info < (3, 12):
    typing.TypedDict = typing_extensions.TypedDict

from kimina_client import AsyncKiminaClient, KiminaClient, Snippet

url, key = sys.argv[1:]
SNIPPETS = [
    Snippet(id=str(i), code=f"theorem t : {i} + {i} = {2 * i} := by {tactic}")
    for i, tactic in enumerate(["rfl", "decide", "sorry", "omega", "rfl; foo"] * 4)
]
SNIPPETS += [
    Snippet(id="code", code="#eval 1"),
    Snippet(
        id="slow",
        code="theorem s : (List.range 90000).foldl (· + ·) 0 = 3 := by decide +kernel",
    ),
]


def summary(response):
    return {each.id: each.analyze().status.value for each in response.results}


def sync():
    client = KiminaClient(api_url=url, api_key=key)
    client.test()
    options = {"timeout": 2, "batch_size": 3, "show_progress": False}
    return {
        "health": client.health(),
        "statuses": summary(client.check(SNIPPETS, **options)),
    }


async def asynchronous():
    client = AsyncKiminaClient(api_url=url, api_key=key)
    try:
        await client.test()
        options = {"timeout": 2, "batch_size": 3, "show_progress": False}
        response = await client.check(SNIPPETS, **options)
        return {"health": await client.health(), "statuses": summary(response)}
    finally:
        await client.close()


def refused():
    """What the client makes of a server that does not know it."""
    client = KiminaClient(api_url=url, api_key="wrong", n_retries=1)
    [result] = client.check("#check Nat", show_progress=False).results
    return result.analyze().status.value


print(
    json.dumps(
        {"sync": sync(), "async": asyncio.run(asynchronous()), "refused": refused()}
    )
)
