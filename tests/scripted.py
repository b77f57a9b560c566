"""A sampler that says what it is told to, and pipelines around it."""

from concurrent.futures import Future, wait
from contextlib import nullcontext
from dataclasses import replace

import jax
import numpy as np

from fdjax.data.chat import proof_tokens
from fdjax.data.formats import PLAIN
from fdjax.episodes import Budget, Episodes
from fdjax.rollout import Pipeline
from fdjax.sampling import Sample, SamplingConfig
from tiny import TOKENIZER

SAMPLING = SamplingConfig(max_new_tokens=24, temperature=0.7, top_k=3)


def sample(tokens, **changes):
    """Tokens as if they had been sampled."""
    values = np.ones(len(tokens), np.float32)
    fields = {
        "tokens": np.asarray(tokens, np.int32),
        "logprobs": -0.5 * values,
        "behaviour_logprobs": -0.25 * values,
        "entropy": values,
        "stop": "stop",
        "version": 0,
    }
    return Sample(**(fields | changes))


def samples(proofs):
    """Given proofs as if they had been sampled."""
    return [sample(ids) for ids in proof_tokens(TOKENIZER, proofs)]


class AtOnce:
    """What a `Sampler` has that needs no time and no weights."""

    sampling = SAMPLING

    def publish(self, params, version):
        pass

    def rest(self):
        pass

    def together(self):
        return nullcontext()

    def serve(self, until):
        wait([until])


class Scripted(AtOnce):
    """Says given proofs one after the other, then again from the first."""

    def __init__(self, proofs):
        self.samples = samples(proofs)
        self.asked = []
        """Prompt and key of each request."""
        self.published = []
        """Weights and version."""
        self.rests = []
        """Requests before each of them."""

    def submit(self, prompt, key, *, max_new_tokens, temperature=None):
        place = len(self.asked) % len(self.samples)
        self.asked.append((prompt, jax.random.key_data(key).tolist()))
        future = Future()
        version = self.published[-1][1]
        future.set_result(replace(self.samples[place], version=version))
        return future

    def publish(self, params, version):
        self.published.append((params, version))

    def rest(self):
        self.rests.append(len(self.asked))


def pipeline(sampler, judge, writer, *, width=64, tokens=24, format=PLAIN, **changes):
    """Whole proofs of up to `tokens` tokens, behind prompts of up to `width`."""
    return Pipeline(
        sampler=sampler,
        episodes=Episodes(
            tokenizer=TOKENIZER,
            format=format,
            budget=Budget(tokens=tokens, prompt_tokens=width),
        ),
        judge=judge,
        writer=writer,
        **changes,
    )
