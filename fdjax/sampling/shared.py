"""A sampler that several processes drive together: what one asks for, all sample."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jaxtyping import Int, Key

from fdjax.encoding import decode, encode
from fdjax.errors import PeerError
from fdjax.sampling.config import SamplingConfig
from fdjax.sampling.sampler import Sample
from fdjax.sampling.slots import SlotSampler
from fdjax.sharding import gather

__all__ = ["SharedSampler"]

_PAUSE_S = 0.05
"""Longest wait for this process's own work before it hears from the others again."""
_BEAT_S = 1.0
"""The same before there is anything to sample; who is done waits for the others so long
in the exchange, where no signal is answered."""


@dataclass(frozen=True, eq=False, kw_only=True)
class _Asked:
    """A request of this process that the others have not heard of."""

    prompt: list[int]
    key: Key[jax.Array, ""]
    max_new_tokens: int
    temperature: float | None
    future: Future[Sample] = field(default_factory=Future)

    def told(self) -> dict[str, Any]:
        """For the others."""
        return {
            "prompt": self.prompt,
            "key": np.asarray(jax.random.key_data(self.key)).tolist(),
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature,
        }


class SharedSampler:
    """A `Sampler` over the devices of all processes.

    Episodes are played where they are judged: each process asks for its own. Between
    steps all tell each other, once, what was asked for, cancelled or is over, and each
    submits all of it in the order of the processes. So all run the same programs in the
    same order, whatever came when. A sample goes to the process that asked.

    `publish`, `rest` and `serve` are collectives: all processes call them, in the
    thread that drives their devices. A process has served once all are done.
    """

    def __init__(
        self, inner: SlotSampler, *, stopping: Callable[[], bool] = lambda: False
    ) -> None:
        """Asks nobody yet.

        Args:
          inner: what all processes have alike; nobody else may ask it.
          stopping: whether this process was told to stop; then `serve` ends for all,
            though its own work may be done.
        """
        self._inner, self._stopping = inner, stopping
        self._taking, self._wake = threading.RLock(), threading.Event()
        self._asked: list[_Asked] = []
        self._own: dict[int, Future[Sample]] = {}
        """Futures of this process that the others know of, by number."""
        self._under_way: dict[tuple[int, int], Future[Sample]] = {}
        """Of all processes: (process, number) to the sampler's own future."""
        self._number = 0

    @property
    def sampling(self) -> SamplingConfig:
        """See `Sampler.sampling`."""
        return self._inner.sampling

    def submit(
        self,
        prompt: Sequence[int] | Int[np.ndarray, " S"],
        key: Key[jax.Array, ""],
        *,
        max_new_tokens: int,
        temperature: float | None = None,
    ) -> Future[Sample]:
        """See `Sampler.submit`; the key is one of this process alone."""
        asked = _Asked(
            prompt=np.asarray(prompt).tolist(),
            key=key,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
        )
        with self._taking:
            self._asked.append(asked)
        self._wake.set()
        return asked.future

    @contextmanager
    def together(self) -> Iterator[None]:
        """See `Sampler.together`."""
        with self._taking:
            yield

    def publish(self, params: Any, version: int) -> None:
        """See `Sampler.publish`."""
        self._inner.publish(params, version)

    def rest(self) -> None:
        """See `Sampler.rest`."""
        self._inner.rest()

    def held_bytes(self, params: Any) -> Mapping[str, int]:
        """See `SlotSampler.held_bytes`."""
        return self._inner.held_bytes(params)

    def close(self) -> None:
        """See `SlotSampler.close`; by each process for itself."""
        self._inner.close()

    def serve(self, until: Future[Any]) -> None:
        """Samples for all processes until the futures of all are done.

        Nobody begins before every process has asked for something or is done: what is
        sampled together does not depend on who was first. Until then, too, each hears
        from the others all the time.

        Raises:
          CancelledError: the future of a process was cancelled, or it was told to stop;
            so are all.
          PeerError: the future of another process failed; this one's was cancelled.
        """
        until.add_done_callback(lambda _: self._wake.set())
        begun = False
        while True:
            self._wake.clear()
            facts = self._exchange(until, begun=begun)
            if self._over(until, facts):
                return
            if begun:
                if not self._inner.step():
                    self._wake.wait(_PAUSE_S)
                continue
            begun = all(fact["ready"] for fact in facts)
            if not facts[jax.process_index()]["ready"]:
                self._wake.wait(_BEAT_S)

    def _over(self, until: Future[Any], facts: Sequence[Mapping[str, Any]]) -> bool:
        """Whether all are done, or this one failed; raises where others end it."""
        if any(fact["stopped"] for fact in facts):
            self._forget()
            until.cancel()
            raise CancelledError
        failed = {
            process: fact["failed"]
            for process, fact in enumerate(facts)
            if fact["failed"]
        }
        if not failed:
            return all(fact["done"] for fact in facts)
        self._forget()
        if jax.process_index() in failed:
            return True
        until.cancel()
        process, reason = next(iter(failed.items()))
        raise PeerError(f"Process {process} failed: {reason}")

    def _exchange(self, until: Future[Any], *, begun: bool) -> list[dict[str, Any]]:
        """Tells and hears what is new; once begun, submits what any asked for."""
        with self._taking:
            ready, asked = until.done() or bool(self._asked), []
            if begun:
                asked, self._asked = self._asked, []
        cancelled = [n for n, future in self._own.items() if future.cancelled()]
        done, stopped = until.done(), until.cancelled() or self._stopping()
        failure = until.exception() if done and not until.cancelled() else None
        told = {
            "ready": ready,
            "done": done,
            "stopped": stopped,
            "failed": failure and f"{type(failure).__name__}: {failure}",
            "first": self._number,
            "asked": [one.told() for one in asked],
            "cancelled": cancelled,
        }
        for one in asked:
            self._own[self._number] = one.future
            self._number += 1
        facts = [decode(fact) for fact in gather(encode(told))]
        with self._inner.together():
            for process, fact in enumerate(facts):
                self._take(process, fact)
        return facts

    def _take(self, process: int, fact: dict[str, Any]) -> None:
        """Submits what a process asked for, and lets go of what it cancelled."""
        for number, asked in enumerate(fact["asked"], fact["first"]):
            data = jax.device_put(np.array(asked["key"], np.uint32))
            sampled = self._inner.submit(
                asked["prompt"],
                jax.random.wrap_key_data(data),
                max_new_tokens=asked["max_new_tokens"],
                temperature=asked["temperature"],
            )
            self._under_way[process, number] = sampled
            sampled.add_done_callback(
                lambda done, place=(process, number): self._hand_over(place, done)
            )
        for number in fact["cancelled"]:
            if process == jax.process_index():
                del self._own[number]
            if (sampled := self._under_way.pop((process, number), None)) is not None:
                sampled.cancel()

    def _hand_over(self, place: tuple[int, int], done: Future[Sample]) -> None:
        """A sample, or what went wrong with it, to the future of whoever asked."""
        self._under_way.pop(place, None)
        process, number = place
        if process != jax.process_index() or done.cancelled():
            return
        future = self._own.pop(number, None)
        if future is None or not future.set_running_or_notify_cancel():
            return
        if (error := done.exception()) is not None:
            future.set_exception(error)
        else:
            future.set_result(done.result())

    def _forget(self) -> None:
        """Lets go of everything that is asked for."""
        with self._taking:
            asked, self._asked = self._asked, []
        for one in asked:
            one.future.cancel()
        for sampled in list(self._under_way.values()):
            sampled.cancel()
        self._under_way.clear()
        for future in self._own.values():
            future.cancel()
        self._own.clear()
