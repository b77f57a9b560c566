"""Attempts at one theorem stay together, and nobody waits for ever."""

import threading
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fdjax.lean.engine.jobs import IN_A_ROW, Jobs


def filled(likenesses):
    jobs = Jobs()
    for number, likeness in enumerate(likenesses):
        jobs.put((likeness, number), likeness)
    jobs.close()
    return jobs


def test_jobs_that_are_like_none_keep_their_order():
    jobs = filled([None] * 5)
    taken = [jobs.take(number % 2) for number in range(5)]
    assert taken == [(None, number) for number in range(5)]
    assert jobs.take(0) is None


def test_workers_share_out_theorems_and_not_attempts():
    jobs = filled("aaabbbccc")
    taken = {0: [], 1: []}
    for turn in range(9):
        taken[turn % 2].append(jobs.take(turn % 2))
    assert [likeness for likeness, _ in taken[0]] == list("aaacc")
    assert [likeness for likeness, _ in taken[1]] == list("bbbc")


def test_the_last_theorem_is_shared_by_all():
    jobs = filled("aaaa")
    assert [jobs.take(worker) for worker in (0, 1, 2, 1)] == [
        ("a", number) for number in range(4)
    ]


def test_a_worker_turns_to_others_after_a_while():
    jobs = filled(["a"] * IN_A_ROW + ["b"] + ["a"] * IN_A_ROW)
    taken = [jobs.take(0)[0] for _ in range(2 * IN_A_ROW + 1)]
    assert taken.index("b") == IN_A_ROW


@given(
    likenesses=st.lists(st.sampled_from([None, "a", "b", "c"])),
    workers=st.lists(st.integers(0, 3), min_size=1),
)
def test_every_job_is_taken_once_and_the_oldest_of_its_kind_first(likenesses, workers):
    jobs = filled(likenesses)
    taken = []
    while (job := jobs.take(workers[len(taken) % len(workers)])) is not None:
        taken.append(job)
    assert Counter(taken) == Counter((each, n) for n, each in enumerate(likenesses))
    for likeness in "abc":
        numbers = [number for each, number in taken if each == likeness]
        assert numbers == sorted(numbers)
    assert not jobs._alike
    assert not jobs._waiting


@pytest.mark.parametrize("ends", [False, True])
def test_taking_waits_for_a_job_or_the_end(ends):
    jobs = Jobs()
    taken = []
    thread = threading.Thread(target=lambda: taken.append(jobs.take(0)))
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    if ends:
        jobs.close()
    else:
        jobs.put("work")
    thread.join(5)
    assert taken == [None if ends else "work"]
