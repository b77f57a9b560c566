"""An episode with the real tools and the real judge."""

import asyncio
import json

import jax
import pytest

from episodes.scripted import Scripted
from episodes.templates import QWEN25
from fdjax.data.formats import CHAT
from fdjax.episodes import Episodes, Hermes
from fdjax.judge import LeanJudge
from fdjax.lean import Verifier, install
from fdjax.records import Problem
from fdjax.tools import LEAN_TOOLS, LeanTools
from small_tokenizers import qwen

STATEMENT = "theorem swap (p q : Prop) (h : p ∧ q) : q ∧ p"
PROBLEM = Problem(name="swap", statement=STATEMENT)


@pytest.fixture(scope="module")
def verifier():
    install()
    with Verifier(workers=1) as verifier:
        verifier.start()
        yield verifier


def call(tool, **arguments):
    value = json.dumps({"name": tool, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{value}\n</tool_call>"


def played(verifier, turns):
    tokenizer = qwen()
    tokenizer.chat_template = QWEN25
    episodes = Episodes(
        tokenizer=tokenizer, format=CHAT, calls=Hermes(specs=LEAN_TOOLS)
    )
    sampler = Scripted(tokenizer, turns)
    with LeanTools.embedded(verifier).open() as toolbox:
        key = jax.random.key(0)
        episode = asyncio.run(episodes.run(PROBLEM, sampler, toolbox, key))
    judge = LeanJudge(verifier=verifier, extract=CHAT.extract)
    [judgement] = asyncio.run(judge.judge([(PROBLEM, episode.text)]))
    return episode, judgement


def test_a_proof_is_found_by_trying(verifier):
    episode, judgement = played(
        verifier,
        [
            call("run_lean", code="#check @And.symm"),
            call("write_file", path="proof.lean", content=f"{STATEMENT} := h"),
            call("write_file", path="proof.lean", content=f"{STATEMENT} := And.symm h"),
            call("check_file", path="proof.lean"),
            "It is in proof.lean.",
        ],
    )
    said = [seen.text.splitlines()[0] for seen in episode.observations]
    assert said[0] == "No errors, no warnings."
    assert said[1] == "Wrote proof.lean. 1 error, 0 warnings."
    assert said[2] == "Wrote proof.lean. No errors, no warnings."
    assert "Cited and known: And.symm." in episode.observations[3].text
    assert (episode.ended, episode.from_file) == ("answer", True)
    assert judgement.passed


@pytest.mark.parametrize(
    "content",
    [
        f"{STATEMENT} := by sorry",
        "theorem swap (p q : Prop) (h : p ∧ q) : p ∧ q := h",
        f"axiom cheat (p : Prop) : p\n{STATEMENT} := cheat _",
        "theorem other : True := trivial",
    ],
)
def test_what_tools_say_is_no_proof(verifier, content):
    """Each compiles; none is the theorem."""
    turns = [call("write_file", path="proof.lean", content=content), "Done."]
    episode, judgement = played(verifier, turns)
    assert ", 0 warnings" in episode.observations[0].text or (
        "No errors" in episode.observations[0].text
        or "0 errors" in episode.observations[0].text
    )
    assert episode.from_file
    assert judgement.reward == 0.0
    assert not judgement.passed
