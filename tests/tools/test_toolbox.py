"""Whatever happens in a call becomes text."""

import asyncio

import pytest

from fdjax.errors import BackendError, ConfigError
from fdjax.tools import CallLimits, Parameter, Tool, Toolbox, ToolError, ToolSpec

SPEC = ToolSpec(
    name="echo",
    description="Say it again.",
    parameters=(
        Parameter(name="text", type="string", description="What.", most=5),
        Parameter(
            name="times",
            type="integer",
            description="How often.",
            default=1,
            least=1,
            most=3,
        ),
    ),
)


class Echo:
    spec = SPEC

    def __init__(self, act=None):
        self._act = act

    async def call(self, arguments):
        if self._act is not None:
            await self._act()
        return arguments["text"] * arguments["times"]


def seen(arguments, act=None, name="echo", **limits):
    toolbox = Toolbox([Echo(act)], limits=CallLimits(**limits))
    return asyncio.run(toolbox.call(name, arguments))


def test_a_call_is_answered():
    assert isinstance(Echo(), Tool)
    observation = seen({"text": "ab", "times": 2})
    assert (observation.text, observation.ended) == ("abab", "done")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "echo needs the argument `text`"),
        ({"text": None}, "echo needs the argument `text`"),
        ({"text": 1}, "`text` must be of type string, not int"),
        ({"text": ["a"]}, "`text` must be of type string, not list"),
        ({"text": "a", "times": "2"}, "`times` must be of type integer, not str"),
        ({"text": "a", "times": True}, "`times` must be of type integer, not bool"),
        ({"text": "a", "times": 2.0}, "`times` must be of type integer, not float"),
        ({"text": "a", "times": 9}, "`times` must be from 1 to 3, not 9"),
        ({"text": "abcdef"}, "`text` has 6 characters; 5 are the most"),
        ({"text": "\ud800"}, "`text` is not valid Unicode text"),
        ({"text": "a\0"}, "`text` is not valid Unicode text"),
        ({"text": "a", "more": 1}, "echo has no argument `more`; it takes text, times"),
    ],
)
def test_a_wrong_call_is_told_what_is_wrong(arguments, said):
    observation = seen(arguments)
    assert (observation.text, observation.ended) == (f"error: {said}", "refused")


def test_an_unknown_tool_is_told_the_known_ones():
    observation = seen({}, name="rm")
    assert observation.text == "error: there is no tool `rm`; there are echo"
    assert observation.ended == "refused"


@pytest.mark.parametrize("error", [BackendError("gone"), OSError(), ValueError("x")])
def test_an_exception_is_an_observation(error):
    async def act():
        raise error

    observation = seen({"text": "a"}, act)
    assert observation.ended == "failed"
    assert "not your fault" in observation.text


def test_a_tools_own_refusal_is_its_text():
    async def act():
        raise ToolError("no such file")

    observation = seen({"text": "a"}, act)
    assert (observation.text, observation.ended) == ("error: no such file", "refused")


def test_who_never_answers_is_given_up():
    observation = seen({"text": "a"}, lambda: asyncio.sleep(60), wall_s=0.01)
    assert observation.ended == "failed"
    assert "did not answer in time" in observation.text


def test_a_cancelled_episode_is_no_observation():
    async def run():
        toolbox = Toolbox([Echo(lambda: asyncio.sleep(60))])
        task = asyncio.create_task(toolbox.call("echo", {"text": "a"}))
        await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())


def test_output_is_cut_and_says_so():
    class Long(Echo):
        async def call(self, arguments):
            return "x" * 150

    toolbox = Toolbox([Long()], limits=CallLimits(output_characters=100))
    text = asyncio.run(toolbox.call("echo", {"text": "a"})).text
    assert text == "x" * 100 + "\n… (50 characters are left out)"


def test_an_answer_is_unicode():
    class Half(Echo):
        async def call(self, arguments):
            return "a\ud800b"

    assert asyncio.run(Toolbox([Half()]).call("echo", {"text": "a"})).text == "a?b"


def test_names_are_unique():
    with pytest.raises(ConfigError, match="different names"):
        Toolbox([Echo(), Echo()])


def test_the_schema_is_json_schema():
    assert SPEC.schema == {
        "type": "object",
        "properties": {
            "text": {"type": "string", "description": "What.", "maxLength": 5},
            "times": {
                "type": "integer",
                "description": "How often.",
                "minimum": 1,
                "maximum": 3,
                "default": 1,
            },
        },
        "required": ["text"],
        "additionalProperties": False,
    }
