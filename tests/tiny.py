"""A model small enough to train in a test, and data for it."""

import jax
import numpy as np
from jax.sharding import AxisType

from fdjax.data.tokenizer import train_tokenizer
from fdjax.model import Model, ModelConfig
from fdjax.records import Problem
from fdjax.rollout import Batch, TeacherPrompts

PROBLEMS = [
    Problem(
        name=f"t{index}",
        statement=f"theorem t{index} (p q : Prop) (h1 : p) (h2 : q) : {goal}",
        references=(proof,),
        family="toy",
        difficulty=1,
    )
    for index, (goal, proof) in enumerate(
        [
            ("p", "  exact h1"),
            ("q", "  exact h2"),
            ("p ∧ q", "  exact ⟨h1, h2⟩"),
            ("q ∧ p", "  exact ⟨h2, h1⟩"),
        ]
        * 2
    )
]
TOKENIZER = train_tokenizer(
    [p.statement for p in PROBLEMS] + [p.references[0] for p in PROBLEMS],
    vocab_size=300,
)
MODEL = Model(
    ModelConfig(
        vocab_size=304,
        hidden_size=16,
        intermediate_size=32,
        num_layers=2,
        num_heads=2,
        num_kv_heads=2,
        head_dim=8,
        max_position_embeddings=128,
    )
)


def distillation_data(rows=8, prompt=5, teacher=9, length=6, seed=0):
    """Random tokens in the shape of a distillation batch; some rows are short."""
    rng = np.random.default_rng(seed)

    def draw(width):
        return rng.integers(0, len(TOKENIZER), (rows, width), dtype=np.int32)

    lengths = rng.integers(1, length + 1, rows)
    valid = np.arange(length) < lengths[:, None]
    prompts = draw(prompt)
    prompt_valid = np.arange(prompt) >= rng.integers(0, prompt - 1, rows)[:, None]
    responses, informed = draw(length), draw(teacher)
    informed_valid = np.arange(teacher) >= rng.integers(0, teacher - 1, rows)[:, None]
    heard = valid & (rng.random(rows) < 0.8)[:, None]
    return Batch(
        prompts=prompts,
        prompt_valid=prompt_valid,
        responses=responses,
        response_valid=valid,
        written=valid,
        known=np.ones(rows, bool),
        passed=np.arange(rows) % 3 == 0,
        feedback=TeacherPrompts(informed, informed_valid, heard),
    )


def mesh_of(data=1, fsdp=1, tensor=1):
    """A mesh over the first devices only."""
    sizes = (data, fsdp, tensor)
    return jax.make_mesh(
        sizes,
        ("data", "fsdp", "tensor"),
        axis_types=(AxisType.Auto,) * 3,
        devices=jax.devices()[: int(np.prod(sizes))],
    )
