"""No answer is paid for twice: recordings, their files, and replays without a key."""

import asyncio
import json
import multiprocessing
import sys
from dataclasses import replace

import pytest

from fdjax.errors import DataError
from fdjax.feedback import (
    Critique,
    Kind,
    OpenAIEndpoint,
    RecordedChat,
    Usage,
)
from fdjax.feedback.chat import Failure, Question, Reply
from fdjax.feedback.chat.recording import Recording, question_key
from feedback.attempts import failed

IDENTITY = {"api": "counting", "model": "m", "parameters": {}}


def question(text="why?", **changes):
    return replace(Question(system="s", user=text, template="t@1"), **changes)


class Counting:
    """A model that remembers what it was asked; each answer costs a request."""

    def __init__(self, identity=IDENTITY):
        self.identity = identity
        self.asked = []
        self.closed = False

    async def ask(self, questions):
        self.asked += [each.user for each in questions]
        await asyncio.sleep(0.01)
        return [self._answer(each.user) for each in questions]

    async def aclose(self):
        self.closed = True

    def _answer(self, text):
        usage = Usage(requests=1, input_tokens=5, cost_usd=0.25)
        match text:
            case "down":
                return Failure(kind=Kind.SERVER, text="500", usage=usage)
            case "refuse":
                return Reply(text="", finish="refused", usage=usage)
        return Reply(text=f"to {text}: {len(self.asked)} ⊢", usage=usage)


def ask(chat, *questions):
    async def run():
        try:
            return await chat.ask(questions)
        finally:
            await chat.aclose()

    return asyncio.run(run())


def write(chat, group):
    async def run():
        writer = Critique(chat=chat)
        try:
            return await writer.write(group)
        finally:
            await writer.aclose()

    return asyncio.run(run())


def test_the_same_question_is_asked_once(tmp_path):
    path = tmp_path / "answers.jsonl"
    model = Counting()
    first = ask(RecordedChat(model, path), question(), question(), question("else"))
    assert model.asked == ["why?", "else"]
    assert first[0].text == first[1].text
    assert [answer.usage.requests for answer in first] == [1, 0, 1]
    assert first[1].usage == Usage(recorded=1)
    assert model.closed
    # Another run reads what this one paid for.
    again = Counting()
    [second] = ask(RecordedChat(again, path), question())
    assert again.asked == []
    assert second == replace(first[0], usage=Usage(recorded=1))


def test_groups_that_ask_the_same_at_once_share_the_answer(tmp_path):
    model = Counting()

    async def run():
        chat = RecordedChat(model, tmp_path / "answers.jsonl")
        answers = await asyncio.gather(*(chat.ask([question()]) for _ in range(5)))
        await chat.aclose()
        return answers

    answers = asyncio.run(run())
    assert model.asked == ["why?"]
    assert len({answer.text for [answer] in answers}) == 1
    assert sum(answer.usage.cost_usd for [answer] in answers) == 0.25


def test_failures_are_asked_about_again_and_refusals_are_not(tmp_path):
    path = tmp_path / "answers.jsonl"
    down, refused = ask(
        RecordedChat(Counting(), path), question("down"), question("refuse")
    )
    assert (down.kind, refused.finish) == (Kind.SERVER, "refused")
    model = Counting()
    ask(RecordedChat(model, path), question("down"), question("refuse"))
    assert model.asked == ["down"]


def test_whatever_decides_an_answer_is_in_its_key():
    base = question_key(IDENTITY, question())
    others = [
        question_key({**IDENTITY, "model": "n"}, question()),
        question_key({**IDENTITY, "parameters": {"temperature": 0}}, question()),
        question_key(IDENTITY, question(template="t@2")),
        question_key(IDENTITY, question(system="another")),
        question_key(IDENTITY, question("why not?")),
        # The same characters, divided otherwise.
        question_key(IDENTITY, question("why?s", system="")),
    ]
    assert len({base, *others}) == 7
    # By sha256sum of [{},"t@1","s","why?"]: recordings outlive a version of fdjax.
    assert question_key({}, question()) == (
        "91c3773c7d9fa0df439942e0ac5b40e22981c68855967e1ccc900c56e625edea"
    )


def test_a_replay_needs_neither_key_nor_sdk(tmp_path, monkeypatch):
    path = tmp_path / "answers.jsonl"
    endpoint = OpenAIEndpoint(model="m", parameters={"seed": 1})
    group = [failed("  a"), failed("  b")]
    model = Counting(endpoint.identity)
    paid = write(RecordedChat(model, path), group)

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setitem(sys.modules, "openai", None)
    notes = write(RecordedChat.replay(endpoint, path), [*group, failed("  c")])
    assert [note.text for note in notes[:2]] == [note.text for note in paid]
    assert notes[2].kind is Kind.UNRECORDED
    assert str(path) in notes[2].error
    assert all(note.usage.requests == 0 for note in notes)
    # Another seed is another model to ask.
    other = OpenAIEndpoint(model="m", parameters={"seed": 2})
    [note] = write(RecordedChat.replay(other, path), group[:1])
    assert note.kind is Kind.UNRECORDED


def test_a_replay_without_a_file_is_an_error(tmp_path):
    endpoint = OpenAIEndpoint(model="m")
    with pytest.raises(DataError, match="expected a recording"):
        RecordedChat.replay(endpoint, tmp_path / "none.jsonl")


def test_half_a_line_costs_one_answer(tmp_path):
    path = tmp_path / "answers.jsonl"
    ask(RecordedChat(Counting(), path), question("one"), question("two"))
    path.write_bytes(path.read_bytes()[:-30])
    model = Counting()
    ask(RecordedChat(model, path), question("one"), question("two"))
    assert len(model.asked) == 1
    again = Counting()
    ask(RecordedChat(again, path), question("one"), question("two"))
    assert again.asked == []


@pytest.mark.parametrize("content", ['{"name": "x"}\n', "{}", "key: value\n"])
def test_a_foreign_file_stays_as_it_is(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(DataError, match="is no recording"):
        RecordedChat(Counting(), path)
    assert path.read_text() == content


def test_joined_recordings_are_one(tmp_path):
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for path, text in zip(paths, ("one", "two"), strict=True):
        ask(RecordedChat(Counting(), path), question(text), question("both"))
    whole = tmp_path / "whole.jsonl"
    whole.write_bytes(b"".join(path.read_bytes() for path in paths))
    model = Counting()
    answers = ask(RecordedChat(model, whole), *map(question, ("one", "two", "both")))
    assert model.asked == []
    first = [json.loads(line) for line in paths[0].read_text().splitlines()]
    assert answers[2].text == next(r["text"] for r in first if r["user"] == "both")


def test_what_another_process_adds_is_found(tmp_path):
    path = tmp_path / "answers.jsonl"
    model = Counting()
    chat = RecordedChat(model, path)
    ask(RecordedChat(Counting(), path), question())
    ask(chat, question())
    assert model.asked == []


def test_of_two_that_ask_at_once_the_first_counts_for_both(tmp_path):
    """What a run has read is what its replay reads."""
    path = tmp_path / "answers.jsonl"

    class Slow(Counting):
        async def ask(self, questions):
            answers = await super().ask(questions)
            # Another process is done meanwhile.
            other = Recording(path)
            other.put(IDENTITY, question(), Reply(text="the first"))
            other.close()
            return answers

    [answer] = ask(RecordedChat(Slow(), path), question())
    assert (answer.text, answer.usage.requests) == ("the first", 1)
    assert len(path.read_bytes().splitlines()) == 1


def _append(path, name, count):
    recording = Recording(path)
    for number in range(count):
        text = f"{name} {number} " + "x" * 5000
        recording.put(IDENTITY, question(text), Reply(text=text))
    recording.close()


def test_processes_append_side_by_side(tmp_path):
    path = tmp_path / "answers.jsonl"
    fork = multiprocessing.get_context("spawn")
    workers = [fork.Process(target=_append, args=(path, n, 40)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    recording = Recording(path, writable=False)
    assert len(recording) == 120
    for worker in range(3):
        text = f"{worker} 39 " + "x" * 5000
        key = question_key(IDENTITY, question(text))
        assert recording.get(key).text == text
    recording.close()


def test_an_answer_that_cannot_be_recorded_is_used(tmp_path, monkeypatch, caplog):
    def refuse(self, line):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Recording, "_append", refuse)
    chat = RecordedChat(Counting(), tmp_path / "answers.jsonl")
    [answer] = ask(chat, question())
    assert answer.text.startswith("to why?")
    assert "No space left on device" in caplog.text


def test_text_that_is_no_unicode_survives(tmp_path):
    path = tmp_path / "answers.jsonl"

    class Broken(Counting):
        async def ask(self, questions):
            return [Reply(text="broken \ud800 text")]

    [first] = ask(RecordedChat(Broken(), path), question())
    [again] = ask(RecordedChat(Counting(), path), question())
    assert first.text == again.text == "broken \ud800 text"
