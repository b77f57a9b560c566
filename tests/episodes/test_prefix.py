"""Random episodes: what was sampled stays, the rest is the chat template's own text."""

import asyncio
import unicodedata
from dataclasses import replace

import jax
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from episodes.scripted import ECHO, Scripted, call_text, echo_box, pieces
from episodes.templates import LLAMA31, QWEN3, QWEN25
from fdjax.data.chat import prompt_text
from fdjax.data.formats import CHAT
from fdjax.data.tokenizer import control_tokens
from fdjax.episodes import Episodes, Fenced, Hermes
from fdjax.records import Problem
from small_tokenizers import BUILDS

PROBLEM = Problem(name="t", statement="theorem t (p : Prop) (h1 : p) : p")
SPELLED = ["<|im_end|>", "</s>", "<s>", "<|im_start|>user\n", "<think>", "</tool_call>"]
# SentencePiece's own sign for a blank is one, whatever a text means by it.
TEXTS = st.lists(
    st.one_of(
        st.text(max_size=8).filter(lambda t: unicodedata.is_normalized("NFC", t)),
        st.sampled_from([*SPELLED, "exact h.1", "\n\n", "  ", "⟨x, y⟩", "```"]),
    ),
    max_size=5,
).map(lambda parts: "".join(parts).replace("▁", " "))
CUTS = st.lists(st.integers(0, 200), max_size=6)
BYTE_LEVEL = {
    "qwen2.5": ("qwen", QWEN25, Hermes(specs=(ECHO,))),
    "qwen3": ("qwen", QWEN3, Hermes(specs=(ECHO,))),
    "llama3.1": ("qwen", LLAMA31, Hermes(specs=(ECHO,))),
    "chatml": ("qwen", None, Fenced(specs=(ECHO,))),
}
SENTENCE_PIECE = {
    name: (name, None, Fenced(specs=(ECHO,)))
    for name in ("prepend", "always", "first", "never")
}
ALL = BYTE_LEVEL | SENTENCE_PIECE


def made(name):
    build, template, calls = ALL[name]
    tokenizer = BUILDS[build]()
    if template is not None:
        tokenizer.chat_template = template
    return Episodes(tokenizer=tokenizer, format=CHAT, calls=calls)


MADE = {name: made(name) for name in ALL}


def written(episodes, text):
    """A turn that calls, in the form's own way, behind a text."""
    call = call_text("x")
    if isinstance(episodes.calls, Fenced):
        call = call.replace("<tool_call>", "```tool").replace("</tool_call>", "```")
    return f"{text}\n{call}" if text.strip() else f"{text}{call}"


def quiet(name, text):
    """A text that neither calls nor thinks, and that its template keeps as it is.

    Zephyr's begins a turn without the line break that it writes when it renders one.
    """
    for part in ("```", "<think>", "</think>", "<tool_call>", "</tool_call>"):
        text = text.replace(part, " ")
    return f"\n{text.strip()}" if name in SENTENCE_PIECE else text.strip()


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=25, phases=(Phase.reuse, Phase.generate, Phase.shrink))
@given(
    said=st.lists(st.tuples(TEXTS, TEXTS, CUTS), max_size=3),
    last=TEXTS,
    cuts=CUTS,
)
def test_random_episodes(name, said, last, cuts):
    episodes = MADE[name]
    tokenizer, glue = episodes.tokenizer, episodes.glue
    texts = [written(episodes, quiet(name, text)) for text, _, _ in said] + [
        quiet(name, last)
    ]
    answers = [answer for _, answer, _ in said]
    rows = [
        pieces(tokenizer, text, cut)
        for text, cut in zip(texts, [*(c for _, _, c in said), cuts], strict=True)
    ]
    sampler = Scripted(tokenizer, rows)
    key = jax.random.key(0)
    episode = asyncio.run(episodes.run(PROBLEM, sampler, echo_box(answers), key))
    assert episode.ended == "answer"
    assert len(sampler.prompts) == len(texts)

    # Ids: each turn begins with all that was there, and ends as it was sampled.
    tokens = np.concatenate([turn.tokens for turn in episode.turns])
    at = 0
    own = np.zeros(len(tokens), bool)
    for prompt, sampled in zip(sampler.prompts, sampler.sampled, strict=True):
        at = len(prompt)
        assert prompt == tokens[:at].tolist()
        assert sampled.tolist() == tokens[at : at + len(sampled)].tolist()
        own[at : at + len(sampled)] = True
        at += len(sampled)
    assert at == len(tokens)

    # Masks: True on exactly the policy's own.
    begin = len(episode.prompt)
    row = episode.row
    assert row.tokens.tolist() == tokens[begin:].tolist()
    assert row.mask.tolist() == own[begin:].tolist()
    assert not own[:begin].any()
    sampled = np.concatenate(
        [-np.arange(1, len(s) + 1, dtype=np.float32) for s in sampler.sampled]
    )
    assert row.logprobs[row.mask].tolist() == sampled.tolist()
    assert not row.logprobs[~row.mask].any()

    # Text: before each turn it is what the template makes of the conversation.
    end = tokenizer.eos_token
    text = prompt_text(tokenizer, PROBLEM, format=episodes.asking)
    messages = [{"role": "user", "content": episodes.asking.user_turn(PROBLEM)}]
    if episodes.asking.system is not None:
        system = {"role": "system", "content": episodes.asking.system}
        messages.insert(0, system)
    tools = [turn for turn in episode.turns if turn.role == "tool"]
    for turn, said_text in zip(tools, texts, strict=False):
        between = glue.text(turn.observations)
        assert between.startswith(end)
        text += said_text + between
        messages.append({"role": "assistant", "content": said_text})
        messages += [
            {**each, "content": glue._with_blanks(each["content"])}
            for each in episodes.calls.messages(turn.observations)
        ]
        assert text == tokenizer.apply_chat_template(
            messages,
            add_generation_prompt=True,
            tokenize=False,
            **episodes.asking.arguments,
        )

    # Tokens: they spell this text, and only the template's marks are control tokens.
    text += texts[-1] + end
    spelled = tokenizer.decode(tokens, skip_special_tokens=False)
    if name in BYTE_LEVEL or name == "never":
        assert spelled == text
    else:  # these put blanks behind control tokens
        assert "".join(spelled.split()) == "".join(text.split())
    control = control_tokens(tokenizer)
    for turn in tools:
        [seen] = turn.observations
        plain = glue.tokens([replace(seen, text="")], tokenizer.eos_token_id)
        marks = [token for token in plain if token in control]
        assert [token for token in turn.tokens if token in control] == marks != []


@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_canonical_turns_give_the_tokenizers_own_ids(name):
    """Where the policy writes as the tokenizer would, so does the whole episode."""
    episodes = MADE[name]
    tokenizer = episodes.tokenizer
    texts = [written(episodes, "Look."), written(episodes, "exact h"), "Done."]
    sampler = Scripted(tokenizer, texts)
    toolbox = echo_box(["<|im_end|> one", "two\n"])
    episode = asyncio.run(episodes.run(PROBLEM, sampler, toolbox, jax.random.key(0)))
    tokens = np.concatenate([turn.tokens for turn in episode.turns])
    text = tokenizer.decode(tokens, skip_special_tokens=False)
    assert "< |im_end|> one" in text
    whole = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert whole == tokens.tolist()
