"""A sampler on `EngineServer`, and what its samples are held against."""

import functools

import jax
import numpy as np

from fdjax.checkpoint import save_pretrained
from fdjax.sampling import SamplingConfig
from fdjax.sampling.server import ServerConfig, ServerSampler
from sampling.engine_server import WIDTH
from tiny import MODEL

TAU, STOPS = 0.8, (2, 3, *range(100, 140))
BOUND = 1e-3
"""Of a log-probability: a forward in float32 here and there. 2e-6 was seen."""
LOADS = ("/collective_rpc", "/update_weights_from_disk")
PROMPTS = [list(range(5, 6 + n)) for n in range(6)]


@functools.cache
def weights_of(seed):
    """Of a policy that leaves some things open, and not all."""
    params = jax.jit(MODEL.init)(jax.random.key(seed))
    return {**params, "embedding": params["embedding"] * 2}


def key(number):
    return jax.random.fold_in(jax.random.key(3), number)


class Opener:
    """Makes samplers whose servers have the weights of a folder."""

    def __init__(self, folder, target):
        self.folder, self.target = folder, target
        self.before_export = lambda target: None

    def __call__(self, server, restart=None, **settings):
        def export(params, target):
            self.before_export(target)
            save_pretrained(params, MODEL.config, target, description=self.folder)

        sampling = SamplingConfig(max_new_tokens=24, temperature=TAU, stop_tokens=STOPS)
        given = {
            "base_url": server.url,
            "model": "policy",
            "folder": self.target,
            "api": server.api,
            "attempts": 4,
            "timeout_s": 30.0,
            "longest_pause_s": 0.01,
            "load_s": 20.0,
            "tolerance": BOUND,
        }
        config = ServerConfig(**given | settings)
        return ServerSampler(MODEL, sampling, config, export, restart)


def ask(sampler, numbers=range(6), budget=12):
    return [
        sampler.submit(PROMPTS[number], key(number), max_new_tokens=budget)
        for number in numbers
    ]


def drawn(sampler, **asked):
    return [future.result(timeout=60) for future in ask(sampler, **asked)]


def gap(seed, samples, prompts=PROMPTS):
    """The largest distance of log-probabilities from those of the full forward."""
    return max(
        np.abs(scored(seed, prompt, sample.tokens) - sample.logprobs).max()
        for sample, prompt in zip(samples, prompts, strict=True)
    )


_apply = jax.jit(MODEL.apply)


def scored(seed, prompt, tokens):
    sequence = [*prompt, *tokens.tolist()]
    row = np.zeros((1, WIDTH), np.int32)
    row[0, : len(sequence)] = sequence
    valid = np.arange(WIDTH)[None] < len(sequence)
    logits = np.asarray(_apply(weights_of(seed), row, valid=valid)[0])
    logits = logits.astype(np.float64) / TAU
    policy = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return policy[np.arange(len(prompt) - 1, len(sequence) - 1), tokens]


def loads(server):
    return sum(path in LOADS for path, _ in server.requests)
