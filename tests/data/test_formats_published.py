"""Prompts to the byte, as the model cards have them that the formats name."""

import copy
from pathlib import Path

import pytest

import chat_templates as templates
from fdjax.data.chat import prompt_text, prompt_tokens
from fdjax.data.formats import (
    CHAT,
    CHAT_THINKING,
    COMPLETION,
    DEEPSEEK_V1,
    DEEPSEEK_V2,
    GOEDEL_V2,
    KIMINA,
    PLAIN,
    QWEN3,
    QWEN3_NO_THINKING,
    ready,
)
from fdjax.records import Problem
from small_tokenizers import qwen

PROMPTS = Path(__file__).parent / "prompts"
HEADER = """import Mathlib
import Aesop

set_option maxHeartbeats 0

open BigOperators Real Nat Topology Rat

"""
PERCENT = Problem(
    name="mathd_algebra_10",
    header=HEADER,
    informal=(
        r"What is the positive difference between $120\%$ of 30 and $130\%$ of 20? "
        "Show that it is 10."
    ),
    statement=(
        "theorem mathd_algebra_10 : abs ((120 : ℝ) / 100 * 30 - 130 / 100 * 20) = 10"
    ),
)
"""The example of DeepSeek-Prover-V2's card."""
SQUARE = Problem(
    name="square_equation_solution",
    header=f"{HEADER}\n",
    statement=(
        "theorem square_equation_solution {x y : ℝ} "
        "(h : x^2 + y^2 = 2*x - 4*y - 5) : x + y = -1"
    ),
)
"""The example of Goedel-Prover-V2's card."""
SMALL = Problem(name="t", header="open Nat", statement="theorem t (n : ℕ) : n ≤ n")


def tokenizer_with(template, bos=None, *added):
    tokenizer = copy.deepcopy(qwen())
    if bos:
        tokenizer.add_special_tokens({"bos_token": bos})
    tokenizer.add_tokens([*added], special_tokens=True)
    tokenizer.chat_template = template
    return tokenizer


START = "<｜begin▁of▁sentence｜>"
META = (
    *("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>"),
    "<|eot_id|>",
)
CHATML = tokenizer_with(templates.QWEN3)
KIMINA_PREVIEW = tokenizer_with(templates.QWEN25)
BASE = tokenizer_with(None, START)

PUBLISHED = {
    "plain": (PLAIN, CHATML, SMALL),
    "qwen3": (QWEN3, CHATML, SMALL),
    "qwen3_no_thinking": (QWEN3_NO_THINKING, CHATML, SMALL),
    "qwen3_2507_thinking": (
        CHAT_THINKING,
        tokenizer_with(templates.QWEN3_2507),
        SMALL,
    ),
    "qwen25": (CHAT, KIMINA_PREVIEW, SMALL),
    "llama3": (CHAT, tokenizer_with(templates.LLAMA3, *META), SMALL),
    "llama32": (CHAT, tokenizer_with(templates.LLAMA32, *META), SMALL),
    "goedel_v2": (GOEDEL_V2, CHATML, SQUARE),
    "deepseek_v2": (
        DEEPSEEK_V2,
        tokenizer_with(templates.DEEPSEEK, START, "<｜User｜>", "<｜Assistant｜>"),
        PERCENT,
    ),
    "kimina": (KIMINA, KIMINA_PREVIEW, PERCENT),
    "deepseek_v1": (DEEPSEEK_V1, BASE, SMALL),
    "completion": (COMPLETION, BASE, SMALL),
}
"""The format, a tokenizer with the family's chat template and the problem, by the name
of the file in `prompts/`, which was written by hand after the model card."""
FEEDBACK = "line 1: unsolved goals -/"
INFORMED = {
    "plain": ("user\nopen", f"user\n{FEEDBACK}\nopen"),
    "completion": ("open", "/- line 1: unsolved goals - / -/\nopen"),
    "deepseek_v1": ("Complete", f"{FEEDBACK}\nComplete"),
    "goedel_v2": ("proof.<|im_end|>", f"proof.\n{FEEDBACK}<|im_end|>"),
    "kimina": ("```\n<|im_end|>", f"```\n\n{FEEDBACK}<|im_end|>"),
    "llama3": ("block.<|eot_id|>", f"block.\n{FEEDBACK}<|eot_id|>"),
}
"""What a teacher's prompt has in the place of a part of the student's."""


def published(name):
    return (PROMPTS / f"{name}.txt").read_text()


def test_every_ready_format_is_here():
    formats = {getattr(ready, name) for name in ready.__all__}
    assert formats == {format for format, _, _ in PUBLISHED.values()}
    assert sorted(PUBLISHED) == sorted(path.stem for path in PROMPTS.iterdir())


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_prompt_is_the_published_one(name):
    format, tokenizer, problem = PUBLISHED[name]
    assert prompt_text(tokenizer, problem, format=format) == published(name)


@pytest.mark.parametrize("name", INFORMED)
def test_the_teachers_prompt_differs_by_the_feedback_alone(name):
    format, tokenizer, problem = PUBLISHED[name]
    plain, informed = INFORMED[name]
    assert published(name).count(plain) == 1
    text = prompt_text(tokenizer, problem, FEEDBACK, format)
    assert text == published(name).replace(plain, informed)


@pytest.mark.parametrize("note", [None, FEEDBACK])
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_tokens_are_those_of_the_text(name, note):
    format, tokenizer, problem = PUBLISHED[name]
    text = prompt_text(tokenizer, problem, note, format)
    (ids,) = prompt_tokens(tokenizer, [problem], [note], format)
    assert ids == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text
