"""The sampler on a server: requests over HTTP, weights by export and reload."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import CancelledError, Future, wait
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import jax
import numpy as np
from jaxtyping import Int, Key

from fdjax.errors import ConfigError, DataError, FdjaxError
from fdjax.model import Model
from fdjax.ranges import INT32_MAX
from fdjax.sampling.config import SamplingConfig
from fdjax.sampling.published import Published
from fdjax.sampling.request import Limits, Request
from fdjax.sampling.sampler import Sample, SamplerClosedError, SamplingError
from fdjax.sampling.server.check import PROBE_TOKENS, mean_distance
from fdjax.sampling.server.config import ServerConfig
from fdjax.sampling.server.dialect import Asked, Served
from fdjax.sampling.server.engine import Engine
from fdjax.sampling.server.exports import Exports

__all__ = ["ServerSampler"]

_CLOSED = "expected an open sampler, got one that was closed: make another"
_UNPUBLISHED = "expected weights to sample with: call publish first"

Result = TypeVar("Result")
_Weights = asyncio.Future[Served | FdjaxError]
"""What a request is sampled with, once it is there, or why it never will be."""


class ServerSampler:
    """A `Sampler` elsewhere: vLLM or SGLang, asked over HTTP.

    Requests are sent as they come, from a thread of its own, and futures are done
    there. The server draws with its own random numbers. The same key is the same seed,
    where the server takes one; whether that gives the same tokens, among others or with
    another version of the server, is the server's affair. `SlotSampler` promises more.

    Log-probabilities are the policy's at τ, and what was drawn from is the same: cuts
    are refused, for no server gives both numbers then. Entropies are unknown.

    A request that is lost is sent again, up to `ServerConfig.attempts` times. Then its
    future fails with a `SamplingError`, and nothing else does.
    """

    def __init__(
        self,
        model: Model,
        sampling: SamplingConfig,
        config: ServerConfig,
        export: Callable[[Any, Path], None],
        restart: Callable[[str], None] | None = None,
    ) -> None:
        """Nothing is sent yet; weights come with the first `publish`.

        Args:
          model: the decoder, to check tokens and log-probabilities.
          sampling: how to draw: temperature, stop tokens and the most tokens that may
            be asked for; no cuts.
          config: the server.
          export: writes parameters as a Hugging Face folder that does not exist yet,
            such as `fdjax.checkpoint.save_pretrained` with the rest of its arguments.
          restart: for a server that loads no weights while it runs: starts it again
            with the weights at a path, in the server's words. It returns within
            `load_s`, and need not wait until the server answers. It is called for each
            version, and when a server is lost.

        Raises:
          ConfigError: there are cuts, stop tokens or a probe of another vocabulary, no
            key, or several processes.
          InstallError: httpx or tenacity is missing.
        """
        if sampling.top_k or sampling.top_p < 1.0 or sampling.min_p > 0.0:
            raise ConfigError(
                "expected top_k=0, top_p=1 and min_p=0, got "
                f"{sampling.top_k}, {sampling.top_p:g} and {sampling.min_p:g}: after "
                "cuts a server gives no log-probabilities of the whole policy; use "
                "SlotSampler"
            )
        size = model.config.vocab_size
        named = {*sampling.stop_tokens, *config.probe}
        if beyond := {token for token in named if token >= size}:
            raise ConfigError(
                "expected stop_tokens and ServerConfig.probe below the model's "
                f"vocabulary size, {size}, got {sorted(beyond)}: they are those of "
                "another tokenizer"
            )
        if (count := jax.process_count()) > 1:
            raise ConfigError(
                f"expected one process with a ServerSampler, got {count}: use "
                "SlotSampler on several hosts"
            )
        self._model, self._sampling, self._config = model, sampling, config
        self._stops = frozenset(sampling.stop_tokens)
        self._engine = Engine(config, size, restart)
        self._exports = Exports(config.folder, config.seen_as, export)
        self._lock, self._publishing = threading.Lock(), threading.Lock()
        self._closed, self._number, self._published = False, 0, Published()
        self._loop = asyncio.new_event_loop()
        self._tasks: dict[asyncio.Task[Any], _Weights | None] = {}
        self._weights: _Weights = self._loop.create_future()
        self._weights.set_result(ConfigError(_UNPUBLISHED))
        self._thread = threading.Thread(
            target=_run, args=(self._loop,), name="fdjax-server-sampler", daemon=True
        )
        self._thread.start()

    @property
    def sampling(self) -> SamplingConfig:
        """See `Sampler.sampling`."""
        return self._sampling

    def together(self) -> AbstractContextManager[None]:
        """Requests are sent as they come; the server decides about batches."""
        return nullcontext()

    def serve(self, until: Future[Any]) -> None:
        """Waits; the server samples."""
        wait([until])

    def submit(
        self,
        prompt: Sequence[int] | Int[np.ndarray, " S"],
        key: Key[jax.Array, ""],
        *,
        max_new_tokens: int,
        temperature: float | None = None,
    ) -> Future[Sample]:
        """See `Sampler.submit`. A future that is cancelled ends its request."""
        if temperature is None:
            temperature = self._sampling.temperature
        limits = Limits(
            budget=self._sampling.max_new_tokens,
            longest=INT32_MAX,
            vocabulary=self._model.config.vocab_size,
        )
        with self._lock:
            try:
                self._check_open()
                request = Request.make(
                    self._number, prompt, key, max_new_tokens, temperature, limits
                )
                self._check_length(request)
            except FdjaxError as error:
                failed: Future[Sample] = Future()
                failed.set_exception(error)
                return failed
            self._number += 1
            weights = self._weights
            self._loop.call_soon_threadsafe(self._start, request, weights)
        return request.future

    def publish(self, params: Any, version: int) -> None:
        """Samples all that was submitted, then has the server load other weights.

        So every sample is of one version. What is submitted meanwhile waits for the new
        one. Some tokens are sampled to compare their log-probabilities with those of
        `Model.apply`. When anything fails, nothing is sampled until other weights are
        published. Weights that the server has already are not exported again, and keep
        their version.

        Args:
          params: of `Model.init`, perhaps with adapters (`fdjax.model.adapt`).
          version: what samples will say.

        Raises:
          SamplingError: the weights cannot be exported, the server does not hold them,
            or gives other log-probabilities.
          SamplerClosedError: it was closed.
        """
        with self._publishing:
            with self._lock:
                self._check_open()
                if self._published.has(params):
                    return
                self._published.forget()
                before, self._weights = self._weights, self._loop.create_future()
            try:
                self._do(self._settled(before))
                served = self._exports.write(params, version)
                self._do(self._engine.load(served))
                self._compare(params, served)
            except BaseException as error:
                self._found(
                    SamplingError(
                        f"expected weights of version {version} on the server, got "
                        f"{error!r} when they were published: publish again"
                    )
                )
                raise
            self._found(served)
            self._published.note(params)
            self._exports.drop(keep=1)

    def rest(self) -> None:
        """Waits until all that was submitted is done; the server's memory is its own.

        Raises:
          SamplerClosedError: it was closed.
        """
        self.drain()

    def drain(self) -> None:
        """Waits until all that was submitted is done."""
        self._do(self._settled(self._weights))

    def close(self) -> None:
        """Fails what is pending, ends all connections and removes what was exported."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        ended = asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        ended.result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        with self._publishing:
            self._exports.drop(keep=0)

    def __enter__(self) -> "ServerSampler":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _found(self, weights: Served | FdjaxError) -> None:
        """What was submitted since the last `publish` is sampled, or fails."""
        with self._lock:
            if not self._closed:
                done = self._weights.set_result
                self._loop.call_soon_threadsafe(done, weights)

    def _check_open(self) -> None:
        if self._closed:
            raise SamplerClosedError(_CLOSED)

    def _check_length(self, request: Request) -> None:
        longest = self._model.config.max_position_embeddings
        if request.prompt + request.budget > longest:
            raise DataError(
                f"expected prompt and completion to fit the model's {longest} "
                f"positions, got {request.prompt} + {request.budget}: ask for fewer"
            )

    def _do(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Runs it on the loop."""
        with self._lock:
            if self._closed:
                work.close()
                raise SamplerClosedError(_CLOSED)
            future = asyncio.run_coroutine_threadsafe(self._own(work), self._loop)
        try:
            return future.result()
        except CancelledError:
            raise SamplerClosedError(_CLOSED) from None
        finally:
            future.cancel()

    def _compare(self, params: Any, served: Served) -> None:
        """Whether the server computes as the trainer does."""
        prompt, tau = self._config.probe, self._sampling.temperature
        asked = Asked(
            prompt=[*prompt],
            budget=PROBE_TOKENS,
            temperature=tau,
            stops=frozenset(),
            seed=0 if self._config.seeded else None,
        )
        sample = self._do(self._engine.sample(asked, served))
        found = mean_distance(self._model, params, prompt, sample, tau)
        if not found <= self._config.tolerance:
            raise SamplingError(
                "expected the server's log-probabilities within "
                f"{self._config.tolerance:g} of the trainer's (ServerConfig.tolerance) "
                f"on average, got {found:.3g}: it has other weights, or gives those "
                "before the temperature (vLLM needs --logprobs-mode "
                "processed_logprobs, SGLang no SGLANG_RETURN_ORIGINAL_LOGPROB)"
            )

    # On the loop

    async def _own(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Runs it as a task that closing ends."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)
        return await work

    def _start(self, request: Request, weights: _Weights) -> None:
        task = self._loop.create_task(self._sample(request, weights))
        self._tasks[task] = weights
        task.add_done_callback(self._tasks.pop)

        def give_up(future: Future[Sample]) -> None:
            if future.cancelled():
                with suppress(RuntimeError):  # the loop has ended, and the task with it
                    self._loop.call_soon_threadsafe(task.cancel)

        request.future.add_done_callback(give_up)

    async def _sample(self, request: Request, weights: _Weights) -> None:
        """The request's future is done in the end."""
        future = request.future
        try:
            served = await asyncio.shield(weights)
            if isinstance(served, FdjaxError):
                raise served
            sample = await self._engine.sample(self._asked(request), served)
        except asyncio.CancelledError:
            _fail(future, SamplerClosedError(_CLOSED))
            raise
        # Whatever it is, whoever waits must learn of it.
        except Exception as error:  # noqa: BLE001
            _fail(future, error)
        else:
            if future.set_running_or_notify_cancel():
                future.set_result(sample)

    def _asked(self, request: Request) -> Asked:
        # 31 bits are what all servers take.
        seed = np.random.SeedSequence(request.key.tolist()).generate_state(1)[0] >> 1
        return Asked(
            prompt=request.tokens[: request.prompt].tolist(),
            budget=request.budget,
            temperature=request.temperature,
            stops=self._stops,
            seed=int(seed) if self._config.seeded else None,
        )

    async def _settled(self, weights: _Weights) -> None:
        """Waits for the requests that are sampled with these weights."""
        while mine := [task for task, own in self._tasks.items() if own is weights]:
            await asyncio.wait(mine)

    async def _end(self) -> None:
        # Not all tasks: those of httpx are ended by those that began them.
        under_way = [*self._tasks]
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await self._engine.aclose()


def _fail(future: Future[Sample], error: Exception) -> None:
    if not future.done() and future.set_running_or_notify_cancel():
        future.set_exception(error)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
