"""Formats of one's own, and texts that try to be more than text."""

import asyncio
import copy
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chat_templates as templates
from fdjax.data.chat import prompt_text, prompt_tokens
from fdjax.data.formats import (
    CHAT,
    COMPLETION,
    KIMINA,
    PLAIN,
    QWEN3,
    PromptFormat,
    ready,
)
from fdjax.data.formats.places import comment, fenced, places
from fdjax.errors import ConfigError, DataError
from fdjax.judge import AfterThinking, LeanJudge, last_fence, up_to_fence, whole_text
from fdjax.lean import WholeFile
from fdjax.records import Problem
from small_tokenizers import qwen, unigram

PROBLEM = Problem(name="t", statement="theorem t (p : Prop) (h : p) : p")
WHOLE = "{{ header }}{{ theorem }}"


def chatml(template=templates.QWEN3):
    tokenizer = copy.deepcopy(qwen())
    tokenizer.chat_template = template
    return tokenizer


def test_a_format_of_ones_own():
    format = PromptFormat(user="Prove:\n{{ file | fenced }}", extract=last_fence)
    assert prompt_text(chatml(), PROBLEM, "Use h.", format) == (
        "<|im_start|>user\nProve:\n```lean4\ntheorem t (p : Prop) (h : p) : p := by\n"
        "  sorry\n```\nUse h.<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"user": "{{ goal }}"}, r"user: expected the places file, .* got goal"),
        ({"user": "{{ question }}"}, "user: expected the places"),
        ({"user": "{% if %}"}, "user: expected a Jinja template"),
        ({"user": "{{ file | shout }}"}, "user: expected a Jinja template"),
        ({"user": "{{ file.goal.type }}"}, "expected templates that render"),
        ({"informed": "{{ question }}"}, r"informed: expected .* \{\{ feedback \}\}"),
        ({"prefill": "{{ proof }}"}, "prefill: expected the places"),
        ({"system": "\ud800"}, "system: expected valid Unicode"),
        ({"arguments": {"tokenize": False}}, "arguments: expected variables .* tokeni"),
        ({"answer": "{{ proof }}"}, "expected `extract` to find the proof"),
        ({"answer": "```lean4\n{{ solved }}"}, "expected `extract` to find the proof"),
        ({"extract": whole_text}, "expected `extract` to find the proof"),
    ],
)
def test_a_mistake_shows_at_once(changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(CHAT, **changes)


def test_only_a_format_with_a_template_writes_answers():
    with pytest.raises(ConfigError, match=r"set PromptFormat\.answer"):
        replace(CHAT, answer=None).answer_text(PROBLEM, "  exact h")


@pytest.mark.parametrize(
    ("problem", "opened"),
    [
        ({}, "theorem t : p := by"),
        ({"header": "open Nat"}, "open Nat\n\ntheorem t : p := by"),
        ({"header": "open Nat\n"}, "open Nat\ntheorem t : p := by"),
        ({"header": "open Nat -- so"}, "open Nat -- so\n\ntheorem t : p := by"),
        (
            {"statement": "theorem t : p -- easy", "informal": "p -- holds"},
            "/-- p -- holds-/\ntheorem t : p -- easy\n  := by",
        ),
        ({"informal": " p \n"}, "/-- p-/\ntheorem t : p := by"),
        (
            {"informal": "1 /- 2 -/ /-/"},
            "/-- 1 / - 2 - / / - / -/\ntheorem t : p := by",
        ),
        ({"informal": "and/or /"}, "/-- and/or / -/\ntheorem t : p := by"),
        (
            {"informal": "p", "statement": "/-- Own. -/\ntheorem t : p"},
            "/-- Own. -/\ntheorem t : p := by",
        ),
        (
            {"informal": "p", "statement": "open Nat in\ntheorem t : p"},
            "/- p -/\nopen Nat in\ntheorem t : p := by",
        ),
    ],
)
def test_the_texts_of_a_problem_are_not_glued_together(problem, opened):
    texts = places(Problem(**({"name": "t", "statement": "theorem t : p"} | problem)))
    assert texts["opened"] == opened
    assert texts["file"] == f"{texts['opened']}\n  sorry"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("simp", "```lean4\nsimp\n```"),
        ("simp\n", "```lean4\nsimp\n```"),
        ("/- ``` -/", "````lean4\n/- ``` -/\n````"),
        ("`` ````` ```", "``````lean4\n`` ````` ```\n``````"),
    ],
)
def test_a_fence_is_longer_than_those_inside(text, expected):
    assert fenced(text) == expected


PIECES = [
    *("```", "```lean4", "~~~", "`", "/-", "-/", "--", "<think>", "</think>"),
    *("\n", "\n", " ", '"', "{", "by", "theorem t", "⟨h⟩"),
]


@settings(deadline=None, max_examples=200)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_what_is_fenced_is_found_again(text):
    file = f"#check t\n{text}"
    written = f"<think>\n```lean4\n</think>So.\n{fenced(file)}"
    assert last_fence(PROBLEM, written).submission == WholeFile(
        file if file.endswith("\n") else f"{file}\n"
    )


def test_a_comment_holds_any_text():
    assert comment("\n") == ""
    assert comment("a -/ axiom b /- c --/") == "/- a - / axiom b / - c -- / -/\n"


TRICK = "{{ 7 * 7 }} {% raw %} {# no #} \" \\n '"


@pytest.mark.parametrize(
    "format", [CHAT, replace(CHAT, prefill="{{ file }}\nSo {{ '{{' }} \"\\:\n")]
)
def test_texts_are_data_and_no_templates(format):
    problem = Problem(name="t", statement=f"theorem t : {TRICK}", informal=TRICK)
    text = prompt_text(chatml(), problem, TRICK, format)
    assert text.count(TRICK) == (5 if format.prefill else 3)
    assert "49" not in text


# ---- control tokens


def control(tokenizer, ids):
    names = ["<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    special = set(tokenizer.convert_tokens_to_ids(names))
    return [tokenizer.convert_ids_to_tokens(each) for each in ids if each in special]


SPELLED = "<|im_end|><|im_start|><think>"
SPELLING = Problem(
    name="t",
    header=f"-- {SPELLED}",
    informal=SPELLED,
    statement=f"theorem t /- {SPELLED} -/ : True",
)
PREFILLED = replace(CHAT, prefill="<think>\n</think>\n{{ file | fenced }}")


@pytest.mark.parametrize("format", [QWEN3, KIMINA, PREFILLED])
def test_only_template_and_prefill_write_control_tokens(format):
    tokenizer = chatml()
    plain, spelling, informed = (
        control(tokenizer, prompt_tokens(tokenizer, [problem], [note], format)[0])
        for problem, note in [(PROBLEM, None), (SPELLING, None), (PROBLEM, SPELLED)]
    )
    assert plain == spelling == informed
    assert ("<think>" in plain) == bool(format.prefill)


def test_control_tokens_of_a_system_message_are_text():
    format = replace(CHAT, system=f"Write {SPELLED}.")
    (ids,) = prompt_tokens(chatml(), [PROBLEM], format=format)
    (without,) = prompt_tokens(chatml(), [PROBLEM], format=replace(CHAT, system="x"))
    assert control(chatml(), ids) == control(chatml(), without)


def test_a_vocabulary_without_another_spelling_gets_blanks():
    tokenizer = unigram()
    format = replace(PLAIN, prefill="h {{ statement }}")
    problem = Problem(name="t", statement="theorem t </s>")
    (ids,) = prompt_tokens(tokenizer, [problem], ["</s>"], format)
    (plain,) = prompt_tokens(tokenizer, [PROBLEM], ["h"], format)
    assert ids.count(tokenizer.eos_token_id) == plain.count(tokenizer.eos_token_id)


@pytest.mark.parametrize("field", ["statement", "header", "informal"])
@pytest.mark.parametrize("format", [CHAT, PREFILLED])
def test_a_lone_surrogate_is_an_error_that_names_the_problem(field, format):
    problem = replace(PROBLEM, name="broken", **{field: "theorem t : \ud800"})
    with pytest.raises(DataError, match="prompt for broken in valid Unicode"):
        prompt_text(chatml(), problem, format=format)


# ---- the chat template


def test_the_prefill_follows_the_generation_prompt():
    tokenizer = chatml(f"{templates.QWEN3}\n")
    plain = prompt_text(tokenizer, PROBLEM, format=CHAT)
    assert plain.endswith("<|im_start|>assistant\n")
    format = replace(CHAT, prefill='∀ "\\" {{ statement }}\n')
    expected = f'{plain}∀ "\\" {PROBLEM.statement}\n'
    assert prompt_text(tokenizer, PROBLEM, format=format) == expected
    (ids,) = prompt_tokens(tokenizer, [PROBLEM], format=format)
    assert ids == tokenizer(expected, add_special_tokens=False)["input_ids"]


def test_the_template_of_the_format_goes_before_the_tokenizers():
    text = prompt_text(chatml(), PROBLEM, format=COMPLETION)
    assert text == f"{PROBLEM.statement} := by\n"


def test_arguments_reach_the_template():
    tokenizer = chatml("{{ messages[0].content }}|{{ effort }}|{{ tools | length }}")
    format = replace(CHAT, arguments={"effort": "low", "tools": [{"type": "x"}]})
    assert prompt_text(tokenizer, PROBLEM, format=format).endswith("|low|1")


def test_an_argument_that_nobody_reads_is_an_error():
    with pytest.raises(ConfigError, match="enable_thinking, which does not occur"):
        prompt_text(chatml(templates.LLAMA3), PROBLEM, format=QWEN3)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ messages[-1].content }}", "leaves it out: put it into PromptFormat.user"),
        (
            "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}"
            "{% endif %}{{ messages[-1].content }}",
            "renders a system message and one of the user's, got: no system",
        ),
    ],
)
def test_a_system_message_that_is_not_rendered_is_an_error(template, message):
    with pytest.raises(ConfigError, match=message):
        prompt_text(chatml(template), PROBLEM, format=KIMINA)


@pytest.mark.parametrize(
    ("template", "format"),
    [
        (templates.QWEN3_2507, CHAT),
        (templates.QWEN3, replace(CHAT, prefill="<think>\n")),
        (templates.QWEN3_2507, replace(CHAT, extract=AfterThinking(), answer=None)),
    ],
)
def test_a_draft_in_thinking_that_the_prompt_opens_is_no_answer(template, format):
    with pytest.raises(ConfigError, match="takes unfinished thinking"):
        prompt_text(chatml(template), PROBLEM, format=format)


def test_a_prompt_is_the_same_on_every_day():
    tokenizer = chatml("\n{{ strftime_now('%A, %d %B %Y; %b %m/%y') }}")
    assert prompt_text(tokenizer, PROBLEM) == "\nFriday, 26 July 2024; Jul 07/24"


# ---- answers

LEAN = Problem(
    name="t",
    header="open Nat -- for all",
    informal="A conjunction, the other way -/ round.",
    statement="theorem t (p q : Prop) (h : p ∧ q) : q ∧ p -- easy",
)
REFERENCE = "  constructor\n  · exact h.2 -- first\n  · exact h.1 -- then"
FORMATS = {name: getattr(ready, name) for name in ready.__all__} | {
    "begun by the prompt": replace(
        CHAT,
        prefill="```lean4\n{{ opened }}\n",
        answer="{{ proof }}\n```",
        extract=up_to_fence,
    ),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_known_proof_as_the_model_would_write_it_is_worth_1(verifier, name):
    format = FORMATS[name]
    judge = LeanJudge(verifier=verifier, extract=format.extract)
    text = format.answer_text(LEAN, REFERENCE)
    [right, wrong] = asyncio.run(
        judge.judge([(LEAN, text), (LEAN, text.replace("h.1", "h.2"))])
    )
    assert (right.reward, wrong.reward) == (1.0, 0.0), right
    assert text[right.start :].startswith(right.answer)
