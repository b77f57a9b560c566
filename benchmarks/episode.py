"""One episode printed in full with its mask, its verdict and the teacher's row.

    python -m benchmarks.episode                      # scripted turns, no model
    python -m benchmarks.episode --policy FOLDER      # a chat model writes them

Tools and verdict are real: the embedded Lean. Without a policy the turns are scripted,
by a tokenizer of 300 entries; with one they are sampled, one request at a time.
"""

import json
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from rich.console import Console
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from fdjax.checkpoint import load_pretrained
from fdjax.data.formats import CHAT
from fdjax.data.tokenizer import (
    continuation_tokens,
    end_token,
    train_tokenizer,
)
from fdjax.episodes import Budget, Episodes, Fenced
from fdjax.episodes.page import episode_text
from fdjax.feedback import ConstantFeedback
from fdjax.judge import LeanJudge
from fdjax.lean import Verifier, install
from fdjax.records import Problem
from fdjax.rollout import Pipeline, rollout_batch
from fdjax.sampling import Sample, Sampler, SamplingConfig, SlotSampler, SlotsConfig
from fdjax.sharding import make_mesh
from fdjax.tools import LEAN_TOOLS, LeanTools

STATEMENT = "theorem swap (p q : Prop) (h : p ∧ q) : q ∧ p"
PROBLEM = Problem(name="swap", statement=STATEMENT)
FORMAT = replace(
    CHAT,
    user=(
        "Prove this theorem in Lean 4.\n\n{{ file | fenced }}\n\n"
        "First try a proof with a tool. For example:\n\n```tool\n"
        '{"name": "run_lean", "arguments": {"code": "{{ statement }} := by simp"}}\n'
        "```\n\nWhen it works, end with the complete file in one `lean4` code block."
    ),
)
"""A small chat model calls when it is shown a call."""
FEEDBACK = "And.symm turns a conjunction around."
PROMPT_TOKENS = 2048
"""Longest prompt, the teacher's too."""


def call(tool: str, **arguments: str) -> str:
    """A call as the fenced form has it."""
    value = json.dumps({"name": tool, "arguments": arguments}, ensure_ascii=False)
    return f"```tool\n{value}\n```"


SCRIPT = (
    f"I try the hypothesis itself.\n{call('run_lean', code=f'{STATEMENT} := h')}",
    f"The sides are swapped.\n{call('search_library', text='And.symm')}",
    call("write_file", path="proof.lean", content=f"{STATEMENT} := And.symm h"),
    "It is in proof.lean.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Who writes the turns."""

    policy: Path | None = None
    """Folder of a chat model in Hugging Face's format; None for scripted turns."""
    seed: int = 0
    """Of the episode."""
    temperature: float = 0.7
    """Of sampling."""
    tokens: int = 1024
    """Tokens behind the prompt."""
    turn_tokens: int = 192
    """Tokens of one turn."""


class Scripted:
    """A sampler that says its turns one after the other."""

    sampling = SamplingConfig(max_new_tokens=10_000)

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Take the script."""
        self._turns = iter(continuation_tokens(tokenizer, SCRIPT))
        self._end = end_token(tokenizer)

    def submit(
        self, prompt, key, *, max_new_tokens, temperature=None
    ) -> "Future[Sample]":
        """The next turn (`Sampler`)."""
        tokens = np.array([*next(self._turns), self._end], np.int32)
        zeros = np.zeros(len(tokens), np.float32)
        future: Future[Sample] = Future()
        future.set_result(
            Sample(
                tokens=tokens,
                logprobs=zeros,
                behaviour_logprobs=zeros,
                entropy=zeros,
                stop="stop",
                version=0,
            )
        )
        return future

    def publish(self, params: Any, version: int) -> None:
        """It has no weights (`Sampler`)."""

    def rest(self) -> None:
        """Nothing is on any device (`Sampler`)."""

    def together(self) -> AbstractContextManager[None]:
        """It takes up each request as it comes (`Sampler`)."""
        return nullcontext()

    def serve(self, until: "Future[Any]") -> None:
        """Everything is said already (`Sampler`)."""
        wait([until])


def loaded(
    policy: Path, config: Config
) -> tuple[PreTrainedTokenizerFast, SlotSampler, Any]:
    """Tokenizer, sampler and weights of a chat model."""
    found = load_pretrained(policy, make_mesh())
    tokenizer = AutoTokenizer.from_pretrained(found.folder)
    sampling = SamplingConfig(
        max_new_tokens=config.turn_tokens,
        temperature=config.temperature,
        stop_tokens=found.stop_tokens,
    )
    slots = SlotsConfig(longest=PROMPT_TOKENS + config.tokens, slots=1)
    return tokenizer, SlotSampler(found.model, sampling, slots), found.params


def main() -> None:
    """Play it and print it."""
    config = tyro.cli(Config, description=__doc__)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    sampler: Sampler
    if config.policy is None:
        tokenizer = train_tokenizer([*SCRIPT, STATEMENT], vocab_size=300)
        sampler, params = Scripted(tokenizer), None
        tokens, turn_tokens = 10_000, None
    else:
        tokenizer, sampler, params = loaded(config.policy, config)
        tokens, turn_tokens = config.tokens, config.turn_tokens
    episodes = Episodes(
        tokenizer=tokenizer,
        format=FORMAT,
        calls=Fenced(specs=LEAN_TOOLS),
        budget=Budget(
            tokens=tokens,
            turn_tokens=turn_tokens,
            calls=4,
            prompt_tokens=PROMPT_TOKENS,
        ),
    )
    install()
    with Verifier(workers=1) as verifier:
        pipeline = Pipeline(
            sampler=sampler,
            episodes=episodes,
            tools=LeanTools.embedded(verifier),
            judge=LeanJudge(verifier=verifier, extract=FORMAT.extract),
            writer=ConstantFeedback(text=FEEDBACK),
        )
        rollout = pipeline.collect(
            params, [PROBLEM], jax.random.key(config.seed), group_size=1
        )
    [attempt] = rollout.trajectories
    console.print(episode_text(tokenizer, attempt.episode))
    judgement = attempt.judgement
    console.print(f"reward: {judgement.reward} {judgement.reason}".rstrip())
    batch, _ = rollout_batch(
        rollout, tokenizer, teacher_width=PROMPT_TOKENS, format=pipeline.format
    )
    assert batch.feedback is not None
    scored = batch.responses[batch.feedback.mask]
    assert scored.tolist() == attempt.row.tokens[attempt.row.mask].tolist()
    console.print(
        f"the teacher reads {int(batch.feedback.valid.sum())} tokens before the same "
        f"{int(batch.response_valid.sum())}, of which {len(scored)} are scored"
    )


if __name__ == "__main__":
    main()
