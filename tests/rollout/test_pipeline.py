"""Sampling, verification and feedback put together, with a backend without Lean."""

import asyncio
import logging
import threading
from concurrent.futures import Future
from dataclasses import replace

import jax
import numpy as np
import pytest

import scripted
from fdjax.data.formats import CHAT
from fdjax.episodes import Budget
from fdjax.errors import (
    BackendError,
    ConfigError,
    DataError,
    FeedbackError,
    InstallError,
)
from fdjax.feedback import CompilerFeedback, Feedback, Kind, feedback_metrics
from fdjax.judge import AfterThinking, Judgement, LeanJudge, last_fence
from fdjax.lean import CheckRequest, FakeBackend, Status, Verifier, WorkerDiedError
from fdjax.lean.backends.fake import accepted, rejected
from fdjax.records import Problem
from fdjax.sampling import (
    SamplingConfig,
    SamplingError,
    SlotSampler,
    SlotsConfig,
)
from fdjax.train.rollout_source import rollout_metrics
from scripted import Scripted
from small_tokenizers import sentencepiece
from tiny import MODEL, PROBLEMS, TOKENIZER


def judge(request: CheckRequest):
    """Even length is a proof; a proof with the letter q kills the worker."""
    if "q" in (request.proof or ""):
        raise WorkerDiedError("killed")
    return accepted() if len(request.proof or "") % 2 == 0 else rejected()


@pytest.fixture(scope="module")
def pipeline():
    with Verifier(lambda: FakeBackend(judge), workers=2) as verifier:
        sampler = SlotSampler(
            MODEL,
            SamplingConfig(max_new_tokens=8, stop_tokens=(TOKENIZER.eos_token_id,)),
            SlotsConfig(longest=72, slots=8, page=16),
        )
        yield scripted.pipeline(
            sampler, LeanJudge(verifier=verifier), CompilerFeedback(), tokens=8
        )


@pytest.fixture(scope="module")
def params():
    return MODEL.init(jax.random.key(0))


def test_groups_stand_together_and_each_sample_keeps_its_own_verdict(pipeline, params):
    rollout = pipeline.collect(params, PROBLEMS[:4], jax.random.key(1), group_size=8)
    attempts = rollout.trajectories
    assert [each.problem.name for each in attempts[:9]] == ["t0"] * 8 + ["t1"]
    assert [(each.group, each.member) for each in attempts[7:9]] == [(0, 7), (1, 0)]
    assert len(attempts) == 32
    for each in attempts:
        proof, verdict = each.text, each.judgement.verdict
        if verdict.status is Status.UNSAFE:  # refused by the scan before any backend
            continue
        if "q" in proof:
            assert verdict.status is Status.CRASHED
        else:
            assert verdict.verified == (len(proof) % 2 == 0)
    assert statuses(rollout) >= {Status.VERIFIED, Status.REJECTED}


def test_proofs_are_the_sampled_tokens(pipeline, params):
    rollout = pipeline.collect(params, PROBLEMS[:2], jax.random.key(2), group_size=2)
    for each in rollout.trajectories:
        text = TOKENIZER.decode(each.row.tokens, skip_special_tokens=True)
        assert text == each.text == each.judgement.answer


def test_same_key_same_rollout(pipeline, params):
    first, second = (
        pipeline.collect(params, PROBLEMS[:2], jax.random.key(3), group_size=2)
        for _ in range(2)
    )
    for one, other in zip(first.responses, second.responses, strict=True):
        np.testing.assert_array_equal(one, other)


class Noting:
    """A writer that keeps what it was shown and answers with `answer`."""

    def __init__(self, answer=lambda group: [Feedback(parts=("x",))] * len(group)):
        self.answer = answer
        self.shown = []

    async def write(self, group):
        self.shown += group
        return self.answer(group)


def saying(check=lambda request: accepted(), writer=None, proofs=("  rfl",) * 4):
    """A pipeline that samples given proofs of two problems, two of each."""
    judge = LeanJudge(verifier=Verifier(lambda: FakeBackend(check), workers=1))
    return scripted.pipeline(Scripted(proofs), judge, writer or Noting())


def collect(pipeline, problems=PROBLEMS[:2]):
    with pipeline.judge.verifier:
        return pipeline.collect(None, problems, jax.random.key(0), group_size=2)


def statuses(rollout):
    return {each.judgement.verdict.status for each in rollout.trajectories}


def informed(rollout):
    return [each.feedback.available for each in rollout.trajectories]


LONG = Problem(name="long", statement=f"theorem long : {'p ∧ ' * 60}p")


@pytest.mark.parametrize("place", [0, 1])
def test_a_prompt_that_is_too_long_costs_its_own_attempts(place):
    writer, asked = Noting(), []
    pipeline = saying(lambda request: asked.append(request) or accepted(), writer)
    problems = PROBLEMS[:2]
    problems[place] = LONG
    rollout = collect(pipeline, problems)
    fits = [place != 0] * 2 + [place != 1] * 2
    assert rollout.known.tolist() == fits
    assert [each.sampled for each in rollout.trajectories] == fits
    assert informed(rollout) == fits
    lost = rollout.trajectories[2 * place].judgement.verdict
    assert lost.status is Status.CRASHED
    assert "more than Budget.prompt_tokens = 64" in lost.reason
    assert {request.name for request in asked} == {problems[1 - place].name}
    assert len(writer.shown) == 2
    metrics = rollout_metrics(rollout)
    assert metrics["rollout/overlong_prompts"] == (2, 4)
    assert metrics["reward/mean"] == (2, 2)
    assert metrics["verdict/crashed"] == (0, 2)
    assert metrics["rollout/finished"] == (2, 2)


class Losing(Scripted):
    """Gives up the requests of some attempts; a server that knows no entropies."""

    def submit(self, prompt, key, **request):
        future = super().submit(prompt, key, **request)
        place = len(self.asked) - 1
        sample = replace(future.result(), entropy=None)
        future = Future()
        if place in (1, 3):
            future.set_exception(SamplingError("no answer in six attempts"))
        else:
            future.set_result(sample)
        return future


def test_a_request_that_is_lost_costs_its_attempt():
    writer = Noting()
    pipeline = replace(saying(writer=writer), sampler=Losing(("  rfl",) * 4))
    rollout = collect(pipeline)
    assert rollout.known.tolist() == [True, False, True, False]
    assert informed(rollout) == [True, False, True, False]
    lost = rollout.trajectories[1]
    assert lost.episode.ended == "lost"
    assert lost.judgement.reason == "the attempt was lost: no answer in six attempts"
    assert len(writer.shown) == 2
    metrics = rollout_metrics(rollout)
    assert metrics["reward/mean"] == (2, 2)
    # Nobody knows it, and nobody says 0.
    assert metrics["rollout/entropy"] == (0, 0)
    assert metrics["rollout/length"].total == rollout.responses.mask.sum()


def test_an_outage_leaves_rewards_missing_and_keeps_what_was_decided(caplog):
    proofs = ("  rfl", "  lost", "  omega", "  lost")

    def check(request):
        if "lost" in request.proof:
            raise BackendError("no route to the server")
        return accepted()

    with caplog.at_level(logging.WARNING):
        rollout = collect(saying(check, proofs=proofs))
    assert rollout.known[1] == rollout.known[3] == False  # noqa: E712
    lost = rollout.trajectories[1]
    assert lost.judgement.verdict.status is Status.CRASHED
    assert "no route to the server" in lost.judgement.reason
    assert "no route to the server" in lost.feedback.error
    assert rollout.known[0]
    assert rollout.rewards[0] == 1
    assert len(caplog.records) == 1


def test_an_outage_in_which_lean_decides_nothing_leaves_everything_missing():
    """A forbidden text needs no Lean; alone it would pass for the policy's attempts."""

    def check(request):
        raise BackendError("no route to the server")

    rollout = collect(saying(check, proofs=("  rfl", "  run_cmd", "  omega", "")))
    assert not rollout.known.any()
    assert statuses(rollout) == {Status.CRASHED}
    assert not any(informed(rollout))


def test_a_missing_installation_is_an_error():
    def check(request):
        raise InstallError("no Lean")

    with pytest.raises(InstallError):
        collect(saying(check))


def test_a_broken_statement_costs_its_own_attempts(caplog):
    writer = Noting()
    broken = Problem(name="b", statement="theorem b : broken")
    pipeline = replace(
        # Lean does not see the text that is not allowed, nor what it would prove.
        saying(writer=writer, proofs=("  rfl", "  rfl", "  run_cmd", "  rfl")),
        judge=LeanJudge(verifier=Verifier(FakeBackend, workers=1)),
    )
    with caplog.at_level(logging.WARNING):
        rollout = collect(pipeline, [PROBLEMS[0], broken])
    assert rollout.known.tolist() == [True, True, False, False]
    assert informed(rollout) == [True, True, False, False]
    assert [attempt.problem.name for attempt in writer.shown] == ["t0", "t0"]
    assert rollout_metrics(rollout)["rollout/broken_statements"] == (2, 4)
    (record,) = caplog.records
    assert (
        "among them one at b: the statement does not elaborate" in record.getMessage()
    )


class Thinking:
    """Judges what stands behind a thought that ends."""

    async def judge(self, attempts):
        return [
            Judgement(reward=0.0, answerless="</think>" not in text)
            for _, text in attempts
        ]


def test_attempts_without_an_answer_are_counted():
    thoughts = ("<think>a</think> b", "<think>a", "<think>", "c</think>")
    pipeline = replace(saying(proofs=thoughts), judge=Thinking())
    rollout = pipeline.collect(None, PROBLEMS[:2], jax.random.key(0), group_size=2)
    assert rollout_metrics(rollout)["rollout/answerless"] == (2, 4)


def refuse(group):
    raise TimeoutError("429 Too Many Requests")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (refuse, "TimeoutError: 429 Too Many Requests"),
        (lambda group: [Feedback()], "expected 2 Feedback objects"),
        (lambda group: [None] * 2, "got 2 of ['NoneType']"),
        (lambda group: [Feedback(parts="text")] * 2, "as a tuple"),
        (lambda group: [Feedback(parts=("\ud800",))] * 2, "valid Unicode"),
    ],
)
def test_a_writer_that_fails_costs_the_feedback_not_the_run(answer, reason, caplog):
    with caplog.at_level(logging.WARNING):
        rollout = collect(saying(writer=Noting(answer)))
    assert not any(informed(rollout))
    assert all(reason in each.feedback.error for each in rollout.trajectories)
    assert rollout.known.all()
    assert len(caplog.records) == 1


@pytest.mark.parametrize("group_size", [0, -1])
def test_groups_need_attempts(group_size):
    pipeline = saying()
    with pipeline.judge.verifier, pytest.raises(ConfigError, match="group_size"):
        pipeline.collect(None, PROBLEMS[:2], jax.random.key(0), group_size=group_size)


def test_a_rollout_needs_problems():
    with pytest.raises(DataError, match="expected problems"):
        collect(saying(), [])


@pytest.mark.parametrize("name", ["pad_token", "eos_token"])
def test_a_tokenizer_must_name_its_padding_and_its_end(name):
    tokenizer = sentencepiece("prepend")
    setattr(tokenizer, name, None)
    pipeline = saying()
    with pytest.raises(ConfigError, match=name):
        replace(pipeline, episodes=replace(pipeline.episodes, tokenizer=tokenizer))


def test_prompts_need_room():
    with pytest.raises(ConfigError, match="prompt_tokens"):
        scripted.pipeline(Scripted(["  rfl"]), Slow(), Noting(), width=None)


@pytest.mark.parametrize("prefix", ["prepend", "always", "first", "never"])
def test_sampled_proofs_keep_their_indentation(prefix):
    tokenizer = sentencepiece(prefix)
    pipeline = saying()
    pieces = ["▁▁", "ex", "<0x0A>", "▁▁", "▁ex", "</s>"]
    ids = tokenizer.convert_tokens_to_ids(pieces)
    pipeline.sampler.samples = [scripted.sample(ids)]
    episodes = replace(pipeline.episodes, tokenizer=tokenizer)
    episodes = replace(episodes, budget=Budget(tokens=24, prompt_tokens=512))
    rollout = collect(replace(pipeline, episodes=episodes))
    assert rollout.trajectories[0].text == "  ex\n   ex"


class Slow:
    """A judge and writer that finishes the groups in the opposite order."""

    def __init__(self):
        self.done = {"judge": [], "write": []}

    async def _after_the_others(self, stage, name):
        while len(self.done[stage]) < 1 and name == "t0":
            await asyncio.sleep(0)
        self.done[stage].append(name)

    async def judge(self, attempts):
        await self._after_the_others("judge", attempts[0][0].name)
        return [Judgement(reward=len(text) / 10, answer=text) for _, text in attempts]

    async def write(self, group):
        await self._after_the_others("write", group[0].problem.name)
        return [Feedback(parts=(attempt.text,)) for attempt in group]


def test_groups_overtake_each_other_and_stay_in_order():
    """Also that a reward need not come from Lean."""
    slow = Slow()
    pipeline = replace(saying(proofs=("a", "bb", "ccc", "dddd")), judge=slow)
    rollout = replace(pipeline, writer=slow).collect(
        None, PROBLEMS[:2], jax.random.key(0), group_size=2, version=7
    )
    assert slow.done == {"judge": ["t1", "t0"], "write": ["t1", "t0"]}
    np.testing.assert_allclose(rollout.rewards, [0.1, 0.2, 0.3, 0.4], rtol=1e-6)
    texts = [each.feedback.text for each in rollout.trajectories]
    assert texts == ["a", "bb", "ccc", "dddd"]
    assert pipeline.sampler.published == [(None, 7)]
    assert "verdict/verified" in (metrics := rollout_metrics(rollout))
    assert metrics["verdict/verified"] == (0, 0)


class Hanging:
    """A writer that never answers for the first problem."""

    async def write(self, group):
        if group[0].problem.name == "t0":
            await asyncio.sleep(60)
        return [Feedback(parts=("hint",)) for _ in group]


def test_a_writer_that_hangs_costs_the_feedback_of_its_group(caplog):
    pipeline = replace(saying(writer=Hanging()), feedback_deadline_s=0.5)
    with caplog.at_level(logging.WARNING):
        rollout = collect(pipeline)
    notes = [each.feedback for each in rollout.trajectories]
    assert [note.kind for note in notes[:2]] == [Kind.DEADLINE] * 2
    assert notes[0].error == "deadline: no feedback came within 0.5 s"
    assert informed(rollout) == [False, False, True, True]
    # Who has no feedback has a reward.
    assert rollout.known.all()
    assert feedback_metrics(notes)["feedback/missing_deadline"] == (2, 4)
    assert "2 of 4 attempts have no feedback" in caplog.text


def test_a_writer_may_give_the_run_up():
    def give_up(group):
        raise FeedbackError("the budget is spent")

    with pytest.raises(FeedbackError, match="the budget is spent"):
        collect(saying(writer=Noting(give_up)))


def test_pipelines_share_their_event_loop_until_nobody_needs_it():
    pipeline = saying()
    other = replace(pipeline, phase="fd")
    assert other.loop is pipeline.loop
    threads = [t for t in threading.enumerate() if t.name == "fdjax-event-loop"]
    loop = pipeline.loop
    assert loop.run(_thread()) in threads
    loop.close()
    assert loop.closed


async def _thread():
    return threading.current_thread()


def test_the_judge_reads_answers_as_the_format_has_them(pipeline):
    fenced = AfterThinking(extract=last_fence)
    episodes = replace(pipeline.episodes, format=replace(CHAT, extract=fenced))
    with pytest.raises(ConfigError, match=r"by AfterThinking\(extract=last_fence, ope"):
        replace(pipeline, episodes=episodes)
    judge = replace(pipeline.judge, extract=AfterThinking(extract=last_fence))
    replace(pipeline, judge=judge, episodes=episodes)
