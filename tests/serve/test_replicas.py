"""Two replicas behind a load balancer; one is killed in the middle of a batch."""

import functools
import itertools
import os
import signal
import socket
import threading
from contextlib import suppress

import pytest

from fdjax.lean import Problem, RemoteBackend, Status, Verifier, WholeFile
from fdjax.lean.backends.http import JsonClient
from serving import Server, is_running, wait_until


class RoundRobin:
    """A TCP load balancer: each connection goes to the next replica that answers."""

    def __init__(self, replicas):
        self._replicas = itertools.cycle(replicas)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._host, self._port = self._listener.getsockname()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self):
        return f"http://{self._host}:{self._port}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, client):
        with client, self._connected() as replica:
            back = threading.Thread(target=pipe, args=(replica, client))
            back.start()
            pipe(client, replica)
            back.join()

    def _connected(self):
        for _ in range(2):
            server = next(self._replicas)
            with suppress(OSError):
                return socket.create_connection((server.host, server.port), timeout=5)
        return socket.socket()


def pipe(source, sink):
    with suppress(OSError):
        source.settimeout(None)
        while chunk := source.recv(65536):
            sink.sendall(chunk)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def replicas(lean):
    with (
        Server.command("--workers", "1") as first,
        Server.command("--workers", "1") as second,
    ):
        yield first, second


def batch(count):
    """Proofs of different theorems with the verdicts that they deserve."""
    items, expected = [], []
    for n in range(count):
        problem = Problem(name=f"t{n}", statement=f"theorem t{n} : {n} + 1 = {n + 1}")
        submission, status = [
            ("  rfl", Status.VERIFIED),
            ("  omega", Status.VERIFIED),
            (f"  exact absurd rfl (by decide : {n} ≠ {n})", Status.REJECTED),
            ("  sorry", Status.REJECTED),
            (WholeFile(f"{problem.statement} := by decide"), Status.VERIFIED),
            ("  run_tac pure ()", Status.UNSAFE),
        ][n % 6]
        items.append((problem, submission))
        expected.append(status)
    return items, expected


def test_a_killed_replica_loses_nothing(replicas):
    doomed, survivor = replicas
    below = doomed.children()
    items, expected = batch(240)
    killed = threading.Event()

    def kill(finished):
        if finished >= 120 and not killed.is_set():
            killed.set()
            os.kill(doomed.pid, signal.SIGKILL)

    with RoundRobin(replicas) as balancer:
        factory = functools.partial(RemoteBackend, balancer.url)
        with Verifier(factory, workers=4) as verifier:
            verdicts = verifier.verify(items, kill)
    assert killed.is_set()
    assert [verdict.status for verdict in verdicts] == expected
    # 200 proofs are asked for; both replicas had a part in them.
    assert 80 < survivor.metric('fdjax_items_total{outcome="observed"}') < 190
    assert wait_until(lambda: not any(map(is_running, below)), 10)


def test_clients_of_the_other_routes_may_come_to_either():
    """No request needs what an earlier one left behind."""
    item = {"name": "t", "statement": "theorem t : 2 + 2 = 4", "proof": "trivial"}
    answers = []
    with (
        Server.fake() as first,
        Server.fake() as second,
        RoundRobin([first, second]) as balancer,
    ):
        for _ in range(4):
            client = JsonClient(balancer.url)
            answers += client.post("/v1/verify", {"items": [item]})["verdicts"]
            client.close()
        for replica in (first, second):
            assert replica.metric('fdjax_items_total{outcome="verified"}') == 2
    assert [answer["status"] for answer in answers] == ["verified"] * 4
    assert [answer["cached"] for answer in answers] == [False, False, True, True]
