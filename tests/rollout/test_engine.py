"""Sampling, verification and feedback put together, with a backend without Lean."""

import jax
import numpy as np
import pytest

from fdjax.feedback import CompilerFeedback
from fdjax.lean import CheckRequest, FakeBackend, Status, Verifier, WorkerDiedError
from fdjax.lean.fake import accepted, rejected
from fdjax.rollout import RolloutEngine
from fdjax.sampling import SamplingConfig, make_generate
from tiny import MODEL, PROBLEMS, TOKENIZER


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
