"""A small policy that has learnt some proofs, and the theorems for it."""

from pathlib import Path

import jax

from fdjax.checkpoint import save_pretrained, write_description
from fdjax.data.problems import write_problems
from fdjax.data.tokenizer import train_tokenizer
from fdjax.metrics import StageTimer
from fdjax.model import Model, ModelConfig
from fdjax.records import Problem
from fdjax.sharding import make_mesh, shard_batch
from fdjax.train import (
    SFT,
    OptimizerConfig,
    SupervisedSource,
    init_state,
    make_objective,
    make_optimizer,
    make_train_step,
)

__all__ = ["write_policy"]

_GOALS = {
    "p": "exact h1",
    "q": "exact h2",
    "p ∧ q": "exact ⟨h1, h2⟩",
    "q ∧ p": "exact ⟨h2, h1⟩",
    "p ∨ q": "exact Or.inl h1",
    "q ∨ p": "exact Or.inl h2",
    "p ↔ p": "exact Iff.rfl",
    "True": "exact trivial",
}
"""Goals under hypotheses `h1 : p` and `h2 : q`, and a proof of each."""
_LOSS = 0.6
"""Mean nats a token at which it has learnt enough to be right now and then."""


def write_policy(folder: Path) -> tuple[Path, Path]:
    """Trains it for some seconds.

    Args:
      folder: to write into; it exists.

    Returns:
      The policy's folder, in Hugging Face's format, and the file of the theorems.
    """
    theorems = [
        Problem(
            name=f"t{index}",
            statement=f"theorem t{index} (p q : Prop) (h1 : p) (h2 : q) : {goal}",
            references=(f"  {proof}",),
            family="rehearsal",
            difficulty=1,
        )
        for index, (goal, proof) in enumerate(_GOALS.items())
    ]
    rows = [(theorem, None, theorem.references[0]) for theorem in theorems]
    tokenizer = train_tokenizer(
        [text for theorem, _, proof in rows for text in (theorem.statement, proof)],
        vocab_size=300,
    )
    model = Model(
        ModelConfig(
            vocab_size=304,
            hidden_size=32,
            intermediate_size=64,
            num_layers=2,
            num_heads=2,
            num_kv_heads=2,
            head_dim=16,
            max_position_embeddings=512,
        )
    )
    mesh = make_mesh(data=1, fsdp=-1)
    optimizer = make_optimizer(OptimizerConfig(learning_rate=3e-3))
    state = init_state(model, optimizer, mesh, jax.random.key(0))
    step = make_train_step(model, make_objective(model, (SFT(),)), optimizer, mesh)
    source = SupervisedSource(
        rows, tokenizer, batch_size=8, seed=0, prompt_width=64, response_width=24
    )
    loss = float("inf")
    while loss > _LOSS:
        [batch] = source.next(state, StageTimer()).batches
        state, metrics = step(state, shard_batch(batch, mesh))
        loss = metrics["train/loss"].value()
    write_description(folder / "description", model.config, tokenizer)
    save_pretrained(
        state.params,
        model.config,
        folder / "policy",
        description=folder / "description",
    )
    write_problems(theorems, folder / "problems.jsonl")
    return folder / "policy", folder / "problems.jsonl"
