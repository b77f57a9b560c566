"""The policy writes feedback on its own attempts: in one batch, and without waiting."""

import asyncio
import json
import threading
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace

import jax
import numpy as np
import pytest

import scripted
from fdjax.data.chat import prompt_tokens
from fdjax.data.formats import PLAIN
from fdjax.errors import ConfigError, DataError, FeedbackError
from fdjax.feedback import CompilerFeedback, Kind, Mixture, PolicyFeedback
from fdjax.feedback.chat import Question
from fdjax.feedback.chat.recording import question_key
from fdjax.judge import LeanJudge
from fdjax.lean import FakeBackend, Verifier
from fdjax.records import Problem
from fdjax.rollout import Journal, PolicyChat
from fdjax.sampling import (
    SamplingConfig,
    SamplingError,
    SlotSampler,
    SlotsConfig,
)
from scripted import Scripted
from tiny import MODEL, PROBLEMS, TOKENIZER, mesh_of

TEMPLATE = """{% block system %}Say why.{% endblock %}
{% block user %}{{ theorem }}
{{ attempt.code }}{% endblock %}
"""
WIDTH, LONGEST = 100, 16
SAMPLING = SamplingConfig(
    max_new_tokens=LONGEST,
    # A policy that has learnt nothing seldom says its end token.
    stop_tokens=tuple(range(4, 304, 3)),
)
PROOFS = ("  skip", "  exact h1", "  trivial", "  exact h2")
"""Of two problems, two attempts each; the verifier accepts the third."""


@pytest.fixture(scope="module")
def params():
    return jax.jit(MODEL.init)(jax.random.key(0))


@pytest.fixture(scope="module")
def verifier():
    with Verifier(FakeBackend, workers=2) as verifier:
        yield verifier


@pytest.fixture
def settings(tmp_path):
    path = tmp_path / "why@1.jinja"
    path.write_text(TEMPLATE)
    return PolicyFeedback(
        template=path,
        prompt_tokens=WIDTH,
        max_new_tokens=LONGEST,
        max_missing_share=1,
    )


def slots(mesh=None):
    config = SlotsConfig(longest=WIDTH + LONGEST, slots=8, page=16)
    return SlotSampler(MODEL, SAMPLING, config, mesh)


class Reviewer(Scripted):
    """Makes given attempts, and reviews them by a real sampler.

    Keeps how many different questions it had together, and the threads that worked.
    """

    def __init__(self, proofs, mesh, says):
        super().__init__(proofs)
        self.batches = []
        self.threads = set()
        self._questions = []
        self._says = says or (lambda: None)
        self._slots = slots(mesh)

    def submit(self, prompt, key, **request):
        if "Say why." not in TOKENIZER.decode(prompt):
            return super().submit(prompt, key, **request)
        self._says()
        self._questions.append(tuple(prompt))
        return self._slots.submit(prompt, key, **request)

    def publish(self, params, version):
        super().publish(params, version)
        self._slots.publish(params, version)

    @contextmanager
    def together(self):
        self._questions = []
        with self._slots.together():
            yield
        if self._questions:
            self.batches.append(len(set(self._questions)))

    def serve(self, until):
        self.threads.add(threading.current_thread())
        self._slots.serve(until)


@pytest.fixture
def made(verifier):
    """Makes a pipeline that samples given proofs, and the sampler of its feedback."""
    chats = []

    def make(settings, proofs=PROOFS, mesh=None, writer=None, judge=None, says=None):
        sampler = Reviewer(proofs, mesh, says)
        chat = PolicyChat(settings, sampler, TOKENIZER, format=PLAIN, name="tiny")
        chats.append(chat)
        return scripted.pipeline(
            sampler,
            judge or LeanJudge(verifier=verifier),
            (writer or PolicyFeedback.make)(settings, chat),
            policy=chat,
            phase="fd",
        ), sampler

    yield make
    for chat in chats:
        asyncio.run(chat.aclose())


def notes(pipeline, params, problems=PROBLEMS[:2], seed=1, **changes):
    """Feedback on each attempt."""
    given = {"group_size": 2} | changes
    rollout = pipeline.collect(params, problems, jax.random.key(seed), **given)
    return [each.feedback for each in rollout.trajectories]


def test_questions_about_all_groups_are_one_batch(made, settings, params):
    pipeline, sampler = made(settings)
    found = notes(pipeline, params)
    assert sampler.batches == [3]
    # Devices work where they did before.
    assert sampler.threads == {threading.main_thread()}
    assert found[2].text == "verified: this proof is complete"
    asked = [found[n] for n in (0, 1, 3)]
    assert all(note.available or note.kind in (Kind.CUT, Kind.EMPTY) for note in asked)
    assert sum(note.available for note in asked) >= 2
    assert all(note.usage.requests == 1 for note in asked)
    assert all(note.usage.input_tokens > 20 for note in asked)


def test_an_answer_is_the_policys_own(made, settings, params):
    """Sampled anew without the chat: one prompt, its key from question and rollout."""
    pipeline, _ = made(settings)
    note = notes(pipeline, params, seed=3)[0]
    question = Question(
        system="Say why.",
        user=f"{PROBLEMS[0].statement}\n   1 |   skip",
        template="why@1",
    )
    [ids] = prompt_tokens(
        TOKENIZER,
        [Problem(name="q", statement=f"{question.system}\n\n{question.user}")],
        format=replace(PLAIN, user="{{ statement }}", answer=None),
    )
    number = np.uint32(int(question_key({}, question)[:8], 16))
    key = jax.random.fold_in(jax.random.key(3), number)
    sampler = slots()
    sampler.publish(params, 0)
    future = sampler.submit(ids, key, max_new_tokens=LONGEST)
    sampler.drain()
    tokens = future.result().tokens
    assert note.usage.output_tokens == len(tokens)
    assert note.text == TOKENIZER.decode(tokens, skip_special_tokens=True).strip()


def test_an_answer_depends_on_no_other_question(made, settings, params):
    pipeline, _ = made(settings)
    both = notes(pipeline, params)
    alone, sampler = made(settings, proofs=PROOFS[2:])
    assert notes(alone, params, PROBLEMS[1:2])[1] == both[3]
    assert sampler.batches == [1]
    # Another key, step or policy answers otherwise.
    assert notes(pipeline, params, seed=2) != both
    assert notes(pipeline, jax.tree.map(lambda w: -w, params)) != both
    assert notes(pipeline, params, version=7) == both


def test_the_temperature_is_that_of_the_settings(made, settings, params):
    """The sampler's own is that of the attempts."""
    cold = replace(settings, temperature=0.01)
    one, other = (notes(made(cold)[0], params, seed=seed)[0] for seed in (1, 2))
    assert one.text == other.text != notes(made(settings)[0], params, seed=1)[0].text


def test_equal_questions_are_asked_once(made, settings, params):
    """Both of a group may have made the same attempt."""
    pipeline, sampler = made(settings, proofs=("  skip",) * 4)
    found = notes(pipeline, params, [PROBLEMS[0]] * 2)
    assert sampler.batches == [1]
    assert len({note.text for note in found}) == 1
    assert [note.usage.requests for note in found].count(1) == 1
    assert [note.usage.recorded for note in found].count(1) == 3


def test_eight_devices_say_the_same(made, settings, params):
    alone, _ = made(settings)
    sharded, sampler = made(settings, mesh=mesh_of(data=2, fsdp=2, tensor=2))
    assert notes(sharded, params) == notes(alone, params)
    assert sampler.batches == [3]


def test_a_replay_samples_nothing(made, settings, params, tmp_path):
    settings = replace(settings, recording=tmp_path / "answers.jsonl")
    pipeline, sampler = made(settings)
    first = notes(pipeline, params, version=3)
    rows = list(map(json.loads, settings.recording.read_text().splitlines()))
    assert {(row["identity"]["phase"], row["identity"]["step"]) for row in rows} == {
        ("fd", 3)
    }

    def never():
        pytest.fail("sampled")

    replayed, _ = made(replace(settings, replay=True), says=never)
    again = notes(replayed, params, version=3)
    assert [(note.parts, note.kind) for note in again] == [
        (note.parts, note.kind) for note in first
    ]
    assert sum(note.usage.recorded for note in again) == 3
    # What it did not say then.
    for changed in ({"version": 4}, {"seed": 2}):
        missing = notes(replayed, params, **({"version": 3} | changed))
        assert [note.kind for note in missing] == [
            *[Kind.UNRECORDED] * 2,
            None,
            Kind.UNRECORDED,
        ]
    assert sampler.batches == [3]


def test_what_a_killed_process_lost_is_said_again(made, settings, params, tmp_path):
    settings = replace(settings, recording=tmp_path / "answers.jsonl")
    first = notes(made(settings)[0], params)
    lines = settings.recording.read_bytes().splitlines(keepends=True)
    settings.recording.write_bytes(lines[1])
    pipeline, sampler = made(settings)
    again = notes(pipeline, params)
    assert [note.text for note in again] == [note.text for note in first]
    assert sampler.batches == [2]


def test_a_question_that_is_too_long_has_no_answer(made, settings, params):
    proofs = ("  skip", "  skip skip skip", *PROOFS[2:])
    fitting = notes(made(settings, proofs)[0], params)
    length = fitting[0].usage.input_tokens
    narrow = replace(settings, prompt_tokens=length)
    found = notes(made(narrow, proofs)[0], params)
    assert found[1].kind is Kind.INVALID
    assert f"more than prompt_tokens = {length}" in found[1].error
    assert found[0].text == fitting[0].text


def test_groups_that_ask_nothing_hold_up_nobody(made, settings, params):
    """Proofs, attempts that nobody judged, and a writer that fails."""
    pipeline, sampler = made(settings, proofs=("  trivial",) * 2 + PROOFS[:2])
    found = notes(pipeline, params)
    assert sampler.batches == [2]
    assert [note.text for note in found[:2]] == ["verified: this proof is complete"] * 2

    # The first problem's prompt does not fit, and nothing is sampled.
    long = replace(PROBLEMS[0], statement=f"{PROBLEMS[0].statement} -- {'x ' * 99}")
    found = notes(pipeline, params, [long, PROBLEMS[1]])
    assert [note.kind for note in found[:2]] == [Kind.UNJUDGED] * 2
    assert found[2].kind is not Kind.UNJUDGED

    def failing(settings, chat):
        class Half:
            async def write(self, group):
                if group[0].problem == PROBLEMS[0]:
                    raise ValueError("no")
                return await inner.write(group)

        inner = settings.make(chat)
        return Half()

    pipeline, sampler = made(settings, writer=failing)
    found = notes(pipeline, params)
    assert [note.kind for note in found[:2]] == [Kind.FAILED] * 2
    assert sampler.batches == [1]


def test_other_writers_beside_it(made, settings, params):
    def mixed(settings, chat):
        writers = (settings.make(chat), CompilerFeedback())
        return Mixture(writers=writers, weights=(1, 1), seed=3)

    pipeline, sampler = made(settings, writer=mixed)
    notes(pipeline, params)
    assert sum(sampler.batches) in (1, 2)


def test_a_sampler_that_refuses_costs_the_feedback(made, settings, params):
    def broken():
        raise RuntimeError("RESOURCE_EXHAUSTED")

    pipeline, _ = made(settings, says=broken)
    found = notes(pipeline, params)
    assert [note.kind for note in found] == [
        Kind.FAILED,
        Kind.FAILED,
        Kind.FAILED,
        Kind.FAILED,
    ]
    assert "RESOURCE_EXHAUSTED" in found[0].error


def test_a_request_that_is_lost_costs_its_own_feedback(made, settings, params):
    lost = iter([False, True, False])

    def second():
        if next(lost):
            raise_in_future.append(SamplingError("no answer in six attempts"))

    raise_in_future = []
    pipeline, sampler = made(settings, says=second)
    submit = sampler._slots.submit

    def losing(*given, **request):
        future = submit(*given, **request)
        if not raise_in_future:
            return future
        failed = Future()
        failed.set_exception(raise_in_future.pop())
        return failed

    sampler._slots.submit = losing
    found = notes(pipeline, params)
    assert [note.kind for note in found].count(Kind.SERVER) == 1
    [error] = [note.error for note in found if note.kind is Kind.SERVER]
    assert "no answer in six attempts" in error
    assert sum(note.available for note in found) >= 2


def test_an_error_of_the_judge_ends_the_wait(made, settings, params, verifier):
    class Down:
        async def judge(self, attempts):
            if attempts[0][0] == PROBLEMS[1]:
                raise DataError("the judge is down")
            return await LeanJudge(verifier=verifier).judge(attempts)

    pipeline, sampler = made(settings, judge=Down())
    with pytest.raises(DataError, match="the judge is down"):
        notes(pipeline, params)
    assert sampler.batches == []


def test_without_a_reader_nobody_asks(made, settings, params):
    pipeline, sampler = made(settings)
    notes(pipeline, params, comment=False)
    assert sampler.batches == []


def test_a_chat_that_no_pipeline_has_says_so(made, settings, params):
    pipeline, _ = made(settings)
    with pytest.raises(FeedbackError, match="give the chat to the pipeline"):
        notes(replace(pipeline, policy=None), params)


@pytest.mark.parametrize(
    "changed",
    [{"max_new_tokens": 0}, {"prompt_tokens": 0}, {"temperature": 0}],
)
def test_settings_are_checked(changed):
    with pytest.raises(ConfigError, match=f"PolicyFeedback.{next(iter(changed))}"):
        PolicyFeedback(**changed)


def test_a_replay_names_its_recording():
    with pytest.raises(ConfigError, match=r"expected PolicyFeedback\.recording"):
        PolicyFeedback(replay=True)


def test_groups_whose_reviews_a_journal_has_do_not_keep_others_waiting(
    made, params, settings, tmp_path
):
    """As after a kill in the middle of feedback; the others' reviews stay the same."""

    def reviewed():
        pipeline, sampler = made(settings)
        kept = replace(pipeline, journal=Journal(tmp_path / "journal"))
        return notes(kept, params, number=0), sampler.batches

    whole, asked = reviewed()
    assert asked == [3]
    [path] = (tmp_path / "journal" / "fd").iterdir()
    judged = [], []
    for line in path.read_bytes().splitlines(keepends=True)[:-1]:
        judged[b"parts" in line].append(line)
    batches = []
    for review in judged[True]:
        path.write_bytes(b"".join([*judged[False], review]))
        again, asked = reviewed()
        assert again == whole
        batches += asked
    # The verifier accepts one attempt, and nobody asks about it.
    assert sorted(batches) == [1, 2]
    assert reviewed() == (whole, [])
