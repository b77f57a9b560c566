"""Lean on the nodes of a Ray cluster: each backend owns one actor somewhere."""

import importlib
import logging
import os
import re
import socket
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from fdjax.errors import BackendError, FdjaxError, InstallError
from fdjax.lean.facts.backend import Backend, RawReport, Request, WorkerDiedError

__all__ = ["RayBackend"]

_log = logging.getLogger(__name__)

T = TypeVar("T")

CONNECT_S = 10.0
"""What a TCP connection to the cluster may take; Ray itself waits for many minutes."""
POLL_S = 1.0
"""How often a backend that waits for a place looks for an idle actor to take over."""
CLOSE_S = 5.0
"""What an actor may take to end its Lean before it is killed."""
MESSAGE_LENGTH = 400

_HOST_AND_PORT = re.compile(r"([\w.-]+):(\d+)")

_backends: "weakref.WeakSet[RayBackend]" = weakref.WeakSet()
_lock = threading.Lock()
"""Guards `_backends` and the connection to the cluster."""


class RayBackend:
    """A backend that runs on some node of a Ray cluster.

    It behaves as the backend that it carries. What a proof does ends the Lean process
    inside the actor and is reported as always; when the actor itself or its node is
    lost, that is nothing the proof did: the request is sent to a fresh actor on
    another node, `max_losses` times before it counts as one death.

    A backend that finds no place for its actor, because nodes were lost and have not
    come back, takes over an idle one of a backend with the same arguments in this
    process. So a batch ends as long as one actor lives.

    The node with Ray's control service (the head) and this process must live.

    The embedded Lean on sixteen cores of the cluster that runs here:
    `Verifier(lambda: RayBackend(WasmBackend, address="auto"), workers=16)`.
    """

    def __init__(
        self,
        factory: Callable[[], Backend],
        *,
        address: str | None = None,
        num_cpus: float = 1.0,
        memory_mb: int = 2048,
        resources: Mapping[str, float] | None = None,
        runtime_env: Mapping[str, Any] | None = None,
        max_losses: int = 3,
        start_timeout_s: float = 600.0,
        patience_s: float = 300.0,
    ) -> None:
        """Prepare; `start` does the work.

        Args:
          factory: makes the real backend, here for its identity and in the actor for
            its work. It is pickled; every node needs fdjax and what the backend needs
            (`lambda: WasmBackend(install())` installs the embedded Lean on each).
          address: the cluster; by default `RAY_ADDRESS`, else a new one on this
            machine. Not used when this process is connected already.
          num_cpus: cores that the actor reserves.
          memory_mb: memory that the actor reserves, in MiB; Ray does not enforce it.
          resources: custom resources that the actor reserves.
          runtime_env: Ray's runtime environment of the actor.
          max_losses: how often one request may lose its actor or node.
          start_timeout_s: longest wait for a place and for Lean's start, seconds.
          patience_s: longest wait for an answer beyond the request's `wall_s`: Lean's
            start, header and statement. A node that needs longer counts as lost.
        """
        self._factory = factory
        self._address = address
        self._options: dict[str, Any] = {
            "num_cpus": num_cpus,
            "memory": memory_mb * 2**20,
            "resources": dict(resources or {}),
            "runtime_env": dict(runtime_env or {}),
            "scheduling_strategy": "SPREAD",
            # A restarted actor would answer from the same node, without our knowing.
            "max_restarts": 0,
            "max_task_retries": 0,
        }
        self._max_losses = max_losses
        self._start_timeout_s = start_timeout_s
        self._patience_s = patience_s
        self._identity = factory().identity
        self._actor: Any = None
        self._busy = threading.Lock()
        self._interrupted = threading.Event()
        self.losses = 0
        """How often an actor or its node was lost since this backend was made."""
        with _lock:
            _backends.add(self)

    @property
    def identity(self) -> str:
        """The real backend's; nodes where it differs are refused."""
        return self._identity

    def start(self) -> None:
        """Place a fresh actor on the cluster and wait until its Lean can check.

        Raises:
          InstallError: Ray is not installed here, or Lean not on the node.
          BackendError: no cluster, no free place, another Lean on the node than here.
        """
        with self._busy:
            self._interrupted.clear()
            self._kill()
            self._outlast_losses(lambda: self._place(may_borrow=False))

    def check(self, request: Request) -> RawReport:
        """Elaborate one request on the cluster.

        Raises:
          WorkerDiedError: the Lean process died, or too many nodes were lost.
          BackendError: no actor can be started.
        """
        with self._busy:
            self._interrupted.clear()
            return self._outlast_losses(lambda: self._check(request))

    def interrupt(self) -> None:
        """Kill the actor; a running `check` raises `WorkerDiedError`."""
        self._interrupted.set()
        actor = self._actor
        if actor is not None:
            _kill(actor)

    def close(self) -> None:
        """End Lean and the actor."""
        with self._busy:
            if self._actor is not None:
                ray = _ray()
                with suppress(ray.exceptions.RayError):
                    ray.wait([self._actor.close.remote()], timeout=CLOSE_S)
            self._kill()

    def _outlast_losses(self, attempt: Callable[[], T]) -> T:
        exceptions = _ray().exceptions
        loss: Exception | None = None
        for _ in range(self._max_losses + 1):
            try:
                return attempt()
            except exceptions.RayTaskError as error:
                # Raised by Python code in the actor; another node has the same.
                self._kill()
                raise _broken(error) from error
            except exceptions.RayError as error:
                self._kill()
                if getattr(error, "actor_init_failed", False):
                    raise _broken(error) from error
                loss = error
            if self._interrupted.is_set():
                raise WorkerDiedError("The actor was interrupted.", innocent=True)
            self.losses += 1
            _log.warning("a Ray actor was lost and is replaced: %s", _in_short(loss))
        raise WorkerDiedError(
            f"The request lost its Ray actor {self._max_losses + 1} times: "
            f"{_in_short(loss)}"
        )

    def _check(self, request: Request) -> RawReport:
        actor = self._actor or self._place(may_borrow=True)
        answer = _ray().get(
            actor.check.remote(request),
            timeout=request.limits.wall_s + self._patience_s,
        )
        if isinstance(answer, FdjaxError):
            raise answer
        return answer

    def _place(self, *, may_borrow: bool) -> Any:
        """An actor whose Lean runs; it is this backend's from now on."""
        ray = _ray()
        _connect(ray, self._address)
        actor = ray.remote(_Carrier).options(**self._options).remote(self._factory)
        self._actor = actor
        started = actor.start.remote()
        deadline = time.monotonic() + self._start_timeout_s
        while not ray.wait([started], timeout=POLL_S)[0]:
            if may_borrow and (idle := self._borrow()) is not None:
                _kill(actor)
                self._actor = idle
                return idle
            if time.monotonic() > deadline:
                self._kill()
                raise BackendError(
                    "RayBackend: expected a place for an actor with "
                    f"{self._options['num_cpus']:g} CPUs and "
                    f"{self._options['memory'] // 2**20} MiB, with Lean ready, within "
                    f"{self._start_timeout_s:g} s, got none; the cluster has "
                    f"{ray.available_resources()} free. Add nodes or use fewer workers."
                )
        identity = ray.get(started)
        if isinstance(identity, FdjaxError):
            self._kill()
            raise identity
        if identity != self._identity:
            self._kill()
            raise BackendError(
                f"RayBackend: expected the backend {self._identity} on every node, got "
                f"{identity} on one; install the same fdjax and Lean everywhere."
            )
        return actor

    def _borrow(self) -> Any:
        """The actor of an idle backend of the same kind, None when all are in use."""
        with _lock:
            others = [b for b in _backends if b is not self and self._is_like(b)]
        for other in others:
            if (actor := other._lend()) is not None:
                return actor
        return None

    def _is_like(self, other: "RayBackend") -> bool:
        return self._factory == other._factory and self._options == other._options

    def _lend(self) -> Any:
        if not self._busy.acquire(blocking=False):
            return None
        try:
            actor, self._actor = self._actor, None
            return actor
        finally:
            self._busy.release()

    def _kill(self) -> None:
        actor, self._actor = self._actor, None
        if actor is not None:
            _kill(actor)


class _Carrier:
    """The actor: owns the real backend on its node.

    Our own errors travel as values; Ray would wrap them in classes of its own.
    """

    def __init__(self, factory: Callable[[], Backend]) -> None:
        self._factory = factory
        self._backend: Backend | None = None

    def start(self) -> str | FdjaxError:
        """Make and start the backend; returns its identity."""
        try:
            self._backend = self._factory()
            self._backend.start()
        except FdjaxError as error:
            return error
        return self._backend.identity

    def check(self, request: Request) -> RawReport | FdjaxError:
        """What the backend reports."""
        assert self._backend is not None
        try:
            return self._backend.check(request)
        except FdjaxError as error:
            return error

    def close(self) -> None:
        """End the Lean process."""
        if self._backend is not None:
            self._backend.close()


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise InstallError(
            "Verification on a Ray cluster needs the package ray, which is missing; "
            "run `pip install fdjax[ray]`."
        ) from error


def _connect(ray: Any, address: str | None) -> None:
    with _lock:
        if ray.is_initialized():
            return
        where = address or os.environ.get("RAY_ADDRESS") or "this machine"
        try:
            if found := _HOST_AND_PORT.fullmatch(where):
                host, port = found.groups()
                socket.create_connection((host, int(port)), CONNECT_S).close()
            ray.init(address=address, log_to_driver=False)
        except (OSError, ValueError) as error:
            raise BackendError(
                f"RayBackend: expected a Ray cluster at {where}, got: {error}; start "
                "one with `ray start --head`, or correct the address."
            ) from error


def _kill(actor: Any) -> None:
    ray = _ray()
    # After `ray.shutdown` there is nothing left to kill.
    with suppress(ray.exceptions.RayError):
        ray.kill(actor, no_restart=True)


def _broken(error: Exception) -> BackendError:
    return BackendError(
        "RayBackend: expected the actor to make its backend and to answer, got an "
        f"error on its node: {error}; every node needs the same Python, fdjax and "
        "modules of the factory."
    )


def _in_short(error: Exception | None) -> str:
    """Ray's messages have many lines; the first name the actor and the cause."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:MESSAGE_LENGTH]}"
