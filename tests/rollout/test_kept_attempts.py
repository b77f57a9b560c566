"""Groups that are kept as they were sampled: a killed rollout samples only the rest."""

from concurrent.futures import Future

import jax
import pytest

import scripted
from fdjax.feedback import Feedback
from fdjax.judge import Judgement
from fdjax.rollout import Journal
from fdjax.sampling.sampler import SamplingError
from rollout.test_codec import same
from scripted import Scripted
from tiny import PROBLEMS

PROOFS = ("  rfl", "  simp", "  omega", "  exact h1")
OTHERS = ("  no", "  never")


class Parts:
    """A judge and a writer that count groups."""

    def __init__(self):
        self.judged = []

    async def judge(self, attempts):
        self.judged.append([text for _, text in attempts])
        return [Judgement(reward=1.0, passed=True)] * len(attempts)

    async def write(self, group):
        return [Feedback(parts=("Said",))] * len(group)


class Losing(Scripted):
    """Cannot say what comes of the third request."""

    def submit(self, prompt, key, **limits):
        if len(self.asked) != 2:
            return super().submit(prompt, key, **limits)
        self.asked.append((prompt, jax.random.key_data(key).tolist()))
        future = Future()
        future.set_exception(SamplingError("the server forgot it"))
        return future


def collected(folder, sampler, *, parts=None, keep=True, key=0, number=3):
    """The attempts of a rollout of two groups."""
    parts = parts or Parts()
    pipeline = scripted.pipeline(
        sampler,
        parts,
        parts,
        phase="fd",
        journal=Journal(folder / "journal"),
        keep_attempts=keep,
    )
    rollout = pipeline.collect(
        None, PROBLEMS[:2], jax.random.key(key), group_size=2, number=number
    )
    return rollout.trajectories


def killed(folder, rows):
    """As if the run had been killed behind so many rows of its journal."""
    [path] = (folder / "journal" / "fd").iterdir()
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:rows]))


def test_finished_groups_are_taken_and_the_rest_is_sampled(tmp_path):
    whole = Scripted(PROOFS)
    first = collected(tmp_path, whole)
    # The first group was sampled; nobody had judged it.
    killed(tmp_path, 1)
    again, parts = Scripted(OTHERS), Parts()
    second = collected(tmp_path, again, parts=parts)
    assert again.asked == whole.asked[2:]
    same([each.episode for each in second[:2]], [each.episode for each in first[:2]])
    assert sorted(parts.judged) == [["  no", "  never"], ["  rfl", "  simp"]]


def test_a_finished_rollout_is_taken_whole(tmp_path):
    first = collected(tmp_path, Scripted(PROOFS))
    again, parts = Scripted(OTHERS), Parts()
    same(
        [each.episode for each in collected(tmp_path, again, parts=parts)],
        [each.episode for each in first],
    )
    assert again.asked == parts.judged == []


@pytest.mark.parametrize("change", [{"keep": False}, {"key": 1}, {"number": 4}])
def test_nothing_is_taken_unasked_or_of_another_rollout(change, tmp_path):
    collected(tmp_path, Scripted(PROOFS))
    again = Scripted(OTHERS)
    collected(tmp_path, again, **change)
    assert len(again.asked) == 4


def test_a_group_with_a_lost_attempt_is_sampled_again(tmp_path):
    first = collected(tmp_path, Losing(PROOFS))
    assert first[2].episode.ended == "lost"
    [path] = (tmp_path / "journal" / "fd").iterdir()
    killed(tmp_path, len(path.read_bytes().splitlines()) - 1)
    again = Scripted(OTHERS)
    second = collected(tmp_path, again)
    assert len(again.asked) == 2
    assert [each.text for each in second] == ["  rfl", "  simp", *OTHERS]


def test_a_damaged_group_is_sampled_again(tmp_path, caplog):
    collected(tmp_path, Scripted(PROOFS))
    [path] = (tmp_path / "journal" / "fd").iterdir()
    rows = path.read_bytes().splitlines(keepends=True)
    place = next(n for n, row in enumerate(rows) if b'"found": ["' in row)
    rows[place] = rows[place].replace(b'"found": ["', b'"found": ["AAAA')
    path.write_bytes(b"".join(rows))
    again = Scripted(OTHERS)
    collected(tmp_path, again)
    assert len(again.asked) == 2
    assert "of another version" in caplog.text
