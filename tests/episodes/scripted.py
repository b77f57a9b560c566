"""A sampler that says what it was told to, and a tool that does."""

from concurrent.futures import Future
from itertools import pairwise

import numpy as np

from fdjax.data.tokenizer import continuation_tokens
from fdjax.sampling import Sample
from fdjax.tools import Parameter, Toolbox, ToolSpec
from scripted import AtOnce

ECHO = ToolSpec(
    name="echo",
    description="Say it again.",
    parameters=(Parameter(name="text", type="string", description="What."),),
)


def call_text(text, name="echo"):
    import json

    value = {"name": name, "arguments": {"text": text}}
    return f"<tool_call>\n{json.dumps(value)}\n</tool_call>"


def pieces(tokenizer, text, cuts=()):
    """Token ids of a text, encoded in pieces: rarely what the whole would give."""
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    parts = [text[a:b] for a, b in pairwise(places)]
    return [token for ids in continuation_tokens(tokenizer, parts) for token in ids]


class Scripted(AtOnce):
    """Gives its turns in order, and remembers what it was asked."""

    def __init__(self, tokenizer, turns, *, stop=True):
        """Begin.

        Args:
          tokenizer: of the model.
          turns: texts, or token ids; an end token is added where `stop`.
          stop: whether turns end by themselves.
        """
        self._turns = [
            pieces(tokenizer, turn) if isinstance(turn, str) else list(turn)
            for turn in turns
        ]
        self._end = [tokenizer.eos_token_id] if stop else []
        self.prompts, self.keys, self.most, self.sampled = [], [], [], []
        self.waiting = 0

    def submit(self, prompt, key, *, max_new_tokens):
        tokens = self._turns[len(self.prompts)] + self._end
        self.prompts.append(list(prompt))
        self.keys.append(key)
        self.most.append(max_new_tokens)
        stop = "stop" if len(tokens) <= max_new_tokens and self._end else "length"
        tokens = np.asarray(tokens[:max_new_tokens], np.int32)
        self.sampled.append(tokens)
        future = Future()
        future.set_result(
            Sample(
                tokens=tokens,
                logprobs=-np.arange(1, len(tokens) + 1, dtype=np.float32),
                behaviour_logprobs=-np.ones(len(tokens), np.float32),
                entropy=np.full(len(tokens), 0.5, np.float32),
                stop=stop,
                version=len(self.prompts),
            )
        )
        return future


class Echo:
    spec = ECHO

    def __init__(self, answers=None):
        self._answers = iter(answers) if answers is not None else None

    async def call(self, arguments):
        return arguments["text"] if self._answers is None else next(self._answers)


def echo_box(answers=None):
    return Toolbox([Echo(answers)])
