"""Many questions to one endpoint: limits, retries, a deadline, a budget."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fdjax.errors import ConfigError, InstallError
from fdjax.feedback.chat.chat import Answer, Failure, Question, Reply
from fdjax.feedback.chat.endpoint import Completion, Connection, Endpoint, RequestError
from fdjax.feedback.failure import Kind
from fdjax.feedback.usage import Budget, Prices, Usage
from fdjax.ranges import Number, Whole, require, require_fields

if TYPE_CHECKING:
    import tenacity

__all__ = ["Limits", "RemoteChat"]

_log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.5
_CHARACTERS_PER_TOKEN = 3
"""Of Lean and English, on the safe side; where a server does not count."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How hard and how long a server is asked."""

    concurrency: int = 32
    """Requests under way at a time, over all groups."""
    requests_per_minute: float | None = None
    """Pace at which requests start; None is as fast as `concurrency` allows."""
    timeout_s: float = 120.0
    """Longest time for one request, in seconds."""
    attempts: int = 6
    """How often a question is sent at most."""
    longest_pause_s: float = 120.0
    """Longest pause between two of them, in seconds. A server that asks by
    `Retry-After` for a longer one is not asked again."""
    deadline_s: float = 600.0
    """Longest time for one call with all its questions, in seconds; the groups of a
    batch are asked at the same time, so it is the batch's, too."""

    def __post_init__(self) -> None:
        require_fields(
            self,
            concurrency=Whole(1),
            timeout_s=Number(above=0),
            attempts=Whole(1),
            longest_pause_s=Number(least=0),
            deadline_s=Number(above=0),
        )
        if self.requests_per_minute is not None:
            require(
                "Limits.requests_per_minute", self.requests_per_minute, Number(above=0)
            )


class RemoteChat:
    """An endpoint with patience and limits (`Chat`); one client on one event loop."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        limits: Limits | None = None,
        prices: Prices | None = None,
        budget: Budget | None = None,
    ) -> None:
        """Open a client; nothing is sent yet.

        Args:
          endpoint: which model, and where.
          limits: concurrency, pace, retries, deadline.
          prices: of the model; without them nothing has a cost.
          budget: what this object may spend.

        Raises:
          ConfigError: there is no key, or a budget without prices.
          InstallError: the endpoint's SDK or tenacity is missing.
        """
        try:
            import tenacity
        except ImportError as error:
            raise InstallError(
                "Asking a model needs the package tenacity, which is missing; run "
                "`pip install fdjax[feedback]`."
            ) from error
        self._budget = budget or Budget()
        self._budget.require_prices(prices)
        self._limits = limits or Limits()
        self._back_off = tenacity.wait_random_exponential(
            _FIRST_PAUSE_S, max=self._limits.longest_pause_s
        )
        self._prices = prices or Prices(input=0.0, output=0.0)
        self._endpoint = endpoint
        self._connection: Connection = endpoint.connect()
        self._slots = asyncio.Semaphore(self._limits.concurrency)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._start_at = 0.0
        """When the next request may start, on the monotonic clock."""
        self.spent = Usage()
        """What all requests used so far."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """The endpoint's (`Chat.identity`)."""
        return self._endpoint.identity

    async def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer for each question, in order (`Chat`).

        Raises:
          ConfigError: the object was used on another event loop before.
        """
        self._require_one_loop()
        deadline = asyncio.get_running_loop().time() + self._limits.deadline_s
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._ask(question, deadline))
                for question in questions
            ]
        return [task.result() for task in tasks]

    async def aclose(self) -> None:
        """Close all connections."""
        await self._connection.aclose()

    def _require_one_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop not in (None, loop):
            raise ConfigError(
                "expected all calls of a RemoteChat on one event loop, got a second "
                "loop: its connections belong to the first; run everything in one "
                "asyncio.Runner, or make one object for each loop"
            )
        self._loop = loop

    async def _ask(self, question: Question, deadline: float) -> Answer:
        """One answer by the deadline, with what it used."""
        course = _Course()
        try:
            async with asyncio.timeout_at(deadline), self._slots:
                completion = await self._until_answered(question, course)
        except TimeoutError:
            failure = course.last
            what = f"no answer in {self._limits.deadline_s:g} s"
            if failure is not None:
                what += f", at last {failure.kind}: {failure}"
            return Failure(kind=Kind.DEADLINE, text=what, usage=course.usage)
        except RequestError as error:
            return Failure(kind=error.kind, text=str(error), usage=course.usage)
        # An SDK is others' code, and may fail in ways that it does not document.
        except Exception as error:  # noqa: BLE001
            what = f"{type(error).__name__}: {error}"
            return Failure(kind=Kind.FAILED, text=what, usage=course.usage)
        return Reply(text=completion.text, finish=completion.finish, usage=course.usage)

    async def _until_answered(
        self, question: Question, course: "_Course"
    ) -> Completion:
        import tenacity

        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(_is_transient),
            wait=self._pause_s,
            stop=self._is_last,
            before_sleep=_tell,
            reraise=True,
        )
        return await retrying(self._send, question, course)

    async def _send(self, question: Question, course: "_Course") -> Completion:
        """One request, once it may start."""
        await self._turn()
        if reason := self._budget.spent(self.spent):
            raise RequestError(Kind.BUDGET, reason)
        again = int(course.usage.requests > 0)
        self._book(course, Usage(requests=1, retries=again))
        limit_s = self._limits.timeout_s
        try:
            # The SDKs' limit is one for each read, and an answer may drip.
            async with asyncio.timeout(limit_s):
                completion = await self._connection.send(question, limit_s)
        except TimeoutError:
            course.last = RequestError(Kind.TIMEOUT, f"no answer in {limit_s:g} s")
            raise course.last from None
        except RequestError as error:
            course.last = error
            self._hold(error.retry_after_s or 0.0)
            raise
        self._book(course, self._usage_of(question, completion))
        return completion

    async def _turn(self) -> None:
        """Waits until a request may start, and moves the next one's start."""
        while (wait_s := self._start_at - time.monotonic()) > 0:
            await asyncio.sleep(wait_s)
        if pace := self._limits.requests_per_minute:
            self._start_at = time.monotonic() + 60.0 / pace

    def _hold(self, seconds: float) -> None:
        """Nobody starts before the server wants to be asked again."""
        if seconds <= self._limits.longest_pause_s:
            self._start_at = max(self._start_at, time.monotonic() + seconds)

    def _pause_s(self, state: "tenacity.RetryCallState") -> float:
        """A random pause from a range that doubles, on top of what the server asks."""
        # Jitter keeps requests apart that the same failure met.
        return (_error_of(state).retry_after_s or 0.0) + self._back_off(state)

    def _is_last(self, state: "tenacity.RetryCallState") -> bool:
        asked_s = _error_of(state).retry_after_s or 0.0
        too_long = asked_s > self._limits.longest_pause_s
        return too_long or state.attempt_number >= self._limits.attempts

    def _usage_of(self, question: Question, completion: Completion) -> Usage:
        given, taken = completion.input_tokens, completion.output_tokens
        estimated = given is None or taken is None
        if given is None:
            given = _estimated_tokens(question.system + question.user)
        if taken is None:
            taken = _estimated_tokens(completion.text)
        return Usage(
            input_tokens=given,
            output_tokens=taken,
            cost_usd=self._prices.cost_usd(given, taken),
            estimated=int(estimated),
        )

    def _book(self, course: "_Course", usage: Usage) -> None:
        course.usage += usage
        self.spent += usage


@dataclass(kw_only=True)
class _Course:
    """What happened to one question so far."""

    usage: Usage = field(default_factory=Usage)
    last: RequestError | None = None


def _estimated_tokens(text: str) -> int:
    return len(text) // _CHARACTERS_PER_TOKEN + 1


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, RequestError) and error.transient


def _error_of(state: "tenacity.RetryCallState") -> RequestError:
    assert state.outcome is not None
    error = state.outcome.exception()
    assert isinstance(error, RequestError)
    return error


def _tell(state: "tenacity.RetryCallState") -> None:
    error = _error_of(state)
    _log.info(
        "A request for feedback failed (%s: %s) and is sent again in %.1f s",
        error.kind,
        error,
        state.upcoming_sleep,
    )
