"""A few iterations of supervised training, run as often as a test likes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from fdjax.checkpoint import CheckpointStore
from fdjax.metrics import MetricsWriter, SampleWriter, read_metrics
from fdjax.train import (
    SFT,
    AlternatingSource,
    CheckpointsConfig,
    OptimizerConfig,
    Phase,
    StopRequest,
    SupervisedSource,
    init_state,
    make_objective,
    make_optimizer,
    make_train_step,
    train,
)
from tiny import MODEL, PROBLEMS, TOKENIZER, mesh_of

OPTIMIZER = make_optimizer(OptimizerConfig(learning_rate=3e-3, warmup_steps=2))
IMITATION = make_objective(MODEL, (SFT(),))


def source():
    plain, informed = (
        SupervisedSource(
            [(p, note, p.references[0]) for p in PROBLEMS],
            TOKENIZER,
            batch_size=4,
            seed=0,
            prompt_width=64,
            response_width=24,
        )
        for note in (None, "hint")
    )
    return AlternatingSource(plain, informed, share=0.5)


@functools.cache
def train_step():
    return make_train_step(MODEL, IMITATION, OPTIMIZER, mesh_of())


@functools.cache
def first_state():
    """Where every run begins; a step donates its state, so each gets a copy."""
    return init_state(MODEL, OPTIMIZER, mesh_of(), jax.random.key(0))


def run(
    folder,
    *,
    steps=9,
    stop_after=None,
    given=None,
    resume=None,
    exports=None,
    keep=lambda must: True,
    on_data=lambda *_: None,
    **settings,
):
    mesh = mesh_of()
    stop = StopRequest()

    def on_step(done, metrics):
        stop.requested = done == stop_after

    folder.mkdir(exist_ok=True)
    with (
        MetricsWriter(folder / "metrics.jsonl") as writer,
        SampleWriter(folder / "samples.jsonl") as samples,
    ):
        state = train(
            Phase(
                name="sft",
                steps=steps,
                **{
                    "source": source(),
                    "train_step": train_step(),
                    "checkpoints": CheckpointsConfig(every=4),
                }
                | settings,
            ),
            given or jax.tree.map(jnp.copy, first_state()),
            mesh=mesh,
            directory=folder / "checkpoints",
            writer=writer,
            samples=samples,
            stop=stop,
            resume=resume,
            exports=exports,
            keep=keep,
            on_data=on_data,
            on_step=on_step,
        )
    return state, read_metrics(folder / "metrics.jsonl")


def assert_same_bits(first, second):
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def values(rows):
    return [{k: v for k, v in row.items() if not k.startswith("time")} for row in rows]


def checkpoints(folder):
    with CheckpointStore(folder / "checkpoints") as store:
        return store.steps
