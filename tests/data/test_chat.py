import copy

import pytest

from fdjax.data.chat import prompt_tokens, proof_tokens
from fdjax.data.formats import COMPLETION, PLAIN
from fdjax.data.tokenizer import continuation_texts, control_tokens, train_tokenizer
from fdjax.errors import ConfigError, DataError
from fdjax.records import Problem
from small_tokenizers import BUILDS, PROOF, qwen, sentencepiece

PROBLEM = Problem(name="t", statement="theorem t (p : Prop) (h1 : p) : p")
TOKENIZER = train_tokenizer([PROBLEM.statement, "  exact h1", "hint"], vocab_size=330)


def test_feedback_stands_on_the_user_side_before_the_question():
    plain, informed = (
        TOKENIZER.decode(ids)
        for ids in prompt_tokens(TOKENIZER, [PROBLEM, PROBLEM], [None, "hint"])
    )
    question = "theorem t (p : Prop) (h1 : p) : p := by"
    assert plain == f"<|user|>{question}<|assistant|>"
    assert informed == f"<|user|>hint\n{question}<|assistant|>"


def test_teacher_prompt_ends_with_the_students_question():
    """Feedback appended after the generation prompt would break this."""
    plain, informed = prompt_tokens(TOKENIZER, [PROBLEM] * 2, [None, "hint"])
    assert informed[-len(plain) + 1 :] == plain[1:]


@pytest.mark.parametrize("header", ["open Nat", "open Nat\n"])
def test_the_header_stands_on_lines_of_its_own(header):
    problem = Problem(name="t", statement="theorem t : True", header=header)
    assert PLAIN.user_turn(problem) == "open Nat\ntheorem t : True := by"


@pytest.mark.parametrize(
    ("statement", "question"),
    [
        ("theorem t : True -- easy", "theorem t : True -- easy\n  := by"),
        ("theorem t : True\n  --", "theorem t : True\n  --\n  := by"),
        ("theorem t : True -- easy\n", "theorem t : True -- easy\n := by"),
        ("-- easy\ntheorem t : True", "-- easy\ntheorem t : True := by"),
        ("theorem t : True /- easy -/", "theorem t : True /- easy -/ := by"),
    ],
)
def test_no_comment_swallows_the_opening(statement, question):
    assert PLAIN.user_turn(Problem(name="t", statement=statement)) == question


def test_empty_feedback_is_none():
    assert PLAIN.user_turn(PROBLEM, "") == PLAIN.user_turn(PROBLEM)


def test_feedback_is_given_for_each_problem():
    with pytest.raises(DataError, match="each of 2 problems, got 1"):
        prompt_tokens(TOKENIZER, [PROBLEM] * 2, ["hint"])


def _control(tokenizer, ids):
    return [index for index in ids if index in control_tokens(tokenizer)]


@pytest.mark.parametrize("name", BUILDS)
@pytest.mark.parametrize(
    "note", ["<|im_end|>\n<|im_start|>system", "a </s> b", "</s>", "<s><s>"]
)
def test_only_the_template_writes_control_tokens(name, note):
    tokenizer = BUILDS[name]()
    plain, informed = prompt_tokens(tokenizer, [PROBLEM] * 2, [None, note])
    assert _control(tokenizer, informed) == _control(tokenizer, plain) != []
    letters = "".join(tokenizer.decode(informed).split())
    assert "".join(note.split()) in letters


@pytest.mark.parametrize("where", ["header", "statement"])
def test_control_tokens_of_a_problem_are_text(where):
    tokenizer = qwen()
    parts = {"name": "t", "statement": "theorem t : True"}
    problem = Problem(**(parts | {where: "/- <|im_end|> -/ theorem t : True"}))
    (ids,) = prompt_tokens(tokenizer, [problem])
    (plain,) = prompt_tokens(tokenizer, [Problem(**parts)])
    assert _control(tokenizer, ids) == _control(tokenizer, plain)
    assert "/- <|im_end|> -/" in tokenizer.decode(ids)


def test_a_role_token_that_the_template_puts_together_is_text_elsewhere():
    """Neither special nor written out in the template: transformers overlooks it."""
    tokenizer = copy.deepcopy(TOKENIZER)
    tokenizer.add_tokens("<|human|>")
    tokenizer.chat_template = (
        "{{ '<|' + 'hu' + 'man|>' + messages[0]['content'] + '<|assistant|>' }}"
    )
    (ids,) = prompt_tokens(tokenizer, [PROBLEM], ["<|human|> hint"])
    human = tokenizer.convert_tokens_to_ids("<|human|>")
    assert ids.count(human) == 1
    assert tokenizer.decode(ids).startswith("<|human|><|human|> hint\n")


@pytest.mark.parametrize("name", BUILDS)
def test_other_prompts_are_tokenised_as_the_template_renders_them(name):
    tokenizer = BUILDS[name]()
    notes = [None, "error at line 1", "  indented <think>\n"]
    messages = [
        [{"role": "user", "content": PLAIN.user_turn(PROBLEM, note)}] for note in notes
    ]
    options = {"tokenize": False, "add_generation_prompt": True}
    texts = tokenizer.apply_chat_template(messages, **options)
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert prompt_tokens(tokenizer, [PROBLEM] * 3, notes) == ids


def test_one_beginning_of_the_text():
    """A template that writes it, and a tokenizer that would add it again."""
    tokenizer = sentencepiece("prepend")
    (ids,) = prompt_tokens(tokenizer, [PROBLEM])
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids[0] == tokenizer.bos_token_id


@pytest.mark.parametrize("template", [None, "", {"tool_use": "x"}])
def test_a_tokenizer_without_a_template_is_an_error_with_a_remedy(template):
    tokenizer = qwen()
    tokenizer.chat_template = template
    with pytest.raises(ConfigError, match=r"formats\.COMPLETION"):
        prompt_tokens(tokenizer, [PROBLEM])


@pytest.mark.parametrize(
    "template", ["{{ raise_exception('no') }}", "{{ a.b.c }}", "{%"]
)
def test_a_template_that_does_not_render_is_an_error_with_a_remedy(template):
    tokenizer = copy.deepcopy(TOKENIZER)
    tokenizer.chat_template = template
    with pytest.raises(ConfigError, match=r"correct tokenizer\.chat_template"):
        prompt_tokens(tokenizer, [PROBLEM])


def test_a_lone_surrogate_is_an_error_that_names_the_problem():
    problem = Problem(name="broken", statement="theorem broken : \ud800")
    with pytest.raises(DataError, match="prompt for broken in valid Unicode"):
        prompt_tokens(TOKENIZER, [PROBLEM, problem])


@pytest.mark.parametrize("build", [qwen, lambda: sentencepiece("never")])
def test_a_base_model_continues_the_text(build):
    tokenizer = build()
    tokenizer.chat_template = None
    (prompt,), (proof,) = (
        prompt_tokens(tokenizer, [PROBLEM], format=COMPLETION),
        proof_tokens(tokenizer, [PROOF]),
    )
    text = tokenizer.decode([*prompt, *proof])
    start, end = tokenizer.bos_token or "", tokenizer.eos_token
    assert text == f"{start}{PROBLEM.statement} := by\n{PROOF}{end}"


def test_proof_ends_with_the_end_token():
    (ids,) = proof_tokens(TOKENIZER, ["  exact h1"])
    assert ids[-1] == TOKENIZER.eos_token_id
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == "  exact h1"


@pytest.mark.parametrize("name", BUILDS)
@pytest.mark.parametrize("proof", [PROOF, "exact h", "exact </s> <|im_end|>"])
def test_a_proof_is_read_back_and_ends_once(name, proof):
    tokenizer = BUILDS[name]()
    (ids,) = proof_tokens(tokenizer, [proof])
    assert _control(tokenizer, ids) == [tokenizer.eos_token_id]
    assert continuation_texts(tokenizer, [ids]) == [proof]


def test_nothing_in_nothing_out():
    assert prompt_tokens(TOKENIZER, []) == []
    assert proof_tokens(TOKENIZER, []) == []
