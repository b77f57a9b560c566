"""Requests to one server on one event loop: limits, retries, and the right weights."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import numpy as np

from fdjax.sampling.sampler import Sample, SamplingError
from fdjax.sampling.server.config import ServerConfig
from fdjax.sampling.server.connection import Connection, RequestError
from fdjax.sampling.server.dialect import (
    Asked,
    Dialect,
    Finish,
    Reply,
    Served,
    checked,
    require_model,
)
from fdjax.sampling.server.sglang import SGLang
from fdjax.sampling.server.vllm import VLLM

if TYPE_CHECKING:
    import tenacity

__all__ = ["Engine"]

_LOG = logging.getLogger(__name__)
_FIRST_PAUSE_S = 0.5
_DIALECTS = {"vllm": VLLM, "sglang": SGLang}


class Engine:
    """Asks one server.

    A server that was lost may come back with other weights. So whatever breaks a
    connection raises a doubt: nothing is sent until what is under way has ended, and
    the server has said that it holds the weights, or has loaded them again.
    """

    def __init__(
        self,
        config: ServerConfig,
        vocabulary: int,
        restart: Callable[[str], None] | None,
    ) -> None:
        """Opens a client; nothing is sent yet.

        Args:
          config: the server.
          vocabulary: entries of the model's embedding table.
          restart: starts the server again with the weights at a path; None where it
            loads them itself.

        Raises:
          ConfigError: there is no key.
          InstallError: httpx or tenacity is missing.
        """
        self._connection = Connection(config)
        self._dialect: Dialect = _DIALECTS[config.api](config.model)
        self._config, self._vocabulary, self._restart = config, vocabulary, restart
        self._slots = asyncio.Semaphore(config.concurrency)
        self._gate = asyncio.Lock()
        self._under_way, self._quiet = 0, asyncio.Event()
        self._doubt, self._tells = False, False
        self._recovery: asyncio.Task[None] | None = None
        self._restarting: asyncio.Future[None] | None = None

    async def load(self, served: Served) -> None:
        """Has the server load weights; nothing may be under way.

        Raises:
          SamplingError: within `load_s` it has not said that it holds them.
        """
        if self._recovery is not None:
            # Whoever waited for it was cancelled; two loads at a time end anyhow.
            await asyncio.gather(self._recovery, return_exceptions=True)
        await self._load(served)
        self._doubt, self._recovery = False, None

    async def _load(self, served: Served) -> None:
        import tenacity

        until = time.monotonic() + self._config.load_s
        if self._restart is not None:
            await self._start_again(self._restart, served)
        stop = tenacity.stop_after_delay(max(0.0, until - time.monotonic()))
        try:
            await self._patiently(self._load_once, served, stop=stop)
        except RequestError as error:
            raise SamplingError(
                f"expected {self._config.base_url} to hold the weights of version "
                f"{served.version}, {served.path}, got {error}: look at its log"
            ) from None

    async def _start_again(
        self, restart: Callable[[str], None], served: Served
    ) -> None:
        """Calls `restart` in a thread that need not end: nobody can end it.

        Raises:
          SamplingError: it has not returned in `load_s`, or one before has not.
        """
        try:
            async with asyncio.timeout(self._config.load_s):
                if self._restarting is not None:
                    # Two at a time would fight for the server's place.
                    await asyncio.wait([self._restarting])
                self._restarting = _in_thread(restart, served.path)
                await asyncio.shield(self._restarting)
        except TimeoutError:
            raise SamplingError(
                f"expected `restart` to return within {self._config.load_s:g} s, got "
                f"nothing for {served.path}: it must not wait for the server's end; or "
                "raise ServerConfig.load_s"
            ) from None

    async def sample(self, asked: Asked, served: Served) -> Sample:
        """Tokens of these weights; a request that is lost is sent again.

        Raises:
          SamplingError: it came to nothing as often as it may be sent.
        """
        try:
            reply, ended = await self._patiently(
                self._once, asked, served, stop=self._is_last
            )
        except RequestError as error:
            raise SamplingError(
                f"expected a sample from {self._config.base_url} after a prompt of "
                f"{len(asked.prompt)} tokens in at most {self._config.attempts} "
                f"attempts, got {error}: look at the server's log"
            ) from None
        logprobs = np.asarray(reply.logprobs, np.float32)
        return Sample(
            tokens=np.asarray(reply.tokens, np.int32),
            logprobs=logprobs,
            behaviour_logprobs=logprobs,
            entropy=None,
            stop=ended,
            version=served.version,
        )

    async def aclose(self) -> None:
        """Closes all connections; nothing is sampled any more."""
        if self._recovery is not None:
            self._recovery.cancel()
            await asyncio.gather(self._recovery, return_exceptions=True)
        if self._restarting is not None:
            self._restarting.cancel()
        await self._connection.aclose()

    async def _load_once(self, served: Served) -> None:
        """A server that is being started answers later, or first as it was."""
        await require_model(self._connection, self._config.model)
        if self._restart is None:
            await self._dialect.load(self._connection, served, self._config.load_s)
        held = await self._dialect.holds(self._connection, served)
        if held is False or (held is None and self._restart is not None):
            raise RequestError("other weights", final=self._restart is None)
        self._tells = held is True

    async def _once(self, asked: Asked, served: Served) -> tuple[Reply, Finish]:
        """A reply, and how it ended."""
        async with self._slots:
            await self._enter(served)
            try:
                return await self._ask(asked, served)
            except RequestError as error:
                self._doubt |= error.lost
                raise
            finally:
                self._under_way -= 1
                if not self._under_way:
                    self._quiet.set()

    async def _ask(self, asked: Asked, served: Served) -> tuple[Reply, Finish]:
        path, body = self._dialect.request(asked)
        answer = await self._connection.post(
            path, body, timeout_s=self._config.timeout_s
        )
        reply = self._dialect.read(answer, asked)
        ended = checked(reply, asked, self._vocabulary)
        # It holds them now: so it held them since they were loaded.
        unsure = self._tells and reply.mark != served.mark
        if unsure and not await self._dialect.holds(self._connection, served):
            raise RequestError("a server with other weights", lost=True)
        return reply, ended

    async def _enter(self, served: Served) -> None:
        """Waits until the server can be trusted."""
        async with self._gate:
            if self._doubt:
                if self._recovery is None:
                    self._recovery = asyncio.create_task(self._recover(served))
                # Whoever waits for it may be cancelled, and it goes on.
                await asyncio.shield(self._recovery)
            self._under_way += 1
            self._quiet.clear()

    async def _recover(self, served: Served) -> None:
        if self._under_way:
            await self._quiet.wait()
        try:
            held = await self._dialect.holds(self._connection, served)
        except RequestError:
            held = None
        if not held:
            _LOG.warning(
                "%s was lost; version %d is loaded again",
                self._config.base_url,
                served.version,
            )
            await self._load(served)
        self._doubt, self._recovery = False, None

    async def _patiently(
        self, send: Callable[..., Coroutine[Any, Any, Any]], *asked: Any, stop: Any
    ) -> Any:
        """What comes of it, sent again after what may pass."""
        import tenacity

        back_off = tenacity.wait_random_exponential(
            _FIRST_PAUSE_S, max=self._config.longest_pause_s
        )
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(_may_pass),
            wait=lambda state: _error_of(state).pause_s + back_off(state),
            stop=stop,
            before_sleep=_tell,
            reraise=True,
        )
        return await retrying(send, *asked)

    def _is_last(self, state: "tenacity.RetryCallState") -> bool:
        too_long = _error_of(state).pause_s > self._config.longest_pause_s
        return too_long or state.attempt_number >= self._config.attempts


def _in_thread(work: Callable[[str], None], given: str) -> asyncio.Future[None]:
    """Its end; a program that ends does not wait for the thread."""
    ended: Future[None] = Future()
    # From here on nobody can cancel it.
    ended.set_running_or_notify_cancel()

    def run() -> None:
        try:
            ended.set_result(work(given))
        # Whatever it is, whoever waits must learn of it.
        except BaseException as error:  # noqa: BLE001
            ended.set_exception(error)

    threading.Thread(target=run, name="fdjax-restart", daemon=True).start()
    return asyncio.wrap_future(ended)


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, RequestError) and not error.final


def _error_of(state: "tenacity.RetryCallState") -> RequestError:
    assert state.outcome is not None
    error = state.outcome.exception()
    assert isinstance(error, RequestError)
    return error


def _tell(state: "tenacity.RetryCallState") -> None:
    _LOG.info(
        "A request for tokens failed (%s) and is sent again in %.1f s",
        _error_of(state),
        state.upcoming_sleep,
    )
