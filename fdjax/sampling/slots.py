"""The sampler in this process: slots that are filled again as soon as they are free."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import jax
import numpy as np
from jax.sharding import (
    Mesh,
    NamedSharding,
    PartitionSpec,
    Sharding,
    SingleDeviceSharding,
)
from jaxtyping import Int, Key

from fdjax.errors import ConfigError, FdjaxError
from fdjax.model import Model
from fdjax.sampling.arrays import Sizes, pack_blocks, pack_slots
from fdjax.sampling.config import SamplingConfig, SlotsConfig
from fdjax.sampling.draw import Drawn
from fdjax.sampling.memory import held_bytes
from fdjax.sampling.pool import Pool
from fdjax.sampling.programs import decode_program, prefill_program
from fdjax.sampling.published import Published
from fdjax.sampling.request import Limits, Request
from fdjax.sampling.sampler import Sample, SamplerClosedError
from fdjax.sampling.schedule import Row, Schedule
from fdjax.sampling.stop_strings import StopStrings
from fdjax.sampling.weights import Weights, copy_shapes
from fdjax.sharding import batch_parts, place_alike

__all__ = ["SlotSampler", "SlotUse"]

_LOG = logging.getLogger(__name__)
_CLOSED = "expected an open sampler, got one that was closed: make another"


@dataclass(frozen=True, kw_only=True)
class SlotUse:
    """What a sampler has done since it was made."""

    steps: int = 0
    """Tokens that each slot could have drawn."""
    drawn: int = 0
    """Tokens that slots have drawn; another for each request comes after its prompt."""
    slots: int
    computed: int = 0
    """Tokens of prompts that were computed."""
    reused: int = 0
    """Tokens of prompts that were found in pages."""
    preempted: int = 0
    """Rows that gave their pages back, and went on later."""
    programs: int = 0
    """Compiled shapes."""

    @property
    def busy(self) -> float:
        """Share of slots' steps that drew a token; 1 where none was made."""
        return self.drawn / (self.steps * self.slots) if self.steps else 1.0


class SlotSampler:
    """A `Sampler` of this process, driven by its caller: `step`, `drain` or `serve`.

    Requests wait in a queue for one of a fixed number of slots. All slots are decoded
    together; as soon as a row ends, whoever waits gets its slot. Prompts are computed
    by pages, a few between steps of decoding, and what is known already is not computed
    again: a group's prompt, or an episode's last turn.

    The caller drives it, and no thread of its own does: which program runs next follows
    from what was submitted and published so far, not from when. So processes that make
    the same calls run the same programs in the same order, as a pod needs. `submit` may
    be called from other threads meanwhile; futures are done from within `step`.

    The tokens of a request are a function of weights, prompt and key. To the last bit
    of the logits they are not: a product may round differently elsewhere in a batch, or
    where a prefix was decoded rather than read. In float32 that is 5e-5 of a
    log-probability, and no token changed in any test.
    """

    def __init__(
        self,
        model: Model,
        sampling: SamplingConfig,
        config: SlotsConfig,
        mesh: Mesh | None = None,
        *,
        stop_strings: StopStrings | None = None,
    ) -> None:
        """Takes no memory of the devices yet: `publish` does.

        Args:
          model: the decoder.
          sampling: how to draw; its `max_new_tokens` is the most that may be asked for,
            its `temperature` that of requests which name none.
          config: slots and pages.
          mesh: slots and pages are cut over its batch axes, heads over `tensor`. It may
            have the training mesh's devices in another shape. Without one everything
            happens on the first device.
          stop_strings: end rows beside the tokens of `sampling` that do.

        Raises:
          ConfigError: the model has not that many positions or tokens, or slots or
            weights do not divide over the mesh.
        """
        most, size = model.config.max_position_embeddings, model.config.vocab_size
        if config.longest > most:
            raise ConfigError(
                f"expected SlotsConfig.longest within the model's {most} positions, "
                f"got {config.longest}"
            )
        if beyond := {token for token in sampling.stop_tokens if token >= size}:
            raise ConfigError(
                f"expected stop_tokens below the model's vocabulary size, {size}, got "
                f"{sorted(beyond)}: they are those of another tokenizer"
            )
        parts = 1 if mesh is None else batch_parts(mesh)
        if config.slots % parts:
            raise ConfigError(
                f"expected SlotsConfig.slots to divide by the {parts} parts of the "
                f"mesh's batch, got {config.slots}"
            )
        count = config.pages(parts)
        self._model, self._sampling = Model(model.config, mesh), sampling
        # Better an error now than with the first weights.
        copy_shapes(self._model, jax.eval_shape(self._model.init, jax.random.key(0)))
        self._limits = Limits(
            budget=sampling.max_new_tokens,
            longest=min(config.longest, (count - 1) * config.page),
            vocabulary=size,
        )
        self._sizes = Sizes(
            slots=config.slots // parts,
            page=config.page,
            columns=config.columns,
            words=jax.random.key_data(jax.random.key(0)).size,
        )
        self._config, self._parts = config, parts
        self._schedule = Schedule(
            [Pool(count, config.page) for _ in range(parts)], self._sizes.slots
        )
        self._layout: Sharding = SingleDeviceSharding(jax.local_devices()[0])
        if mesh is not None:
            self._layout = NamedSharding(mesh, PartitionSpec())
        self._stops, self._strings = frozenset(sampling.stop_tokens), stop_strings
        self._params: Any = None
        self._pages: Any = None
        self._version, self._weights = 0, Weights(self._model)
        self._published = Published()
        self._lock, self._stepping = threading.Lock(), threading.RLock()
        self._wake, self._closed = threading.Event(), False
        self._halted = ""
        self._inbox: list[Request] = []
        self._number = self._steps = self._drawn = self._computed = 0
        self._programs: set[str] = set()

    @property
    def sampling(self) -> SamplingConfig:
        """See `Sampler.sampling`."""
        return self._sampling

    def submit(
        self,
        prompt: Sequence[int] | Int[np.ndarray, " S"],
        key: Key[jax.Array, ""],
        *,
        max_new_tokens: int,
        temperature: float | None = None,
    ) -> Future[Sample]:
        """See `Sampler.submit`. A future that is cancelled frees its slot."""
        if temperature is None:
            temperature = self._sampling.temperature
        with self._lock:
            number, self._number = self._number, self._number + 1
            try:
                self._check_open()
                request = Request.make(
                    number, prompt, key, max_new_tokens, temperature, self._limits
                )
            except FdjaxError as error:
                failed: Future[Sample] = Future()
                failed.set_exception(error)
                return failed
            self._inbox.append(request)
        self._wake.set()
        return request.future

    @contextmanager
    def together(self) -> Iterator[None]:
        """See `Sampler.together`."""
        with self._stepping:
            yield

    def publish(self, params: Any, version: int) -> None:
        """Samples all that was submitted, then takes other weights.

        So every sample is of one version. Old weights are dropped before new ones come.
        Those that it has already are not copied again, nor is a base under adapters.
        After `rest`, or after sampling broke down, pages are allocated anew.

        Args:
          params: of `Model.init`, perhaps with adapters (`fdjax.model.adapt`); copied
            on the devices, so that training may donate them.
          version: what samples will say.

        Raises:
          SamplerClosedError: it was closed.
        """
        with self._stepping:
            if self._closed:
                raise SamplerClosedError(_CLOSED)
            if self._params is not None:
                self.drain()
            self._version = version
            if self._published.has(params):
                return
            self._forget()
            self._params = self._weights.copy(params)
            if self._pages is None:
                self._pages = self._empty_pages()
            self._published.note(params)
            self._halted = ""

    def rest(self) -> None:
        """See `Sampler.rest`: weights and pages go, compiled programs stay.

        Raises:
          SamplerClosedError: it was closed.
        """
        with self._stepping:
            self._check_open()
            if self._params is not None:
                self.drain()
            self._free()

    def step(self) -> bool:
        """Computes some pages of prompts, if any wait, and some tokens of all slots.

        Returns:
          Whether anything is left to do.

        Raises:
          ConfigError: no weights were published.
          SamplerClosedError: it was closed.
        """
        with self._stepping:
            return self._step()

    def drain(self) -> None:
        """Samples until nothing is left to do."""
        while self.step():
            pass

    def serve(self, until: Future[Any]) -> None:
        """See `Sampler.serve`.

        Raises:
          SamplerClosedError: it was closed.
        """
        until.add_done_callback(lambda _: self._wake.set())
        while not until.done():
            self._wake.clear()
            if not self.step() and not until.done():
                self._wake.wait()

    def use(self) -> SlotUse:
        """What it has done so far."""
        return SlotUse(
            steps=self._steps,
            drawn=self._drawn,
            slots=self._config.slots,
            computed=self._computed,
            reused=self._schedule.reused,
            preempted=self._schedule.preempted,
            programs=len(self._programs),
        )

    def held_bytes(self, params: Any) -> Mapping[str, int]:
        """Bytes on the fullest device from `publish` to `rest`: weights and pages.

        Args:
          params: what would be published, or its shapes.
        """
        return held_bytes(self._model, self._config, params)

    def close(self) -> None:
        """Fails what is pending, and lets go of weights and pages."""
        with self._stepping:
            self._closed = True
            self._halt(_CLOSED)

    def __enter__(self) -> "SlotSampler":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._halted:
            raise SamplerClosedError(self._halted)

    def _forget(self) -> None:
        """It has no weights now, and so no page holds anything that can be shared."""
        self._published.forget()
        self._params = None
        for pool in self._schedule.pools:
            pool.forget()

    def _free(self) -> None:
        """Lets go of all that it has on the devices."""
        self._forget()
        self._weights.drop()
        self._pages = None

    def _empty_pages(self) -> Any:
        count, size = self._config.pages(self._parts), self._config.page
        pages = self._model.init_pages(count, size)
        if self._model.mesh is not None:
            return pages
        # Bound to its device from the start: else the first call compiles twice.
        return jax.device_put(pages, self._layout)

    def _step(self) -> bool:
        self._check_open()
        with self._lock:
            self._schedule.queue.extend(self._inbox)
            self._inbox.clear()
        if not self._pending():
            return False
        if self._params is None:
            raise ConfigError("expected weights to sample with: call publish first")
        try:
            self._schedule.admit()
            if any(self._schedule.blocks):
                self._prefill()
            self._decode()
        except BaseException as error:
            # The pages were donated: nothing of this can go on.
            self._halt(f"sampling broke down: {error!r}; publish weights to go on")
            raise
        return bool(self._pending() or self._inbox)

    def _pending(self) -> bool:
        return bool(self._schedule.queue) or any(self._schedule.rows())

    def _prefill(self) -> None:
        """Some blocks, and the next token of the rows whose last they are."""
        taken = self._schedule.next_blocks(self._config.blocks)
        width = 1 << (max(map(len, taken)) - 1).bit_length()
        arrays, placed = pack_blocks(taken, width, self._sizes)
        program = prefill_program(self._model, self._sampling)
        (drawn,) = self._run(f"{width} blocks", program, arrays)
        for place, block in placed:
            self._computed += len(block.tokens)
            if block.last:
                self._append(block.row, drawn, slice(place, place + 1))

    def _decode(self) -> None:
        """Some tokens of all rows that are ready; one where prompts wait.

        Then only if as many rows are ready as are not: a step costs the same for all
        slots, and prompts are soon through.
        """
        for row in self._schedule.ready():
            if row.request.future.cancelled():
                self._schedule.leave(row)
        waiting = any(self._schedule.blocks)
        if waiting and 2 * len(self._schedule.ready()) < len([*self._schedule.rows()]):
            return
        steps = 1 if waiting else self._config.steps
        self._schedule.reserve(steps)
        rows = self._schedule.ready()
        if not rows:
            return
        arrays, placed = pack_slots(rows, self._parts, self._sizes)
        program = decode_program(self._model, self._sampling, self._config.steps)
        wake = np.bool_(bool(self._schedule.queue))
        drawn, counts = self._run("slots", program, arrays, np.int32(steps), wake)
        self._steps += int(counts.max())
        self._drawn += int(counts.sum())
        for place, row in placed:
            count = int(counts[place])
            self._append(row, drawn, (slice(count), place), written=count)

    def _run(self, name: str, program: Callable[..., Any], *arguments: Any) -> Any:
        """What the program returns beside the pages, on the host."""
        if name not in self._programs:
            self._programs.add(name)
            _LOG.info("sampling compiles program %d: %s", len(self._programs), name)
        placed = place_alike(arguments, self._layout)
        self._pages, *found = program(self._params, self._pages, *placed)
        return jax.device_get(found)

    def _append(self, row: Row, drawn: Drawn, index: Any, written: int = 0) -> None:
        """Gives a row its tokens, and whoever asked for them the sample if it ended."""
        row.request.append(Drawn(*(field[index] for field in drawn)))
        self._schedule.wrote(row, written)
        sample = row.request.sample(self._stops, self._strings, self._version)
        if sample is not None:
            self._schedule.leave(row)
            future = row.request.future
            # From here on it can no longer be cancelled.
            if future.set_running_or_notify_cancel():
                future.set_result(sample)

    def _halt(self, reason: str) -> None:
        """Samples no more; whoever waits learns why, and whoever asks from now on."""
        with self._lock:
            self._halted = reason
            waiting = [*self._schedule.clear(), *self._inbox]
            self._inbox.clear()
        self._free()
        self._wake.set()
        for future in (request.future for request in waiting):
            if not future.done() and future.set_running_or_notify_cancel():
                future.set_exception(SamplerClosedError(reason))
