from fdjax.data.chat import prompt_tokens, proof_tokens, user_message
from fdjax.data.tokenizer import train_tokenizer
from fdjax.records import Problem

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


def test_header_is_part_of_the_question():
    problem = Problem(name="t", statement="theorem t : True", header="open Nat\n")
    assert user_message(problem) == "open Nat\ntheorem t : True := by"


def test_proof_ends_with_the_end_token():
    (ids,) = proof_tokens(TOKENIZER, ["  exact h1"])
    assert ids[-1] == TOKENIZER.eos_token_id
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == "  exact h1"


def test_nothing_in_nothing_out():
    assert prompt_tokens(TOKENIZER, []) == []
    assert proof_tokens(TOKENIZER, []) == []
