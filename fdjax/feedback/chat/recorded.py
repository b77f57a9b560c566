"""A model whose every answer is kept, so that none is paid for twice."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar, TypeVarTuple

from fdjax.feedback.chat.chat import Answer, Chat, Failure, Question, at_no_cost
from fdjax.feedback.chat.endpoint import Endpoint
from fdjax.feedback.chat.recording import Recording, question_key
from fdjax.feedback.failure import Kind

__all__ = ["RecordedChat"]

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")


class RecordedChat:
    """Reads answers from a recording, asks for the others and records them (`Chat`).

    The same question gets the same answer, within a run and in every later one:
    identical attempts are asked about once. Refusals and empty answers are recorded,
    failures are not: they are asked about again.
    """

    def __init__(self, chat: Chat, path: Path, *, writable: bool = True) -> None:
        """Open or make the recording.

        Args:
          chat: answers what is not recorded, one question a call.
          path: file of the recording (`Recording`); several processes may share it.
          writable: whether new answers are recorded; otherwise the file must be there.

        Raises:
          DataError: the file cannot be opened, or is something else.
        """
        self._chat = chat
        self._recording = Recording(path, writable=writable)
        # One thread: the loop goes on while the disk is slow, and calls do not meet.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="feedback-recording")
        self._asked: dict[str, asyncio.Future[Answer]] = {}

    @classmethod
    def replay(cls, endpoint: Endpoint | Chat, path: Path) -> Self:
        """A recording alone: it needs no key, no SDK and no network.

        A question that it does not hold is a failure of the kind `unrecorded`.

        Args:
          endpoint: the model that was recorded; only its `identity` is used.
          path: file of the recording.

        Raises:
          DataError: the file is missing or something else.
        """
        nobody = _Nobody(identity=endpoint.identity, path=path)
        return cls(nobody, path, writable=False)

    @property
    def identity(self) -> Mapping[str, Any]:
        """The model's (`Chat.identity`)."""
        return self._chat.identity

    async def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer for each question, in order (`Chat`)."""
        return list(await asyncio.gather(*map(self._once, questions)))

    async def aclose(self) -> None:
        """Close the recording and the model."""
        self._thread.shutdown()
        self._recording.close()
        await self._chat.aclose()

    async def _once(self, question: Question) -> Answer:
        """The answer; who asks the same at the same time waits for the first."""
        key = question_key(self.identity, question)
        if key in self._asked:
            return at_no_cost(await asyncio.shield(self._asked[key]))
        future = self._asked[key] = asyncio.get_running_loop().create_future()
        answer: Answer = Failure(
            kind=Kind.FAILED, text="whoever asked the same was stopped"
        )
        try:
            answer = await self._answer(key, question)
        finally:
            future.set_result(answer)
            del self._asked[key]
        return answer

    async def _answer(self, key: str, question: Question) -> Answer:
        found = await self._in_thread(self._recording.get, key)
        if found is not None:
            return at_no_cost(found)
        [answer] = await self._chat.ask([question])
        if isinstance(answer, Failure):
            return answer
        return await self._in_thread(
            self._recording.keep, self.identity, question, answer
        )

    async def _in_thread(
        self, call: Callable[[*Arguments], Result], *arguments: *Arguments
    ) -> Result:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, call, *arguments)


@dataclass(frozen=True, kw_only=True)
class _Nobody:
    """Stands for the model in a replay."""

    identity: Mapping[str, Any]
    path: Path

    async def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """Failures alone."""
        return [self._failure(question) for question in questions]

    async def aclose(self) -> None:
        """Nothing to close."""

    def _failure(self, question: Question) -> Failure:
        key = question_key(self.identity, question)
        what = (
            f"no answer {key[:12]}… in {self.path}: the attempt, the template, the "
            "model or its parameters are others than those recorded"
        )
        return Failure(kind=Kind.UNRECORDED, text=what)
