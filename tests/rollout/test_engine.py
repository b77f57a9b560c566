"""Sampling, verification and feedback put together, with a backend without Lean."""

import logging
from dataclasses import replace

import jax
import numpy as np
import pytest

from fdjax.errors import BackendError, ConfigError, DataError, InstallError
from fdjax.feedback import CompilerFeedback, Feedback
from fdjax.lean import CheckRequest, FakeBackend, Status, Verifier, WorkerDiedError
from fdjax.lean.backends.fake import accepted, rejected
from fdjax.records import Problem
from fdjax.rollout import RolloutEngine
from fdjax.sampling import SamplingConfig, make_generate
from fdjax.train.sources import rollout_metrics
from small_tokenizers import sentencepiece
from tiny import MODEL, PROBLEMS, TOKENIZER, completions


def judge(request: CheckRequest):
    """Even length is a proof; a proof with the letter q kills the worker."""
    if "q" in (request.proof or ""):
        raise WorkerDiedError("killed")
    return accepted() if len(request.proof or "") % 2 == 0 else rejected()


@pytest.fixture(scope="module")
def engine():
    with Verifier(lambda: FakeBackend(judge), workers=2) as verifier:
        yield RolloutEngine(
            generate=make_generate(
                MODEL,
                SamplingConfig(max_new_tokens=8, stop_tokens=(TOKENIZER.eos_token_id,)),
            ),
            tokenizer=TOKENIZER,
            verifier=verifier,
            provider=CompilerFeedback(),
            prompt_width=64,
        )


@pytest.fixture(scope="module")
def params():
    return MODEL.init(jax.random.key(0))


def test_groups_stand_together_and_each_sample_keeps_its_own_verdict(engine, params):
    rollout = engine.collect(params, PROBLEMS[:4], jax.random.key(1), group_size=8)
    assert [p.name for p in rollout.problems[:9]] == ["t0"] * 8 + ["t1"]
    assert len(rollout.proofs) == 32
    for proof, verdict in zip(rollout.proofs, rollout.verdicts, strict=True):
        if verdict.status is Status.UNSAFE:  # refused by the scan before any backend
            continue
        if "q" in proof:
            assert verdict.status is Status.CRASHED
        else:
            assert verdict.verified == (len(proof) % 2 == 0)
    assert {v.status for v in rollout.verdicts} >= {Status.VERIFIED, Status.REJECTED}


def test_proofs_are_the_sampled_tokens(engine, params):
    rollout = engine.collect(params, PROBLEMS[:2], jax.random.key(2), group_size=2)
    sampled = rollout.completions
    for row, proof in enumerate(rollout.proofs):
        tokens = sampled.tokens[row][sampled.mask[row]]
        assert TOKENIZER.decode(tokens, skip_special_tokens=True) == proof


def test_same_key_same_rollout(engine, params):
    first, second = (
        engine.collect(params, PROBLEMS[:2], jax.random.key(3), group_size=2)
        for _ in range(2)
    )
    assert first.proofs == second.proofs
    np.testing.assert_array_equal(
        first.completions.logprobs, second.completions.logprobs
    )


class Noting:
    """A provider that keeps what it was shown and answers with `answer`."""

    def __init__(self, answer=lambda attempts: [Feedback(parts=("x",))] * 4):
        self.answer = answer
        self.shown = []

    def write(self, attempts):
        self.shown += attempts
        return self.answer(attempts)[: len(attempts)]


def scripted(check=lambda request: accepted(), provider=None, proofs=("  rfl",) * 4):
    """An engine that samples given proofs of two problems, two of each."""

    def generate(params, prompts, prompt_valid, key, *, samples_per_prompt):
        assert prompts.shape == (2, 64)
        return completions(proofs)

    return RolloutEngine(
        generate=generate,
        tokenizer=TOKENIZER,
        verifier=Verifier(lambda: FakeBackend(check), workers=1),
        provider=provider or Noting(),
        prompt_width=64,
    )


def collect(engine, problems=PROBLEMS[:2]):
    with engine.verifier:
        return engine.collect(None, problems, jax.random.key(0), group_size=2)


LONG = Problem(name="long", statement=f"theorem long : {'p ∧ ' * 60}p")


@pytest.mark.parametrize("place", [0, 1])
def test_a_prompt_that_is_too_long_costs_its_own_attempts(place):
    provider, asked = Noting(), []
    engine = scripted(lambda request: asked.append(request) or accepted(), provider)
    problems = PROBLEMS[:2]
    problems[place] = LONG
    rollout = collect(engine, problems)
    fits = [place != 0] * 2 + [place != 1] * 2
    assert rollout.known.tolist() == rollout.sampled.tolist() == fits
    assert [note.available for note in rollout.feedback] == fits
    lost = rollout.verdicts[2 * place]
    assert lost.status is Status.CRASHED
    assert "more than prompt_width = 64" in lost.reason
    assert {request.name for request in asked} == {problems[1 - place].name}
    assert len(provider.shown) == 2
    metrics = rollout_metrics(rollout)
    assert metrics["rollout/overlong_prompts"] == (2, 4)
    assert metrics["reward/mean"] == (2, 2)
    assert metrics["verdict/crashed"] == (0, 2)
    assert metrics["rollout/finished"] == (2, 2)


def test_an_outage_leaves_rewards_missing_and_keeps_what_was_decided(caplog):
    proofs = ("  rfl", "  lost", "  omega", "  lost")

    def check(request):
        if "lost" in request.proof:
            raise BackendError("no route to the server")
        return accepted()

    with caplog.at_level(logging.WARNING):
        rollout = collect(scripted(check, proofs=proofs))
    assert rollout.known[1] == rollout.known[3] == False  # noqa: E712
    assert rollout.verdicts[1].status is Status.CRASHED
    assert "no route to the server" in rollout.verdicts[1].reason
    assert "no route to the server" in rollout.feedback[1].error
    assert rollout.known[0]
    assert rollout.rewards[0] == 1
    assert len(caplog.records) == 1


def test_an_outage_in_which_lean_decides_nothing_leaves_everything_missing():
    """A forbidden text needs no Lean; alone it would pass for the policy's attempts."""

    def check(request):
        raise BackendError("no route to the server")

    rollout = collect(scripted(check, proofs=("  rfl", "  run_cmd", "  omega", "")))
    assert not rollout.known.any()
    assert {verdict.status for verdict in rollout.verdicts} == {Status.CRASHED}
    assert not any(note.available for note in rollout.feedback)


def test_a_missing_installation_is_an_error():
    def check(request):
        raise InstallError("no Lean")

    with pytest.raises(InstallError):
        collect(scripted(check))


def test_a_broken_statement_costs_its_own_attempts(caplog):
    provider = Noting()
    broken = Problem(name="b", statement="theorem b : broken")
    engine = replace(
        # Lean does not see the text that is not allowed, nor what it would prove.
        scripted(provider=provider, proofs=("  rfl", "  rfl", "  run_cmd", "  rfl")),
        verifier=Verifier(FakeBackend, workers=1),
    )
    with caplog.at_level(logging.WARNING):
        rollout = collect(engine, [PROBLEMS[0], broken])
    assert rollout.known.tolist() == [True, True, False, False]
    assert [note.available for note in rollout.feedback] == [True, True, False, False]
    assert [attempt.problem.name for attempt in provider.shown] == ["t0", "t0"]
    assert rollout_metrics(rollout)["rollout/broken_statements"] == (2, 4)
    (record,) = caplog.records
    assert "among them b: the statement does not elaborate" in record.getMessage()


def refuse(attempts):
    raise TimeoutError("429 Too Many Requests")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (refuse, "TimeoutError: 429 Too Many Requests"),
        (lambda attempts: [Feedback()], "expected 4 Feedback objects"),
        (lambda attempts: [None] * 4, "got 4 of ['NoneType']"),
        (lambda attempts: [Feedback(parts="text")] * 4, "as a tuple"),
        (lambda attempts: [Feedback(parts=("\ud800",))] * 4, "valid Unicode"),
    ],
)
def test_a_provider_that_fails_costs_the_feedback_not_the_run(answer, reason, caplog):
    with caplog.at_level(logging.WARNING):
        rollout = collect(scripted(provider=Noting(answer)))
    assert not any(note.available for note in rollout.feedback)
    assert all(reason in note.error for note in rollout.feedback)
    assert rollout.known.all()
    assert len(caplog.records) == 1


@pytest.mark.parametrize("group_size", [0, -1])
def test_groups_need_attempts(group_size):
    engine = scripted()
    with engine.verifier, pytest.raises(ConfigError, match="group_size"):
        engine.collect(None, PROBLEMS[:2], jax.random.key(0), group_size=group_size)


def test_a_rollout_needs_problems():
    with pytest.raises(DataError, match="expected problems"):
        collect(scripted(), [])


@pytest.mark.parametrize("name", ["pad_token", "eos_token"])
def test_a_tokenizer_must_name_its_padding_and_its_end(name):
    tokenizer = sentencepiece("prepend")
    setattr(tokenizer, name, None)
    with pytest.raises(ConfigError, match=name):
        replace(scripted(), tokenizer=tokenizer)


def test_prompts_need_room():
    with pytest.raises(ConfigError, match="prompt_width"):
        replace(scripted(), prompt_width=0)


@pytest.mark.parametrize("prefix", ["prepend", "always", "first", "never"])
def test_sampled_proofs_keep_their_indentation(prefix):
    tokenizer = sentencepiece(prefix)
    engine = replace(scripted(), tokenizer=tokenizer)
    pieces = ["▁▁", "ex", "<0x0A>", "▁▁", "▁ex", "</s>"]
    row = np.array([tokenizer.convert_tokens_to_ids(pieces)])
    given = completions([""])._replace(tokens=row, mask=np.ones_like(row, bool))
    assert engine.decode(given) == ["  ex\n   ex"]
