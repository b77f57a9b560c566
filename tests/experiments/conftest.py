import json

import jax
import pytest

from fdjax.lean import install
from small_run import arguments, finished

LONG = " ".join(map(str, range(300)))
MINIF2F = [
    {"name": "sum", "formal_statement": "theorem sum : (2 : ℕ) + 2 = 4 := by\n"},
    {"name": "real", "formal_statement": "theorem real (x : ℝ) : x = x := by\n"},
    # Longer than any prompt of training.
    {"name": "long", "formal_statement": f'theorem long : "{LONG}" = "" := by\n'},
]


@pytest.fixture(autouse=True, scope="session")
def as_users_run_it():
    """optax needs standard promotion, and the embedded Lean must be there."""
    install()
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A finished run and the arguments that it had; nobody may change it."""
    runs = tmp_path_factory.mktemp("runs")
    path = runs / "minif2f.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in MINIF2F))
    used = [*arguments(runs / "whole"), "--minif2f", str(path)]
    finished(used)
    return runs / "whole", used
