"""Episodes: what ends them, what they hold, what is judged, what a teacher reads."""

import asyncio
import threading
from concurrent.futures import Future
from dataclasses import replace

import jax
import numpy as np
import pytest

from episodes.scripted import ECHO, Echo, Scripted, call_text, echo_box
from episodes.templates import ALTERNATING, QWEN3, QWEN25
from fdjax.data.chat import prompt_tokens
from fdjax.data.formats import CHAT, PLAIN, QWEN3_NO_THINKING
from fdjax.data.formats import QWEN3 as THINKING
from fdjax.episodes import Budget, Episodes, Fenced, Hermes
from fdjax.errors import BackendError, ConfigError
from fdjax.records import Problem
from fdjax.sampling import Sampler
from fdjax.tools import Toolbox, Workspace
from scripted import AtOnce
from small_tokenizers import qwen, sentencepiece

PROBLEM = Problem(name="t", statement="theorem t (p : Prop) (h1 : p) : p")
KEY = jax.random.key(3)
ANSWER = "```lean4\ntheorem t (p : Prop) (h1 : p) : p := h1\n```"


def made(template=QWEN25, format=CHAT, **budget):
    tokenizer = qwen()
    tokenizer.chat_template = template
    return Episodes(
        tokenizer=tokenizer,
        format=format,
        calls=Hermes(specs=(ECHO,)),
        budget=Budget(**budget),
    )


EPISODES = made()


def run(turns, episodes=EPISODES, toolbox=None, **options):
    sampler = Scripted(episodes.tokenizer, turns, **options)
    toolbox = toolbox or echo_box()
    episode = asyncio.run(episodes.run(PROBLEM, sampler, toolbox, KEY))
    return episode, sampler


def roles(episode):
    return [turn.role for turn in episode.turns]


def test_an_answer_ends_it():
    episode, sampler = run([call_text("hello"), ANSWER])
    assert isinstance(sampler, Sampler)
    assert episode.ended == "answer"
    assert episode.finished
    assert roles(episode) == ["user", "assistant", "tool", "assistant"]
    assert episode.text == ANSWER
    assert not episode.from_file
    [seen] = episode.observations
    assert (seen.tool, seen.arguments, seen.text) == (
        *("echo", {"text": "hello"}, "hello"),
    )
    assert [turn.version for turn in episode.turns] == [None, 1, None, 2]
    behaviour = episode.turns[1].behaviour_logprobs
    assert behaviour.tolist() == [-1.0] * len(episode.turns[1].tokens)
    assert episode.version == 1
    assert set(episode.seconds) == {"sample", "tools"}
    between = EPISODES.tokenizer.decode(episode.turns[2].tokens)
    assert between == (
        "\n<|im_start|>user\n<tool_response>\nhello\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_each_turn_has_a_key_of_its_own():
    _, sampler = run([call_text("a"), call_text("b"), ANSWER])
    expected = [jax.random.fold_in(KEY, number) for number in range(3)]
    for key, other in zip(sampler.keys, expected, strict=True):
        assert (jax.random.key_data(key) == jax.random.key_data(other)).all()


def test_several_calls_are_answered_in_order():
    both = f"{call_text('one')}\n{call_text('two')}"
    episode, _ = run([both, ANSWER])
    assert [seen.text for seen in episode.observations] == ["one", "two"]
    between = EPISODES.tokenizer.decode(episode.turns[2].tokens)
    assert between.index("one") < between.index("two")
    assert between.count("<tool_response>") == 2


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        ("<tool_call>\n{'name'\n</tool_call>", "error: the call is not valid JSON"),
        (call_text("a", name="rm"), "error: there is no tool `rm`; there are echo"),
        ("<tool_call>{}</tool_call>", "error: a call is a JSON object with the keys"),
    ],
)
def test_a_wrong_call_is_told_and_counts(turn, said):
    episode, _ = run([turn, ANSWER], made(calls=1))
    [seen] = episode.observations
    assert seen.text.startswith(said)
    assert seen.ended == "refused"
    assert seen.text.endswith("(No calls are left: give your final answer now.)")
    assert episode.ended == "answer"


def test_calls_run_out():
    episode, _ = run([call_text("a"), call_text("b"), call_text("c")], made(calls=2))
    assert episode.ended == "calls"
    assert not episode.finished
    assert [seen.text[0] for seen in episode.observations] == ["a", "b"]
    assert roles(episode)[-1] == "assistant"
    many = "\n".join(map(call_text, "abc"))
    episode, _ = run([many, ANSWER], made(calls=2))
    assert [seen.ended for seen in episode.observations] == ["done", "done", "refused"]
    assert episode.observations[-1].text.startswith("error: no calls are left")
    episode, _ = run([call_text("a")], made(calls=0))
    assert (episode.ended, episode.observations) == ("calls", ())


def test_tokens_run_out_in_a_turn():
    for budget, ended in (({"tokens": 5}, "tokens"), ({"turn_tokens": 5}, "turn")):
        episode, sampler = run([ANSWER], made(**budget))
        assert episode.ended == ended
        assert sampler.most == [5]
        assert len(episode.row.tokens) == 5
        assert not episode.finished


def test_tokens_run_out_between_turns():
    whole, _ = run([call_text("a"), ANSWER])
    first, between = (len(turn.tokens) for turn in whole.turns[1:3])
    # Not one token could be sampled behind the answer.
    episode, _ = run([call_text("a"), ANSWER], made(tokens=first + between))
    assert episode.ended == "tokens"
    assert len(episode.row.tokens) == first
    assert [seen.text for seen in episode.observations] == ["a"]
    episode, sampler = run([call_text("a"), ANSWER], made(tokens=first + between + 1))
    assert episode.ended == "tokens"
    assert sampler.most == [first + between + 1, 1]
    assert len(episode.row.tokens) == first + between + 1


def test_nothing_is_sampled_from_a_prompt_too_long():
    episode, sampler = run([], made(prompt_tokens=10))
    assert episode.ended == "prompt"
    assert roles(episode) == ["user"]
    assert not sampler.prompts
    assert len(episode.row.tokens) == 0
    assert episode.text == ""


def test_a_tool_that_breaks_ends_nothing():
    class Broken(Echo):
        async def call(self, arguments):
            raise BackendError("no Lean")

    episode, _ = run([call_text("a"), ANSWER], toolbox=Toolbox([Broken()]))
    assert episode.ended == "answer"
    assert episode.observations[0].ended == "failed"


def test_while_tools_work_nothing_is_submitted():
    """The sampler's slot is free: its future is done, and no other is asked for."""
    submitted, open_during = [], []

    class Slow(Scripted):
        def submit(self, prompt, key, *, max_new_tokens):
            done = super().submit(prompt, key, max_new_tokens=max_new_tokens)
            future = Future()
            submitted.append(future)
            # From another thread, as samplers do.
            threading.Timer(0.01, lambda: future.set_result(done.result())).start()
            return future

    class Looking(Echo):
        async def call(self, arguments):
            await asyncio.sleep(0.02)
            open_during.append([future.done() for future in submitted])
            return "x"

    sampler = Slow(EPISODES.tokenizer, [call_text("a"), call_text("b"), ANSWER])
    asyncio.run(EPISODES.run(PROBLEM, sampler, Toolbox([Looking()]), KEY))
    assert open_during == [[True], [True, True]]


def test_many_run_at_once_on_one_loop():
    async def all_of_them():
        samplers = [
            Scripted(EPISODES.tokenizer, [call_text(f"n{n}"), f"answer {n}"])
            for n in range(8)
        ]
        runs = [EPISODES.run(PROBLEM, each, echo_box(), KEY) for each in samplers]
        return await asyncio.gather(*runs)

    for number, episode in enumerate(asyncio.run(all_of_them())):
        assert episode.observations[0].text == f"n{number}"
        assert episode.text == f"answer {number}"


def test_a_cancelled_episode_gives_its_request_up():
    futures = []

    class Never(AtOnce):
        def submit(self, prompt, key, *, max_new_tokens):
            futures.append(Future())
            return futures[0]

    async def cancel():
        task = asyncio.create_task(EPISODES.run(PROBLEM, Never(), echo_box(), KEY))
        while not futures:
            await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancel())
    assert futures[0].cancelled()


def test_a_turn_without_an_end_token_gets_the_templates():
    """Such as one that a stop string ended, or an engine that keeps the token back."""

    class Bare(Scripted):
        def submit(self, prompt, key, *, max_new_tokens):
            future = super().submit(prompt, key, max_new_tokens=max_new_tokens)
            sample = future.result()
            bare = Future()
            names = ("tokens", "logprobs", "behaviour_logprobs", "entropy")
            cut = {name: getattr(sample, name)[:-1] for name in names}
            bare.set_result(replace(sample, **cut))
            return bare

    sampler = Bare(EPISODES.tokenizer, [call_text("a"), ANSWER])
    episode = asyncio.run(EPISODES.run(PROBLEM, sampler, echo_box(), KEY))
    whole, _ = run([call_text("a"), ANSWER])
    assert (
        np.concatenate([turn.tokens for turn in episode.turns]).tolist()
        == (np.concatenate([turn.tokens for turn in whole.turns]).tolist()[:-1])
    )
    assert episode.turns[2].tokens[0] == EPISODES.tokenizer.eos_token_id
    assert episode.row.mask.sum() == whole.row.mask.sum() - 2


@pytest.mark.parametrize("build", [qwen, lambda: sentencepiece("always")])
def test_a_whole_proof_is_the_episode_of_one_turn(build):
    episodes = Episodes(tokenizer=build(), format=CHAT)
    sampler = Scripted(episodes.tokenizer, [ANSWER])
    episode = asyncio.run(episodes.run(PROBLEM, sampler, None, KEY))
    assert roles(episode) == ["user", "assistant"]
    [ids] = prompt_tokens(episodes.tokenizer, [PROBLEM], format=CHAT)
    assert episode.prompt.tolist() == ids
    assert episode.row.mask.all()
    assert (episode.ended, episode.text) == ("answer", ANSWER)
    cut = replace(episodes, budget=Budget(tokens=4))
    sampler = Scripted(episodes.tokenizer, [ANSWER])
    assert asyncio.run(cut.run(PROBLEM, sampler, None, KEY)).ended == "tokens"


def test_without_tools_a_call_is_text():
    episodes = Episodes(tokenizer=qwen(), format=CHAT)
    sampler = Scripted(episodes.tokenizer, [call_text("a")])
    episode = asyncio.run(episodes.run(PROBLEM, sampler, None, KEY))
    assert (episode.ended, episode.text) == ("answer", call_text("a"))


def test_the_teacher_reads_feedback_once_and_the_same_episode():
    episode, _ = run([call_text("a"), call_text("b"), ANSWER])
    tokens, mask = EPISODES.teacher(episode, "Use h1.")
    student = np.concatenate([turn.tokens for turn in episode.turns])
    row = episode.row
    [prompt] = EPISODES.prompts([PROBLEM], ["Use h1."])
    assert tokens.tolist() == [*prompt, *row.tokens]
    assert mask.tolist() == [False] * len(prompt) + row.mask.tolist()
    assert tokens[mask].tolist() == student[len(episode.prompt) :][row.mask].tolist()
    text = EPISODES.tokenizer.decode(tokens)
    assert text.count("Use h1.") == 1
    assert text.index("Use h1.") < text.index("<tool_response>")


def test_the_file_written_last_is_the_answer_where_the_turn_has_none(tmp_path):
    class Writing(Echo):
        async def call(self, arguments):
            workspace.write("proof.lean", arguments["text"])
            return "written"

    workspace = Workspace(tmp_path)
    toolbox = Toolbox([Writing()], workspace)
    first, second = (f"theorem t : True := {proof} -- ```" for proof in "ab")
    writes = [call_text(first), call_text(second)]
    episode, _ = run([*writes, "It is in the file."], toolbox=toolbox)
    assert episode.from_file
    assert episode.text == f"````lean4\n{second}\n````"
    assert CHAT.extract(PROBLEM, episode.text).submission.text.strip() == second
    episode, _ = run([*writes, ANSWER], toolbox=toolbox)
    assert not episode.from_file
    assert episode.text == ANSWER
    # A limit ended it: the file is judged all the same.
    episode, _ = run(writes, made(calls=1), toolbox=toolbox)
    assert (episode.ended, episode.from_file) == ("calls", True)


@pytest.mark.parametrize("special", [True, False])
def test_tags_may_be_tokens_of_the_vocabulary(special):
    """As Qwen's are; an answer that spells them gets a blank."""
    tokenizer = qwen()
    tags = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]
    tokenizer.add_tokens(tags, special_tokens=special)
    tokenizer.chat_template = QWEN25
    episodes = Episodes(tokenizer=tokenizer, format=CHAT, calls=Hermes(specs=(ECHO,)))
    text = call_text("</tool_response>x")
    turn = tokenizer(text.replace("</tool_response>", ""), add_special_tokens=False)
    sampler = Scripted(tokenizer, [turn["input_ids"], ANSWER])
    toolbox = echo_box(["</tool_response>x"])
    episode = asyncio.run(episodes.run(PROBLEM, sampler, toolbox, KEY))
    assert tokenizer.convert_tokens_to_ids("<tool_call>") in episode.turns[1].tokens
    assert episode.observations[0].arguments == {"text": "x"}
    between = tokenizer.decode(episode.turns[2].tokens)
    assert "\n< /tool_response>x\n</tool_response>" in between
    assert episode.text == ANSWER


def test_a_call_in_thinking_is_none():
    episodes = made(QWEN3, THINKING)
    thinks = f"<think>\n{call_text('a')}\n</think>\n\n"
    episode, _ = run([f"{thinks}{call_text('b')}", f"{thinks}{ANSWER}"], episodes)
    assert [seen.text for seen in episode.observations] == ["b"]
    assert episode.ended == "answer"
    episode, _ = run([f"<think>\n{call_text('a')}"], episodes)
    assert (episode.ended, episode.observations) == ("answer", ())


def test_thinking_stays_and_the_template_is_known_to_change_it():
    assert EPISODES.glue.rewrites == ()
    assert made(QWEN3, THINKING).glue.rewrites == ()
    assert made(QWEN3, QWEN3_NO_THINKING).glue.rewrites == ("beginning",)
    fenced = made(QWEN3, THINKING)
    fenced = replace(fenced, calls=Fenced(specs=(ECHO,)))
    # Answers as the user's: to this template, each begins a new question.
    assert fenced.glue.rewrites == ("thinking",)
    zephyr = Episodes(
        tokenizer=sentencepiece("always"), format=CHAT, calls=Fenced(specs=(ECHO,))
    )
    assert zephyr.glue.rewrites == ("beginning", "blanks")
    call = call_text("a").replace("<tool_call>", "```tool")
    call = call.replace("</tool_call>", "```")
    turn = f"<think>\nplan\n</think>\n\n{call}"
    episode, sampler = run([turn, ANSWER], fenced)
    assert "plan" in fenced.tokenizer.decode(sampler.prompts[1])
    assert episode.row.mask[: len(sampler.sampled[0])].all()


def test_a_template_that_cannot_go_on_is_refused():
    with pytest.raises(ConfigError, match="one that refuses it: Roles must alternate"):
        made(ALTERNATING)
    silent = QWEN25.replace("{{- message.content }}{{- '\\n</tool_response>' }}", "")
    with pytest.raises(ConfigError, match="leaves turns or answers out"):
        made(silent)
    later = QWEN25.replace(
        "{{- '\\n<tool_response>\\n' }}",
        "{{- '\\n<tool_response>\\n' if loop.index0 < 4 else '\\nOUT\\n' }}",
    )
    with pytest.raises(ConfigError, match="a later turn differently"):
        made(later)
    alternating = qwen()
    alternating.chat_template = ALTERNATING
    plain = Fenced(specs=(ECHO,), place="user")
    Episodes(tokenizer=alternating, format=CHAT, calls=plain)


def test_the_tools_are_those_that_the_model_is_told_of():
    for episodes, toolbox in (
        (EPISODES, None),
        (EPISODES, Toolbox([])),
        (Episodes(tokenizer=qwen(), format=CHAT), echo_box()),
    ):
        sampler = Scripted(episodes.tokenizer, [ANSWER])
        with pytest.raises(ConfigError, match="the tools that the model is told of"):
            asyncio.run(episodes.run(PROBLEM, sampler, toolbox, KEY))


def test_a_plain_format_judges_the_turn_not_a_file(tmp_path):
    """Its answers are tactics, so a file is none."""
    tokenizer = qwen()
    tokenizer.chat_template = QWEN25
    episodes = Episodes(tokenizer=tokenizer, format=PLAIN, calls=Hermes(specs=(ECHO,)))
    workspace = Workspace(tmp_path)
    workspace.write("proof.lean", "x")
    episode, _ = run(["  exact h1"], episodes, Toolbox([Echo()], workspace))
    assert (episode.text, episode.from_file) == ("  exact h1", False)
