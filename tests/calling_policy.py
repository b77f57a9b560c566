"""A policy that calls tools: a bigram model, its sentences single tokens.

No policy this small learns to write a call in the time that a test has. So each
sentence that it can say is one token of its vocabulary; its weights hold which token
follows which, and how likely. Sampler, tools, Lean and training take it for any other.
"""

import copy
import json
import math
from dataclasses import replace

import jax
import numpy as np
from tokenizers import AddedToken

from fdjax.checkpoint import save_pretrained, write_description
from fdjax.data.tokenizer import ASSISTANT, END
from fdjax.model import Model
from small_prover import Case, flags, reviews
from tiny import MODEL, PROBLEMS, TOKENIZER

_SIZE = 320


def _call(tool, **given):
    return f"```tool\n{json.dumps({'name': tool, 'arguments': given})}\n```"


SAID = {
    _call("run_lean", code="#check @And.intro"): 0.3,
    _call("search_library", text="And.intro"): 0.2,
    "```lean4\n  exact h1\n```": 0.25,
    "```lean4\n  exact h2\n```": 0.25,
}
"""How likely a turn is each of these; then it ends."""
SETTINGS = """--episode tools --attempts.group-size 2 --attempts.max-new-tokens 320
    --attempts.turn-tokens 4 --attempts.calls 2 --attempts.prompt-tokens 1600
    --attempts.feedback-tokens 64 --fd-optimizer.learning-rate 1e-4
    --grpo-optimizer.learning-rate 1e-4"""


def calling_case(folder):
    """The policy and its problems; it reviews itself, in the same sentences."""
    tokenizer = copy.deepcopy(TOKENIZER)
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in SAID])
    config = replace(
        MODEL.config,
        vocab_size=_SIZE,
        hidden_size=_SIZE,
        num_layers=1,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
    )
    params = jax.tree.map(np.array, Model(config).init(jax.random.key(0)))
    # What is left is the last token, one of so many dimensions, and a trace of others:
    # so the teacher, who has read feedback, is of another opinion.
    params["embedding"] = np.eye(_SIZE, dtype=np.float32)
    params["layers"]["attention"]["output"] *= 0.1
    params["layers"]["mlp"]["down"] *= 0
    follows = np.full((_SIZE, _SIZE), -20.0, np.float32)
    begin, end, *said = tokenizer.convert_tokens_to_ids([ASSISTANT, END, *SAID])
    follows[begin, said] = np.log(list(SAID.values()))
    follows[said, end] = 0
    params["head"] = follows.T / math.sqrt(_SIZE)
    write_description(folder / "description", config, tokenizer)
    save_pretrained(
        jax.device_put(params),
        config,
        folder / "policy",
        description=folder / "description",
    )
    given = flags(folder, folder / "policy", PROBLEMS, SETTINGS)
    return Case(folder, given, reviews(folder))
