import math
from types import SimpleNamespace

import jax
import jaxtyping
import numpy as np

from fdjax.eval import evaluate_teacher
from fdjax.feedback import Feedback
from tiny import PROBLEMS, TOKENIZER


def engine(known):
    def collect(params, problems, key, *, group_size, feedback=None):
        count = len(problems) * group_size
        return SimpleNamespace(
            problems=[p for p in problems for _ in range(group_size)],
            feedback=[Feedback(parts=("no",))] * count,
            rewards=np.full(count, known, np.float32),
            known=np.full(count, known),
        )

    return SimpleNamespace(collect=collect, tokenizer=TOKENIZER, prompt_width=128)


def test_a_verifier_that_judges_nothing_ends_no_run(monkeypatch):
    # The engines here are stand-ins.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    for known, value in ((False, math.nan), (True, 1.0)):
        one = engine(known)
        result = evaluate_teacher({}, PROBLEMS, one, one, jax.random.key(0), samples=2)
        np.testing.assert_equal(tuple(result.with_feedback), (value,) * 3)
        np.testing.assert_equal(tuple(result.without_feedback), (value,) * 3)
