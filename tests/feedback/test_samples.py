"""From feedback to the batch: what is missing is masked."""

import asyncio
from itertools import chain
from types import SimpleNamespace

import judging
from fdjax.feedback import (
    Attempt,
    Critique,
    Feedback,
    Limits,
    ModelFeedback,
    OpenAIEndpoint,
    RemoteChat,
    iterate_groups,
)
from fdjax.lean import Status, Verdict
from fdjax.metrics import SampleWriter
from fdjax.rollout import rollout_batch
from fdjax.rollout.event_loop import EventLoop
from fdjax.run.attempts import AttemptLog
from feedback.attempts import MISMATCH, failed
from feedback.model_server import ModelServer, in_thread
from tiny import MODEL, TOKENIZER

REJECTED = Verdict(status=Status.REJECTED, reason="no")


def batch_of(notes):
    proofs = ["  exact h1"] * len(notes)
    rollout = judging.rollout(proofs, [REJECTED] * len(notes), notes)
    return rollout_batch(rollout, TOKENIZER, teacher_width=96)


def test_a_failing_server_costs_the_samples_that_it_failed_on():
    async def written():
        async with ModelServer().running() as server:
            endpoint = OpenAIEndpoint(
                model="m", base_url=f"{server.url}/v1", key_env=""
            )
            limits = Limits(attempts=2, longest_pause_s=0.0)
            writer = Critique(chat=RemoteChat(endpoint, limits=limits))
            faults = ("none", "failing", "refusal", "busy_once")
            group = [failed(f"  fault_{fault}") for fault in faults]
            try:
                return await writer.write(group)
            finally:
                await writer.aclose()

    batch, metrics = batch_of(asyncio.run(written()))
    scored = batch.feedback.mask.any(axis=1)
    assert scored.tolist() == [True, False, False, True]
    # What others lose, a sample keeps: all of its tokens.
    assert (batch.feedback.mask[0] == batch.response_valid[0]).all()
    assert metrics["feedback/available"].value() == 0.5


def test_a_runs_samples_are_attempts_to_ask_about(tmp_path):
    verdict = Verdict(status=Status.REJECTED, diagnostics=(MISMATCH,), reason="no")
    notes = [Feedback(parts=("x",))] * 4
    rollout = judging.rollout(["  exact h1"] * 4, [verdict] * 4, notes)
    path = tmp_path / "samples.jsonl"
    with SampleWriter(path) as samples:
        log = AttemptLog(
            model=MODEL, tokenizer=TOKENIZER, samples=samples, temperature=1.0
        )
        log.write("fd", 0, None, SimpleNamespace(rollout=rollout, batches=[None]))
    writer = Critique(chat=None)
    found = list(iterate_groups(path))
    assert [len(group) for group in found] == [2, 2]
    for each, row in zip(rollout.trajectories, chain(*found), strict=True):
        attempt = Attempt(
            problem=each.problem, text=each.text, judgement=each.judgement
        )
        assert row.judgement == attempt.judgement
        # What the run would ask about it, so that its answer is found.
        assert writer.question(row, [row]) == writer.question(attempt, [attempt])


def test_one_client_serves_all_batches_of_a_pipeline(tmp_path):
    """On the pipeline's own loop, in its own thread, until it is closed there."""
    server, loop = ModelServer(), EventLoop()
    with in_thread(server):
        url = f"{server.url}/v1"
        writer = ModelFeedback(
            endpoint=OpenAIEndpoint(model="m", base_url=url, key_env=""),
            recording=tmp_path / "answers.jsonl",
        ).make()
        for step in range(3):
            [note] = loop.run(writer.write([failed(f"  step {step}")]))
            assert note.text == "Use h1.2."
        loop.run(writer.aclose())
    loop.close()
    assert len(server.requests) == 3
