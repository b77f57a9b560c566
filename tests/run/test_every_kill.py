"""What a run leaves in an object store at each moment is enough to go on from.

A machine that is killed loses its disk. What it leaves is what the store holds at that
moment. So one run is watched, the store is put back to states that it was in, and the
run is resumed from each of them.
"""

import asyncio
import uuid
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("google_crc32c", reason="needs the extra: pip install 'fdjax[gcs]'")

from fdjax.checkpoint import checkpoint_steps
from fdjax.feedback import Attempt, Feedback
from fdjax.judge import Judgement
from fdjax.metrics import read_metrics
from fdjax.objects import lease, place
from fdjax.run import RunConfig
from fdjax.run.changes import ResumeRules
from fdjax.run.console import Display
from fdjax.run.context import run_folder
from fdjax.train import CheckpointsConfig, Phase, train
from object_store import shared_store
from tiny import PROBLEMS, mesh_of
from train.small_loop import assert_same_bits, first_state, source, train_step, values

RULES = ResumeRules(
    phases=("sft",),
    fixed_by=dict.fromkeys(("name", "runs"), ()),
    grows={"seed": ()},
)
STEPS, EVERY = 6, 2
TRIALS = 8


@dataclass(frozen=True)
class Ended:
    state: object
    metrics: list
    samples: bytes
    asked: tuple
    """Iterations whose feedback was bought."""


def trained(home):
    """Begins a run, or goes on with it, to its end."""
    config = RunConfig(runs=home.parent, name=home.name, resume="auto")
    asked = []

    def buy(context, done):
        async def ask():
            asked.append(done)
            return [Feedback(parts=(f"On {done}.",))]

        attempt = Attempt(
            problem=PROBLEMS[0], text=str(done), judgement=Judgement(reward=0.0)
        )
        page = context.journal.page("sft", done)
        [note] = asyncio.run(page.feedback(0, [attempt], ask))
        page.end()
        return note.text

    with run_folder(config, RULES, Display.silent(), mesh_of()) as context:

        def on_data(done, state, data):
            row = {"arm": "sft", "step": done + 1, "feedback": buy(context, done)}
            context.samples.write(row)

        state = train(
            Phase(
                name="sft",
                steps=STEPS,
                log_every=3,
                source=source(),
                train_step=train_step(),
                checkpoints=CheckpointsConfig(every=EVERY),
            ),
            jax.tree.map(jnp.copy, first_state()),
            mesh=mesh_of(),
            directory=context.home / "checkpoints" / "sft",
            writer=context.writer,
            samples=context.samples,
            stop=context.stop,
            run=context.run,
            keep=context.mirror.keep,
            on_data=on_data,
            on_step=lambda done, metrics: context.saved("sft"),
        )
        metrics = values(read_metrics(context.folder / "metrics.jsonl"))
        samples = (context.folder / "samples.jsonl").read_bytes()
    return Ended(state, metrics, samples, tuple(asked))


@pytest.fixture
def store(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # Whoever was killed is missed soon.
    monkeypatch.setattr(lease, "BEAT_S", 0.1)
    monkeypatch.setattr(lease, "STALE_S", 0.5)
    return shared_store()


def watched(store, work):
    """What `work` gives, and all states that the store was in meanwhile."""
    states = []
    answer = store.RequestHandlerClass._route

    def route(handler, method, *others):
        found = answer(handler, method, *others)
        if method != "GET":
            states.append(dict(store.objects))
        return found

    store.RequestHandlerClass._route = route
    try:
        return work(), states
    finally:
        store.RequestHandlerClass._route = answer


def bought(state, prefix):
    """Iterations whose feedback is in the journal."""
    names = [name for name in state if name.startswith(f"{prefix}/journal/sft/")]
    return {int(name.rpartition("/")[2].split(".")[0]) for name in names}


def test_a_run_ends_the_same_from_each_state_that_its_store_was_in(store, tmp_path):
    expected = trained(tmp_path / "alone" / "run")
    assert expected.asked == tuple(range(STEPS))
    prefix = f"{uuid.uuid4().hex}/run"
    home = place(f"gs://bucket/{prefix}")
    first, states = watched(store, lambda: trained(home))
    assert first.asked == expected.asked
    assert len(states) > 100
    begun = [state for state in states if f"{prefix}/config.json" in state]
    # In even distances, and around each mark that completes a checkpoint.
    moments = set(np.linspace(0, len(begun) - 1, TRIALS).astype(int).tolist())
    for step in range(EVERY, STEPS + 1, EVERY):
        mark = f"{prefix}/checkpoints/sft/{step}/commit_success.txt"
        complete = next(at for at, state in enumerate(begun) if mark in state)
        moments |= {complete - 1, complete}
    for moment in sorted(moments):
        state = begun[moment]
        store.objects.clear()
        store.objects.update(state)
        known = bought(state, prefix)
        again = trained(home)
        assert_same_bits(again.state, expected.state)
        assert again.metrics == expected.metrics, moment
        assert again.samples == expected.samples, moment
        assert not known & set(again.asked), moment
        assert checkpoint_steps(home / "checkpoints" / "sft") == [4, 6]
        assert f"{prefix}/lock" not in store.objects
