"""Calls are read strictly, and a wrong one is told what is wrong."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from episodes.templates import QWEN25
from fdjax.data.chat import prompt_text
from fdjax.data.formats import CHAT, KIMINA
from fdjax.episodes import CallError, CallFormat, Fenced, Hermes
from fdjax.errors import ConfigError
from fdjax.records import Problem
from fdjax.tools import LEAN_TOOLS, Observation
from small_tokenizers import qwen

HERMES, FENCED = Hermes(specs=LEAN_TOOLS), Fenced(specs=LEAN_TOOLS)
PROBLEM = Problem(name="t", statement="theorem t : True")
CALL = '{"name": "f", "arguments": {"a": 1}}'
WRONG = {
    " .": "not valid JSON: Expecting value",
    "f(x)": "not valid JSON: Expecting value",
    '{"name": "f", "arguments": {}': "not valid JSON: Expecting ',' delimiter",
    "{'name': 'f', 'arguments': {}}": "not valid JSON",
    '{"name": "f", "arguments": {"a": NaN}}': "NaN is no JSON",
    '{"name": "f", "name": "g", "arguments": {}}': "a key occurs twice",
    '["f", {}]': "a JSON object with the keys",
    '{"name": "f"}': "a JSON object with the keys",
    '{"name": "f", "parameters": {}}': "a JSON object with the keys",
    '{"name": "f", "arguments": {}, "id": 1}': "a JSON object with the keys",
    '{"name": 1, "arguments": {}}': '"name" is a text',
    '{"name": "f", "arguments": "{}"}': '"arguments" a JSON object',
    "[" * 100_000: "not valid JSON",
    # Short enough to be read, and too deep to be written.
    f'{{"name": "f", "arguments": {{"a": {"[" * 600}{"]" * 600}}}}}': "nested deeper",
}


def hermes(value):
    return f"I look it up.\n<tool_call>\n{value}\n</tool_call>"


def fenced(value):
    return f"I look it up.\n```tool\n{value}\n```"


@pytest.mark.parametrize(("form", "write"), [(HERMES, hermes), (FENCED, fenced)])
class TestBoth:
    def test_a_call_is_read(self, form, write):
        assert isinstance(form, CallFormat)
        [call] = form.read(write(CALL))
        assert (call.name, call.arguments) == ("f", {"a": 1})

    def test_an_answer_has_no_calls(self, form, write):
        assert form.read("Done.\n```lean4\ntrivial\n```") == ()
        assert form.read("") == ()

    def test_several_calls_come_in_order(self, form, write):
        two = write(CALL) + "\n" + write(CALL.replace('"f"', '"g"')).split("\n", 1)[1]
        assert [call.name for call in form.read(two)] == ["f", "g"]

    @pytest.mark.parametrize("value", WRONG)
    def test_a_wrong_call_is_told_what_is_wrong(self, form, write, value):
        with pytest.raises(CallError) as error:
            form.read(write(value))
        assert WRONG[value] in str(error.value)
        assert len(str(error.value)) < 300

    @given(text=st.text())
    def test_any_argument_is_read_back(self, form, write, text):
        value = {"name": "f", "arguments": {"code": text}}
        [call] = form.read(write(json.dumps(value)))
        assert call.arguments["code"] == text

    @given(text=st.text(alphabet='`<>tool_call/{}"\n ', max_size=60))
    def test_no_text_breaks_the_reader(self, form, write, text):
        with suppress(CallError):
            assert all(call.name for call in form.read(text))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"<tool_call>{CALL}", "expected </tool_call>"),
        (f"<tool_call>{CALL}</tool_response>", "expected </tool_call>"),
        (f"{CALL}</tool_call>", "without <tool_call>"),
        (f"<tool_call>{CALL} {CALL}</tool_call>", "expected </tool_call>"),
        (f"<tool_call>{CALL}</tool_call> Then", "only be other calls"),
    ],
)
def test_tags_are_whole(text, said):
    with pytest.raises(CallError, match=said):
        HERMES.read(text)


def test_a_tag_in_an_argument_is_text():
    value = {"name": "f", "arguments": {"code": "-- </tool_call> <tool_call>"}}
    [call] = HERMES.read(hermes(json.dumps(value, ensure_ascii=False)))
    assert call.arguments["code"] == "-- </tool_call> <tool_call>"


def test_blocks_are_whole():
    with pytest.raises(CallError, match="not closed"):
        FENCED.read(f"```tool\n{CALL}\n")
    with pytest.raises(CallError, match="something follows"):
        FENCED.read(fenced(f"{CALL}\n{CALL}"))


def test_the_template_tells_of_the_tools():
    tokenizer = qwen()
    tokenizer.chat_template = QWEN25
    text = prompt_text(tokenizer, PROBLEM, format=HERMES.asking(CHAT))
    told = [json.loads(line) for line in text.splitlines() if line.startswith('{"t')]
    assert [tool["function"]["name"] for tool in told] == [s.name for s in LEAN_TOOLS]
    assert told[0]["function"]["parameters"] == LEAN_TOOLS[0].schema
    assert text.startswith("<|im_start|>system\n# Tools")


def test_a_template_without_tools_is_refused():
    with pytest.raises(ConfigError, match="got tools, which does not occur"):
        prompt_text(qwen(), PROBLEM, format=HERMES.asking(CHAT))


@pytest.mark.parametrize("place", ["system", "user"])
def test_the_fenced_form_tells_of_the_tools_itself(place):
    form = Fenced(specs=LEAN_TOOLS, place=place)
    text = prompt_text(qwen(), PROBLEM, format=form.asking(KIMINA))
    asked = text.index("# Formal statement")
    for spec in LEAN_TOOLS:
        assert text.index(f"\n{spec.name}: {spec.description}") < asked
        assert all(f"  {each.name} (" in text for each in spec.parameters)
    assert "You are an expert in mathematics and Lean 4." in text
    # The rules show a call that is one.
    assert form.read(text)[0].name == "NAME"


def test_answers_are_the_tools_or_the_users():
    seen = [
        Observation(tool="f", arguments={}, text="one\n````", ended="done"),
        Observation(tool="g", arguments={}, text="two", ended="refused"),
    ]
    assert HERMES.messages(seen) == [
        {"role": "tool", "name": "f", "content": "one\n````"},
        {"role": "tool", "name": "g", "content": "two"},
    ]
    assert FENCED.messages(seen) == [
        {
            "role": "user",
            "content": "`````output\none\n````\n`````\n\n```output\ntwo\n```",
        }
    ]
