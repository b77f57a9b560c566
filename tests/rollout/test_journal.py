"""What is kept of groups whose rollout was not finished, and what is asked again."""

import asyncio
import json
from dataclasses import replace

import jax
import numpy as np
import pytest

import scripted
from fdjax.errors import DataError, FeedbackError
from fdjax.feedback import Feedback, Kind, Usage
from fdjax.judge import Judgement
from fdjax.lean import Diagnostic, Goal, Status, Verdict
from fdjax.rollout import Journal
from rollout.test_codec import same
from scripted import Scripted
from tiny import PROBLEMS

PROOFS = ("  rfl", "  simp", "  omega", "  exact h1")
TIMEOUT = Verdict(status=Status.TIMEOUT, seconds=61.25, reason="it ran out of time")
REJECTED = Verdict(
    status=Status.REJECTED,
    diagnostics=(Diagnostic(severity="error", line=1, column=2, text="⊢ p ∧ \ud800"),),
    goals=(Goal(text="⊢ p", line=1, column=2),),
    seconds=0.1,
)


class Parts:
    """A judge and a writer that say something else each time, and count groups."""

    def __init__(self, verdict=REJECTED, kind=None, fails_at=None):
        self.verdict, self.kind, self.fails_at = verdict, kind, fails_at
        self.judged, self.written = [], []

    async def judge(self, attempts):
        self.judged.append([text for _, text in attempts])
        verdict = replace(self.verdict, seconds=len(self.judged) + 0.5)
        return [Judgement.by_lean(verdict, text, start=1) for _, text in attempts]

    async def write(self, group):
        if group[0].problem.name == self.fails_at:
            # The others come first.
            await asyncio.sleep(0.05)
            raise FeedbackError("too much is missing")
        self.written.append([attempt.text for attempt in group])
        if self.kind is not None:
            return [Feedback.failed(self.kind, "no")] * len(group)
        usage = Usage(requests=1, cost_usd=0.1 + len(self.written))
        return [Feedback(parts=("Said", str(len(self.written))), usage=usage)] * len(
            group
        )


def collected(folder, parts, *, problems=PROBLEMS[:2], proofs=PROOFS, **changes):
    """What is said of the attempts of a rollout."""
    given = {"number": 3, "part": 0, "settings": "", "deadline_s": 60.0} | changes
    pipeline = scripted.pipeline(
        Scripted(proofs),
        parts,
        parts,
        phase="fd",
        journal=Journal(
            folder / "journal", part=given["part"], settings=given["settings"]
        ),
        judge_deadline_s=given["deadline_s"],
    )
    rollout = pipeline.collect(
        None, problems, jax.random.key(0), group_size=2, number=given["number"]
    )
    return [(each.judgement, each.feedback) for each in rollout.trajectories]


def rows(folder):
    """The one file of a journal."""
    [path] = (folder / "journal" / "fd").iterdir()
    return path, path.read_bytes().splitlines(keepends=True)


def killed(folder, parts, **changes):
    """As if the run had been killed behind its last group."""
    found = collected(folder, parts, **changes)
    path, (*kept, end) = rows(folder)
    assert json.loads(end) == {"key": "end"}
    path.write_bytes(b"".join(kept))
    return found


@pytest.mark.parametrize("ends", [killed, collected])
def test_what_was_found_out_is_read_bit_for_bit_and_not_asked_again(ends, tmp_path):
    first = ends(tmp_path, Parts(TIMEOUT))
    again = Parts()
    same(collected(tmp_path, again), first)
    assert again.judged == again.written == []


def test_a_rollout_without_a_number_is_not_kept(tmp_path):
    collected(tmp_path, Parts(), number=None)
    assert not (tmp_path / "journal").exists()


def test_only_groups_that_had_not_finished_are_asked_about(tmp_path):
    """A run that ends in the middle of feedback."""
    with pytest.raises(FeedbackError):
        collected(tmp_path, Parts(fails_at="t1"))
    again = Parts()
    collected(tmp_path, again)
    assert again.judged == []
    assert again.written == [["  omega", "  exact h1"]]


def test_half_a_row_is_cut_off(tmp_path):
    killed(tmp_path, Parts())
    path, whole = rows(tmp_path)
    assert len(whole) == 4
    path.write_bytes(b"".join(whole)[:-7])
    again = Parts()
    said = killed(tmp_path, again)
    assert len(again.judged + again.written) == 1
    same(collected(tmp_path, Parts()), said)
    _, whole = rows(tmp_path)
    assert len(whole) == 4
    for line in whole:
        json.loads(line.decode("utf-8", "surrogatepass"))


def test_a_damaged_row_costs_its_group(tmp_path, caplog):
    killed(tmp_path, Parts())
    path, whole = rows(tmp_path)
    path.write_bytes(b"".join(whole).replace(b'"passed"', b'"past"', 1))
    again = Parts()
    collected(tmp_path, again)
    assert len(again.judged) == 1
    assert "of another version" in caplog.text
    path.write_bytes(b"{" + path.read_bytes())
    collected(tmp_path, again)
    assert "is no row of a journal" in caplog.text


CRASHED = Verdict(status=Status.CRASHED, reason="the worker died")


def test_what_failed_is_tried_again_in_a_rollout_that_was_not_finished(tmp_path):
    killed(tmp_path, Parts(CRASHED))
    again = Parts(kind=Kind.SERVER)
    assert not any(one.missing for one, _ in killed(tmp_path, again))
    assert len(again.judged) == 2
    third = Parts()
    said = collected(tmp_path, third)
    assert third.judged == []
    assert len(third.written) == 2
    assert all(note.available for _, note in said)


@pytest.mark.parametrize("failing", [{"verdict": CRASHED}, {"kind": Kind.SERVER}])
def test_what_failed_stays_in_a_rollout_that_was_finished(failing, tmp_path):
    """Its rows are in samples.jsonl, and the next one is by weights that it trained."""
    first = collected(tmp_path, Parts(**failing))
    again = Parts()
    same(collected(tmp_path, again), first)
    assert again.judged == again.written == []


def test_what_a_deadline_decided_stays(tmp_path):
    class Late(Parts):
        async def judge(self, attempts):
            await asyncio.sleep(60)

    first = collected(tmp_path, Late(), deadline_s=0.01)
    assert all(judgement.missing for judgement, _ in first)
    again = Parts()
    same(collected(tmp_path, again), first)
    assert again.judged == []


@pytest.mark.parametrize("kind", [Kind.EMPTY, Kind.REFUSAL, Kind.CUT, Kind.LEAK])
def test_failures_that_were_paid_for_are_not_bought_again(kind, tmp_path):
    first = killed(tmp_path, Parts(kind=kind))
    again = Parts()
    same(collected(tmp_path, again), first)
    assert again.written == []


@pytest.mark.parametrize("change", [{"number": 4}, {"settings": "another judge"}])
def test_another_rollout_or_other_settings_have_nothing_in_common(change, tmp_path):
    collected(tmp_path, Parts())
    again = Parts()
    collected(tmp_path, again, **change)
    assert len(again.judged) == len(again.written) == 2


def test_other_attempts_are_other_groups(tmp_path):
    killed(tmp_path, Parts())
    again = Parts()
    collected(tmp_path, again, proofs=("  rfl", "  simp", "  omega", "  no"))
    assert again.judged == [["  omega", "  no"]]
    assert again.written == [["  omega", "  no"]]


def test_groups_that_are_alike_have_what_was_said_of_each(tmp_path):
    alike = {"problems": PROBLEMS[:1] * 3, "proofs": ("  rfl",)}
    first = killed(tmp_path, Parts(), **alike)
    assert len({note.text for _, note in first}) == 3
    again = Parts()
    same(collected(tmp_path, again, **alike), first)
    assert again.written == []


def test_processes_read_each_others_files_and_the_first_drops_them(tmp_path):
    collected(tmp_path, Parts())
    path, (*found, end) = rows(tmp_path)
    # As if each of two processes had asked about one half.
    for part in (0, 1):
        own = [*found[part::2], end]
        path.with_name(f"3.{part}.jsonl").write_bytes(b"".join(own))
    again = Parts()
    collected(tmp_path, again, part=1)
    assert again.judged == again.written == []
    folder = tmp_path / "journal"
    Journal(folder, part=1).passed("fd", 4)
    Journal(folder).passed("fd", 3)
    assert {path.name for path in (folder / "fd").iterdir()} == {
        "3.0.jsonl",
        "3.1.jsonl",
    }
    Journal(folder).passed("fd", 4)
    assert not folder.exists()


def test_a_full_disk_costs_the_row_and_not_the_run(tmp_path, caplog):
    (tmp_path / "journal").write_text("in the way")
    parts = Parts()
    collected(tmp_path, parts)
    assert len(parts.judged) == len(parts.written) == 2
    assert "is used, but not kept" in caplog.text


def test_a_judge_that_miscounts_is_asked_again(tmp_path):
    class Miscounting(Parts):
        async def judge(self, attempts):
            return (await super().judge(attempts))[:1]

    with pytest.raises(DataError, match="expected 2 judgements"):
        collected(tmp_path, Miscounting())
    again = Parts()
    collected(tmp_path, again)
    assert len(again.judged) == 2


def test_rewards_of_any_kind_of_number_are_kept(tmp_path):
    class OfNumPy(Parts):
        async def judge(self, attempts):
            self.judged.append(attempts)
            return [Judgement(reward=np.float32(0.1), passed=np.bool_(1))] * 2

    first = killed(tmp_path, OfNumPy())
    again = OfNumPy()
    for (one, _), (other, _) in zip(collected(tmp_path, again), first, strict=True):
        assert (one.reward, one.passed) == (other.reward, other.passed)
    assert again.judged == []
