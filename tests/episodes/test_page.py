"""An episode in print: all of it, and its mask."""

import asyncio

import jax

from episodes.scripted import ECHO, Scripted, call_text, echo_box
from episodes.templates import QWEN25
from fdjax.data.formats import CHAT
from fdjax.episodes import Episodes, Hermes
from fdjax.episodes.page import episode_text
from fdjax.records import Problem
from small_tokenizers import qwen


def test_every_token_is_printed_and_the_policys_are_marked():
    tokenizer = qwen()
    tokenizer.chat_template = QWEN25
    episodes = Episodes(tokenizer=tokenizer, format=CHAT, calls=Hermes(specs=(ECHO,)))
    sampler = Scripted(tokenizer, [call_text("one"), "two\nthree"])
    problem = Problem(name="t", statement="theorem t : True")
    episode = asyncio.run(episodes.run(problem, sampler, echo_box(), jax.random.key(0)))
    lines = episode_text(tokenizer, episode).split("\n")
    own = [line for line in lines if line.startswith("▌")]
    assert own == [
        "▌ <tool_call>",
        '▌ {"name": "echo", "arguments": {"text": "one"}}',
        "▌ </tool_call><|im_end|>",
        "▌ two",
        "▌ three<|im_end|>",
    ]
    assert "  <tool_response>" in lines
    prompt, first, between, last = (len(turn.tokens) for turn in episode.turns)
    assert lines[-1] == (
        "── ended: answer · judged: the last turn · mask: "
        f"{prompt}×0 {first}×1 {between}×0 {last}×1"
    )
