"""Groups as bytes and back: every field, every bit, and clear errors."""

import asyncio
import zlib
from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fdjax.episodes import Episode, Turn
from fdjax.errors import DataError
from fdjax.feedback import Attempt, CompilerFeedback, Feedback, Kind, Leak, Usage
from fdjax.judge import Judgement, LeanJudge
from fdjax.lean import Diagnostic, Goal, Status, Verdict, Verifier, install
from fdjax.records import Problem
from fdjax.rollout import Trajectory, decode_group, encode_group
from fdjax.tools import Observation

PROBLEM = Problem(name="p", statement="theorem p (h : a ∧ b) : b", references=("x",))


def same(one, other):
    """Whether two values agree in type and content, arrays and floats in each bit."""
    assert type(one) is type(other)
    if isinstance(one, np.ndarray):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert one.tobytes() == other.tobytes()
    elif is_dataclass(one):
        for field in fields(one):
            same(getattr(one, field.name), getattr(other, field.name))
    elif isinstance(one, dict):
        assert list(one) == list(other)
        same(list(one.values()), list(other.values()))
    elif isinstance(one, tuple | list):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            same(*pair)
    else:
        assert repr(one) == repr(other)


TEXTS = st.text(st.characters(codec=None), max_size=6)
"""Lone surrogates among them."""
NUMBERS = st.floats(0, 1e9) | st.just(float("inf"))
COUNTS = st.integers(0, 2**40)
SECONDS = st.dictionaries(TEXTS, NUMBERS, max_size=1)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner),
    max_leaves=3,
)
PLACE = {"line": COUNTS, "column": COUNTS}


def some(strategy):
    return st.lists(strategy, max_size=1).map(tuple)


@st.composite
def turns(draw):
    """Fields of a turn. Its arrays hold any bits, so NaN with any payload, too."""
    size = draw(st.integers(0, 3))

    def array(dtype):
        bits = draw(st.binary(min_size=4 * size, max_size=4 * size))
        return np.frombuffer(bits, dtype).copy()

    return {
        "role": draw(st.sampled_from(["user", "assistant", "tool"])),
        "tokens": array("<i4"),
        "logprobs": array("<f4"),
        "behaviour_logprobs": draw(st.sampled_from([None, array("<f4")])),
        "entropy": draw(st.sampled_from([None, array("<f4")])),
        "version": draw(st.none() | COUNTS),
        "observations": draw(some(OBSERVATIONS)),
    }


OBSERVATIONS = st.builds(
    Observation,
    tool=TEXTS,
    arguments=st.dictionaries(TEXTS, JSON, max_size=1),
    text=TEXTS,
    ended=st.sampled_from(["done", "refused", "failed"]),
    seconds=NUMBERS,
)
DIAGNOSTICS = st.builds(
    Diagnostic,
    severity=st.sampled_from(["error", "warning", "information"]),
    **PLACE,
    end_line=st.none() | COUNTS,
    end_column=st.none() | COUNTS,
    kind=TEXTS,
    text=TEXTS,
    in_proof=st.booleans(),
)
VERDICTS = st.builds(
    Verdict,
    status=st.sampled_from(Status),
    diagnostics=some(DIAGNOSTICS),
    goals=some(st.builds(Goal, text=TEXTS, **PLACE)),
    axioms=some(TEXTS),
    seconds=NUMBERS,
    reason=TEXTS,
    cached=st.booleans(),
    broken_statement=st.booleans(),
)
JUDGEMENTS = st.builds(
    Judgement,
    reward=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    passed=st.booleans(),
    answer=TEXTS,
    start=COUNTS,
    reason=TEXTS,
    verdict=st.none() | VERDICTS,
)
USAGES = st.builds(Usage, requests=COUNTS, output_tokens=COUNTS, cost_usd=NUMBERS)
LEAKS = st.builds(Leak, share=NUMBERS, new_share=NUMBERS, longest_run=COUNTS)
FEEDBACK = st.builds(
    Feedback,
    parts=some(st.text(max_size=6)),
    offset=st.none() | COUNTS,
    error=st.none() | TEXTS,
    usage=USAGES,
    leak=st.none() | LEAKS,
    stripped_lines=COUNTS,
) | st.builds(Feedback.failed, st.sampled_from(Kind), TEXTS, usage=USAGES)
EPISODES = st.fixed_dictionaries(
    {
        "turns": st.lists(turns(), min_size=1, max_size=2),
        "ended": st.sampled_from(["answer", "calls", "lost", "prompt"]),
        "text": TEXTS,
        "from_file": st.booleans(),
        "reason": TEXTS,
        "seconds": SECONDS,
    }
)
OTHERS = st.fixed_dictionaries(
    {
        "group": COUNTS,
        "member": COUNTS,
        "judgement": JUDGEMENTS,
        "feedback": FEEDBACK,
        "seconds": SECONDS,
    }
)


@given(st.lists(st.tuples(EPISODES, OTHERS), min_size=1, max_size=2))
@settings(max_examples=40)
def test_a_group_is_read_back_bit_for_bit(drawn):
    group = []
    for episode, others in drawn:
        said = tuple(Turn(**turn) for turn in episode["turns"])
        made = Episode(**episode | {"problem": PROBLEM, "turns": said})
        group.append(Trajectory(episode=made, **others))
    same(decode_group(encode_group(group), PROBLEM), group)


def plain(problem=PROBLEM, text="  rfl", tokens=3, **turn):
    """An attempt without anything special."""
    numbers = np.random.default_rng(0).standard_normal(tokens).astype(np.float32)
    return Trajectory(
        episode=Episode(
            problem=problem,
            turns=(
                Turn(role="user", tokens=np.arange(5, dtype=np.int32)),
                Turn(
                    role="assistant",
                    tokens=np.arange(tokens, dtype=np.int32),
                    logprobs=numbers,
                    **turn,
                ),
            ),
            ended="answer",
            text=text,
        ),
        group=0,
        member=0,
        judgement=Judgement(reward=1.0),
        feedback=Feedback(parts=("Well done.",)),
    )


def test_arrays_may_be_written_to_and_hold_no_memory_of_others():
    [read] = decode_group(encode_group([plain()]), PROBLEM)
    tokens = read.episode.turns[1].tokens
    assert tokens.flags.owndata
    assert tokens.flags.writeable
    assert tokens.flags.aligned


def test_verdicts_of_lean_and_feedback_on_them():
    proofs = ["  exact h.2", "  exact h.1", "  constructor", "  sorry"]
    problem = replace(PROBLEM, statement="theorem p (a b : Prop) (h : a ∧ b) : b ∧ a")
    install()
    with Verifier(workers=1) as verifier:
        judge = LeanJudge(verifier=verifier)
        judged = asyncio.run(judge.judge([(problem, proof) for proof in proofs]))
    attempts = [
        Attempt(problem=problem, text=proof, judgement=judgement)
        for proof, judgement in zip(proofs, judged, strict=True)
    ]
    notes = asyncio.run(CompilerFeedback().write(attempts))
    group = [
        replace(plain(problem, proof), member=row, judgement=judgement, feedback=note)
        for row, (proof, judgement, note) in enumerate(
            zip(proofs, judged, notes, strict=True)
        )
    ]
    assert any(each.judgement.verdict.goals for each in group)
    same(decode_group(encode_group(group), problem), group)


def test_a_group_takes_little_more_than_its_arrays():
    group = [plain(tokens=8192, text="  simp\n" * 4096)] * 8
    data = encode_group(group)
    assert len(data) < 8 * 8192 * 8
    same(decode_group(data, PROBLEM), group)


@given(st.data())
@settings(max_examples=40)
def test_damage_is_told(data):
    whole = encode_group([plain()])
    at = data.draw(st.integers(0, len(whole) - 1))
    bit = 1 << data.draw(st.integers(0, 7))
    flipped = whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :]
    for damaged in (flipped, whole[:at], whole + b"\0"):
        with pytest.raises(DataError, match="expected a group"):
            decode_group(damaged, PROBLEM)


def test_another_version_is_told(monkeypatch):
    monkeypatch.setattr("fdjax.rollout.codec._FORMAT", b"fdjax attempts 0\n")
    old = encode_group([plain()])
    monkeypatch.undo()
    with pytest.raises(DataError, match="got b'fdjax attempts 0"):
        decode_group(old, PROBLEM)


def test_facts_that_no_attempt_has_are_told(monkeypatch):
    """As when a version forgot to raise the number of its format."""
    whole = encode_group([plain()])
    body = zlib.decompress(whole[33:]).replace(b'"member"', b'"number"')
    monkeypatch.setattr("fdjax.rollout.codec._digest", lambda body: whole[17:33])
    with pytest.raises(DataError, match=r"cannot be read.*member"):
        decode_group(whole[:33] + zlib.compress(body), PROBLEM)


def test_groups_are_of_one_problem_and_read_with_it():
    other = replace(PROBLEM, statement="theorem p : True")
    with pytest.raises(DataError, match="attempts at another problem"):
        decode_group(encode_group([plain()]), other)
    for group in ([], [plain(), plain(other)]):
        with pytest.raises(DataError, match="attempts at one problem"):
            encode_group(group)


def test_arguments_are_json():
    seen = Observation(tool="t", arguments={"a": {1}}, text="", ended="done")
    with pytest.raises(DataError, match="of type set"):
        encode_group([plain(observations=(seen,))])
