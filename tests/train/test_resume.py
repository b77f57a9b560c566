"""Which checkpoint a phase goes on from, and which it refuses."""

import copy
import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import pytest
from tokenizers import normalizers

import scripted
from fdjax.checkpoint import CheckpointStore, Retention
from fdjax.data.formats import PLAIN
from fdjax.data.tokenizer import train_tokenizer
from fdjax.errors import CheckpointError, DamagedCheckpointError
from fdjax.feedback import CompilerFeedback
from fdjax.judge import LeanJudge, up_to_fence
from fdjax.lean import FakeBackend, Verifier
from fdjax.train import (
    FD,
    GRPO,
    AlternatingSource,
    RolloutSource,
    SupervisedSource,
    TrainState,
    needs_of,
)
from fdjax.train.resume import restore
from scripted import Scripted
from tiny import PROBLEMS, TOKENIZER

ROWS = [(problem, None, problem.references[0]) for problem in PROBLEMS]
WITHOUT_ANSWER = dataclasses.replace(PLAIN, answer=None)
BY_FENCE = dataclasses.replace(WITHOUT_ANSWER, extract=up_to_fence)
ORIGIN = {"run": "1f", "phase": "sft"}


def supervised(rows=ROWS, tokenizer=TOKENIZER, **changes):
    settings = {"batch_size": 4, "seed": 0, "prompt_width": 64, "response_width": 24}
    return SupervisedSource(rows, tokenizer, **(settings | changes))


def pipeline(prompt_width=64):
    """Never asked to sample."""
    judge = LeanJudge(verifier=Verifier(FakeBackend))
    # A sampler without a proof to say fails.
    return scripted.pipeline(
        Scripted([]), judge, CompilerFeedback(), width=prompt_width
    )


BUDGET = {
    "problems_per_step": 4,
    "group_size": 2,
    "updates_per_rollout": 2,
    "seed": 0,
}


def policy(problems=PROBLEMS, prompt_width=64, **changes):
    needs = needs_of((GRPO(),))
    return RolloutSource(
        problems, pipeline(prompt_width), needs=needs, **(BUDGET | changes)
    )


def distillation(*others, teacher_width=96, **settings):
    return RolloutSource(
        PROBLEMS,
        pipeline(),
        needs=needs_of((FD(**settings), *others)),
        teacher_width=teacher_width,
        **BUDGET,
    )


def reworded():
    other = dataclasses.replace(PROBLEMS[0], statement="theorem t0 : True")
    return [(other, None, ROWS[0][2]), *ROWS[1:]]


def other_reading():
    """The same vocabulary and chat, by which texts are read in lower case."""
    tokenizer = copy.deepcopy(TOKENIZER)
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    return tokenizer


def other_tokenizer():
    return train_tokenizer(["theorem other : True", "  trivial"], vocab_size=300)


@pytest.mark.parametrize(
    ("before", "now", "named"),
    [
        (supervised(), supervised(ROWS[:5]), "rows was 8, now 5"),
        (supervised(), supervised(ROWS[::-1]), "content of the rows"),
        (supervised(), supervised(reworded()), "content of the rows"),
        (supervised(), supervised([(p, "hint", r) for p, _, r in ROWS]), "content"),
        (supervised(), supervised(batch_size=2), "batch_size was 4, now 2"),
        (supervised(), supervised(seed=7), "seed was 0, now 7"),
        (supervised(), supervised(prompt_width=65), "prompt_width was 64, now 65"),
        (supervised(), supervised(response_width=9), "response_width was 24, now 9"),
        (supervised(), supervised(tokenizer=other_tokenizer()), "tokenizer was"),
        (supervised(), supervised(tokenizer=other_reading()), "tokenizer was"),
        (
            supervised(format=WITHOUT_ANSWER),
            supervised(format=BY_FENCE),
            "format was",
        ),
        (supervised(), policy(), "source was SupervisedSource, now RolloutSource"),
        (
            AlternatingSource(supervised(), supervised(seed=1), share=0.5),
            AlternatingSource(supervised(), supervised(seed=1), share=0.25),
            "share was 0.5, now 0.25",
        ),
        (
            AlternatingSource(supervised(), supervised(seed=1), share=0.5),
            AlternatingSource(supervised(), supervised(seed=2), share=0.5),
            "seed was 1, now 2",
        ),
        (
            supervised(),
            AlternatingSource(supervised(), supervised(), share=0.5),
            "source was SupervisedSource, now AlternatingSource",
        ),
        (policy(), policy(PROBLEMS[:4]), "rows was 8, now 4"),
        (policy(), policy(group_size=4), "group_size was 2, now 4"),
        (policy(), policy(updates_per_rollout=1), "updates_per_rollout was 2, now 1"),
        (policy(), policy(prompt_width=80), "prompt_width was 64, now 80"),
        (policy(), distillation(), "advantage was zscore, now none; teacher reads was"),
        (distillation(), distillation(GRPO()), "advantage was none, now zscore"),
        (distillation(), distillation(contrast=1.0), "reads was feedback, now feedba"),
        (distillation(), distillation(teacher_width=97), "teacher_width was 96"),
        (distillation(), distillation(score="to_divergence"), "score was all"),
    ],
)
def test_a_position_in_other_data_is_refused(before, now, named):
    saved = json.loads(json.dumps(before.get_state()))
    before.set_state(saved)
    with pytest.raises(CheckpointError, match=named):
        now.set_state(saved)


def test_a_position_without_its_data_is_refused():
    """As sources wrote it before they said what they were positions in."""
    position = supervised().get_state()["position"]
    with pytest.raises(CheckpointError, match="rows was not said, now 8"):
        supervised().set_state(position)


def state(step=0):
    return TrainState(
        params={"w": jnp.full(3, float(step))},
        opt_state=(),
        teacher=None,
        step=jnp.int32(step),
        key=jax.random.key(0),
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Checkpoints of steps 2, 4 and 6."""
    folder = tmp_path_factory.mktemp("saved")
    source = supervised()
    with CheckpointStore(folder, Retention(newest=None)) as store:
        for step in (2, 4, 6):
            source.skip(2)
            host = ORIGIN | {"source": source.get_state()}
            store.save(step, state(step), host)
    return folder


def resumed(folder, *, origin=ORIGIN, steps=9, resume=None, source=None):
    """Iterations done and w of the state from which training would go on."""
    source = source or supervised()
    with CheckpointStore(folder, Retention(newest=None)) as store:
        done, found, host = restore(
            store, state(), source, origin, steps=steps, resume=resume
        )
    if done:
        assert source.get_state() == host["source"]
    return done, float(found.params["w"][0])


@pytest.mark.parametrize(
    ("choice", "steps", "done"),
    [(None, 9, 6), (None, 5, 4), (2, 9, 2), (None, 1, 0)],
)
def test_the_newest_checkpoint_or_the_one_asked_for(saved, choice, steps, done):
    assert resumed(saved, steps=steps, resume=choice) == (done, done)


def cut(step):
    path = step / "host" / "metadata"
    path.write_text(path.read_text()[:9])


def test_back_to_the_newest_that_is_not_damaged(saved, tmp_path, caplog):
    folder = shutil.copytree(saved, tmp_path / "checkpoints")
    cut(folder / "6")
    assert resumed(folder) == (4, 4.0)
    assert "/6 is damaged" in caplog.text
    assert "Going back to the checkpoint before it" in caplog.text
    with pytest.raises(DamagedCheckpointError, match="/6 is damaged"):
        resumed(folder, resume=6)
    shutil.rmtree(folder / "4" / "state")
    assert resumed(folder) == (2, 2.0)


def test_nothing_is_begun_anew_where_all_are_damaged(saved, tmp_path):
    """Days of training are not thrown away because a disk was not mounted."""
    folder = shutil.copytree(saved, tmp_path / "checkpoints")
    for step in (2, 4, 6):
        cut(folder / str(step))
    with pytest.raises(DamagedCheckpointError, match=r"/6 is .* steps \[2, 4, 6\]"):
        resumed(folder)


def test_a_damaged_checkpoint_of_another_run_is_refused(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "checkpoints")
    shutil.rmtree(folder / "6" / "state")
    with pytest.raises(CheckpointError, match="got one of run '1f'") as caught:
        resumed(folder, origin=ORIGIN | {"run": "2e"})
    assert not isinstance(caught.value, DamagedCheckpointError)


def test_two_states_are_never_held(saved):
    """What training would have begun with goes before the checkpoint is read."""
    first = state()
    with CheckpointStore(saved, Retention(newest=None)) as store:
        restore(store, first, supervised(), ORIGIN, steps=9)
    assert first.params["w"].is_deleted()


def test_a_step_that_is_not_there(saved):
    with pytest.raises(CheckpointError, match=r"step 3 .* got those of \[2, 4, 6\]"):
        resumed(saved, resume=3)


@pytest.mark.parametrize(
    ("origin", "named"),
    [
        ({"run": "2e", "phase": "sft"}, "got one of run '1f', not '2e'"),
        ({"run": None, "phase": "sft"}, "got one of run '1f', not None"),
        ({"run": "1f", "phase": "fd"}, "got one of phase 'sft', not 'fd'"),
    ],
)
def test_checkpoints_of_others_are_refused(saved, origin, named):
    with pytest.raises(CheckpointError, match=named):
        resumed(saved, origin=origin)


def test_other_data_is_no_damage(saved):
    with pytest.raises(CheckpointError, match="seed was 0, now 3") as caught:
        resumed(saved, source=supervised(seed=3))
    assert not isinstance(caught.value, DamagedCheckpointError)
