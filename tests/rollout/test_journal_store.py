"""A journal in an object store: a row an object, durable before it is used."""

import asyncio
import uuid

import pytest

pytest.importorskip("google_crc32c", reason="needs the extra: pip install 'fdjax[gcs]'")

from fdjax.feedback import Attempt, Feedback
from fdjax.judge import Judgement
from fdjax.objects import children, place, store, walk
from fdjax.rollout import Journal
from object_store import shared_store
from tiny import PROBLEMS

ATTEMPTS = [
    [Attempt(problem=PROBLEMS[0], text=text, judgement=Judgement(reward=0.0))]
    for text in "ab"
]


@pytest.fixture
def server():
    server = shared_store()
    yield server
    server.fault = lambda method, path: None


@pytest.fixture
def folder(server):
    return place(f"gs://bucket/{uuid.uuid4().hex}/journal")


class Writer:
    def __init__(self):
        self.asked = []

    def about(self, page, attempts):
        async def ask():
            self.asked.append(attempts[0].text)
            return [Feedback(parts=(f"On {attempts[0].text}.",))]

        return asyncio.run(page.feedback(0, attempts, ask))


def test_what_was_bought_before_a_kill_is_not_bought_again(folder):
    writer = Writer()
    for part, attempts in enumerate(ATTEMPTS):
        writer.about(Journal(folder, part=part).page("fd", 3), attempts)
    page = Journal(folder).page("fd", 3)
    said = [writer.about(page, attempts) for attempts in ATTEMPTS]
    assert writer.asked == ["a", "b"]
    assert [note.parts for [note] in said] == [("On a.",), ("On b.",)]
    assert len(walk(folder)) == 2


def test_a_finished_rollout_keeps_its_order(folder):
    """What is behind the end counts where it is settled alone."""
    writer, page = Writer(), Journal(folder).page("fd", 0)
    writer.about(page, ATTEMPTS[0])
    page.end()
    writer.about(Journal(folder).page("fd", 0), ATTEMPTS[1])
    again = Journal(folder).page("fd", 0)
    for attempts in ATTEMPTS:
        writer.about(again, attempts)
    assert writer.asked == ["a", "b"]


def test_a_checkpoint_drops_what_it_holds(folder):
    for number in (1, 2, 10):
        Writer().about(Journal(folder).page("fd", number), ATTEMPTS[0])
    journal = Journal(folder)
    journal.passed("fd", 2)
    assert [name.split(".")[0] for name in children(folder / "fd")] == ["10", "2"]
    journal.passed("fd")
    assert children(folder / "fd") == []


def test_a_store_that_is_gone_costs_the_row_alone(folder, server, monkeypatch, caplog):
    monkeypatch.setattr(store, "PATIENCE_S", 0.5)
    server.fault = lambda method, path: 503
    writer, journal = Writer(), Journal(folder)
    page = journal.page("fd", 0)
    assert writer.about(page, ATTEMPTS[0])[0].parts == ("On a.",)
    page.end()
    journal.passed("fd", 1)
    assert "not kept" in caplog.text
    assert "cannot be read" in caplog.text
