"""One episode printed in full with its mask, its verdict and the teacher's row.

    python -m benchmarks.episode                      # scripted turns, no model
    python -m benchmarks.episode --policy FOLDER      # a chat model writes them

Tools and verdict are real: the embedded Lean. Without a policy the turns are scripted,
by a tokenizer of 300 entries; with one they are sampled, one request at a time.
"""

import asyncio
import json
from concurrent.futures import Future
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
from fdjax.data.packing import pad_left
from fdjax.data.tokenizer import (
    continuation_tokens,
    end_token,
    pad_token,
    train_tokenizer,
)
from fdjax.episodes import Budget, Episodes, Fenced
from fdjax.episodes.page import episode_text
from fdjax.judge import LeanJudge
from fdjax.lean import Verifier, install
from fdjax.records import Problem
from fdjax.sampling import Sample, Sampler, SamplingConfig, make_generate
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
WIDTH = 256
"""Prompts are padded to multiples of it, so that few programs are compiled."""


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

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Take the script."""
        self._turns = iter(continuation_tokens(tokenizer, SCRIPT))
        self._end = end_token(tokenizer)

    def submit(self, prompt, key, *, max_new_tokens) -> "Future[Sample]":
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


class OneRow:
    """A sampler that reads the whole prompt for each request."""

    def __init__(self, policy: Path, config: Config) -> None:
        """Load the policy."""
        loaded = load_pretrained(policy, make_mesh())
        self.tokenizer = AutoTokenizer.from_pretrained(loaded.folder)
        self._params = loaded.params
        self._pad = pad_token(self.tokenizer)
        self._generate = make_generate(
            loaded.model,
            SamplingConfig(
                max_new_tokens=config.turn_tokens,
                temperature=config.temperature,
                stop_tokens=loaded.stop_tokens,
                pad_token=self._pad,
            ),
        )

    def submit(self, prompt, key, *, max_new_tokens) -> "Future[Sample]":
        """Samples here and now (`Sampler`)."""
        width = -(-len(prompt) // WIDTH) * WIDTH
        rows = self._generate(
            self._params, *pad_left([prompt], width=width, pad=self._pad), key
        )
        tokens, mask, logprobs, entropy, _, behaviour = (
            np.asarray(each)[0] for each in rows[:6]
        )
        count = min(int(mask.sum()), max_new_tokens)
        ended = bool(rows.finished[0]) and count == int(mask.sum())
        future: Future[Sample] = Future()
        future.set_result(
            Sample(
                tokens=tokens[:count],
                logprobs=logprobs[:count],
                behaviour_logprobs=behaviour[:count],
                entropy=entropy[:count],
                stop="stop" if ended else "length",
                version=0,
            )
        )
        return future

    def publish(self, params: Any, version: int) -> None:
        """From now on with these weights (`Sampler`)."""
        self._params = params


def main() -> None:
    """Play it and print it."""
    config = tyro.cli(Config, description=__doc__)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    sampler: Sampler
    if config.policy is None:
        tokenizer = train_tokenizer([*SCRIPT, STATEMENT], vocab_size=300)
        sampler, tokens, turn_tokens = Scripted(tokenizer), 10_000, None
    else:
        sampler = OneRow(config.policy, config)
        tokenizer = sampler.tokenizer
        tokens, turn_tokens = config.tokens, config.turn_tokens
    episodes = Episodes(
        tokenizer=tokenizer,
        format=FORMAT,
        calls=Fenced(specs=LEAN_TOOLS),
        budget=Budget(tokens=tokens, turn_tokens=turn_tokens, calls=4),
    )
    install()
    with Verifier(workers=1) as verifier:
        with LeanTools.embedded(verifier).open() as toolbox:
            key = jax.random.key(config.seed)
            episode = asyncio.run(episodes.run(PROBLEM, sampler, toolbox, key))
        judge = LeanJudge(verifier=verifier, extract=FORMAT.extract)
        [judgement] = asyncio.run(judge.judge([(PROBLEM, episode.text)]))
    console.print(episode_text(tokenizer, episode))
    console.print(f"reward: {judgement.reward} {judgement.reason}".rstrip())
    taught, mask = episodes.teacher(episode, FEEDBACK)
    own = [each.tokens for each in episode.turns if each.role == "assistant"]
    assert taught[mask].tolist() == np.concatenate(own).tolist()
    console.print(
        f"the teacher reads {len(taught) - len(episode.row.tokens)} tokens before the "
        f"same {len(episode.row.tokens)}, of which {int(mask.sum())} are scored"
    )


if __name__ == "__main__":
    main()
