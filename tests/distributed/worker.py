"""One of several processes: train, sample, save and restore on their common mesh."""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from fdjax.checkpoint import CheckpointStore, load_pretrained, save_pretrained
from fdjax.metrics import MetricsWriter, SampleWriter
from fdjax.records import Mean
from fdjax.sampling import SamplingConfig, SlotSampler, SlotsConfig
from fdjax.sharding import batch_sharding, initialize_distributed, make_mesh
from fdjax.train import (
    FD,
    Alarm,
    AlarmError,
    CheckpointsConfig,
    EMATeacher,
    Guards,
    OptimizerConfig,
    Phase,
    Plateau,
    StepData,
    StopRequest,
    init_state,
    make_objective,
    make_optimizer,
    make_train_step,
    train,
)
from fdjax.train.guards.guards import UNGUARDED
from tiny import MODEL, distillation_data


def work(mesh, folder):
    """Figures that must not depend on how many processes there are."""
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-2))
    teacher = EMATeacher(rate=0.25)
    state = init_state(MODEL, optimizer, mesh, jax.random.key(0), teacher=teacher)
    objective = make_objective(MODEL, (FD(importance_cap=None),))
    step = make_train_step(MODEL, objective, optimizer, mesh, teacher=teacher)
    history = []
    for seed in range(3):
        # Several processes cannot pass host arrays to a sharded step directly.
        batch = jax.device_put(distillation_data(seed=seed), batch_sharding(mesh))
        state, metrics = step(state, batch)
        history.append({name: mean.value() for name, mean in metrics.items()})
    with CheckpointStore(folder) as store:
        store.save(3, state, {"position": 7})
        restored, host = store.restore(state)
        store.wait()
    same = [
        bool(np.array_equal(a.data, b.data))
        for one, other in zip(
            jax.tree.leaves((state.params, state.opt_state, state.teacher)),
            jax.tree.leaves((restored.params, restored.opt_state, restored.teacher)),
            strict=True,
        )
        for a, b in zip(one.addressable_shards, other.addressable_shards, strict=True)
    ]
    batch = distillation_data()
    sampler = SlotSampler(
        MODEL,
        SamplingConfig(max_new_tokens=4, stop_tokens=(3,)),
        SlotsConfig(longest=16, slots=8, page=4),
        mesh,
    )
    sampler.publish(restored.params, 3)
    # Five prompts divide over no mesh of eight.
    futures = [
        sampler.submit(prompt[valid], jax.random.key(row), max_new_tokens=4)
        for row, (prompt, valid) in enumerate(
            zip(batch.prompts[:5], batch.prompt_valid[:5], strict=True)
        )
    ]
    sampler.drain()
    teacher_sum = float(
        sum(np.abs(leaf).sum() for leaf in jax.tree.leaves(_whole(state.teacher)))
    )
    return {
        # Both donate their state.
        "alarm": alarm(jax.tree.map(jnp.copy, state), step, mesh, folder / "alarm"),
        "iterations": iterations_until_a_plateau(state, step, mesh, folder / "until"),
        "history": history,
        "restored": all(same),
        "host": host,
        "tokens": [future.result().tokens.tolist() for future in futures],
        "teacher": teacher_sum,
    }


class Rising:
    """A reward that stands still where the first process looks, and rises elsewhere."""

    def __init__(self):
        self.calls = 0

    def next(self, state, timer):
        self.calls += 1
        reward = float(self.calls * jax.process_index())
        return StepData(
            batches=[distillation_data(seed=self.calls)],
            metrics={"reward/mean": Mean(reward, 1)},
        )

    def get_state(self):
        return {"calls": self.calls}

    def set_state(self, state):
        self.calls = state["calls"]


def iterations_until_a_plateau(state, step, mesh, folder):
    """What all processes must agree on, whatever each of them has seen."""
    plateau = Plateau(window=1, least_gain=0.5, patience=1)
    return rising(state, step, mesh, folder, until=plateau)


def alarm(state, step, mesh, folder):
    """The alarm on a reward that is low on the first process alone."""
    low = Alarm(guard="low", metric="reward/mean", below=0.5, stop=True)
    try:
        rising(state, step, mesh, folder, guards=Guards(alarms=(low,)))
    except AlarmError as error:
        return str(error)
    return ""


def rising(state, step, mesh, folder, until=None, guards=UNGUARDED):
    """Iterations of a phase of five with such a reward."""
    done = []
    mine = folder.parent / f"{folder.name}-{jax.process_index()}"
    mine.mkdir()
    with (
        MetricsWriter(mine / "metrics.jsonl") as writer,
        SampleWriter(mine / "samples.jsonl") as samples,
    ):
        train(
            Phase(
                name="fd",
                steps=5,
                source=Rising(),
                train_step=step,
                checkpoints=CheckpointsConfig(every=5),
                until=until,
            ),
            state,
            mesh=mesh,
            directory=folder,
            writer=writer,
            samples=samples,
            stop=StopRequest(),
            guards=guards,
            on_step=lambda iterations, metrics: done.append(iterations),
        )
    return done[-1]


def through_hugging_face(mesh, source, target):
    """Loads a model onto the mesh, changes it and writes it."""
    loaded = load_pretrained(source, mesh)
    params = jax.jit(lambda params: jax.tree.map(lambda leaf: 2.0 * leaf, params))(
        loaded.params
    )
    save_pretrained(
        params,
        loaded.model.config,
        target,
        description=loaded.folder,
        max_shard_bytes=20_000,
    )


def _whole(tree):
    """Host arrays of a tree that is spread over processes."""
    return multihost_utils.process_allgather(tree, tiled=True)


if __name__ == "__main__":
    port, count, index, folder = sys.argv[1:]
    initialize_distributed(
        coordinator_address=f"127.0.0.1:{port}",
        num_processes=int(count),
        process_id=int(index),
    )
    path = Path(folder)
    mesh = make_mesh(data=2, fsdp=4)
    for kind in ("hf", "orbax"):
        through_hugging_face(mesh, path / kind, path / f"{kind}-doubled")
    result = work(mesh, path / "checkpoints")
    (path / f"{index}.json").write_text(json.dumps(result))
