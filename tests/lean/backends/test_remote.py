"""The backend that asks an `fdjax serve`, against servers in other processes."""

import socket
import sys
import threading
import time
from dataclasses import replace

import pytest

from fdjax.errors import BackendError, ConfigError, InstallError
from fdjax.lean import (
    CheckRequest,
    Limits,
    Problem,
    RemoteBackend,
    RunRequest,
    Status,
    Verifier,
    WasmBackend,
    WholeFile,
    WorkerDiedError,
)
from serving import Server

PROBLEM = Problem(name="t", statement="theorem t (p q : Prop) (h : p ∧ q) : q ∧ p")
REQUEST = CheckRequest(
    name="t", header="", statement=PROBLEM.statement, proof="  exact ⟨h.2, h.1⟩"
)
FAKE = replace(REQUEST, proof="trivial")


@pytest.fixture(scope="module")
def real(lean_folder):
    with Server.command("--workers", "1") as server:
        yield server


@pytest.fixture(scope="module")
def fake():
    with Server.fake(server={"token": "secret"}, identity="fake/1") as server:
        yield server


@pytest.fixture
def remote(fake):
    remote = RemoteBackend(fake.url, token="secret", patience_s=2.0)
    yield remote
    remote.close()


@pytest.mark.parametrize(
    "request_",
    [
        REQUEST,
        replace(REQUEST, proof="  exact h"),
        replace(REQUEST, proof="  sorry"),
        replace(REQUEST, proof=None),
        replace(REQUEST, statement="theorem t : foo"),
        replace(REQUEST, proof=WholeFile("axiom a : False\ntheorem t : False := a")),
        replace(REQUEST, limits=Limits(wall_s=2.0, output_bytes=10)),
        RunRequest(source="#check Nat\ntheorem t : 1 = 2 := sorry"),
    ],
)
def test_the_facts_are_those_of_a_local_lean(real, wasm, request_):
    remote = RemoteBackend(real.url)
    try:
        there = remote.check(request_)
    finally:
        remote.close()
    here = wasm.check(request_)
    assert replace(there, seconds=0.0) == replace(here, seconds=0.0)
    assert remote.identity == WasmBackend().identity


def test_a_verifier_over_it(real):
    proofs = ["  exact ⟨h.2, h.1⟩", "  exact h", "  sorry", "  exact h.symm"]
    expected = [Status.VERIFIED, Status.REJECTED, Status.REJECTED, Status.VERIFIED]
    with Verifier(lambda: RemoteBackend(real.url), workers=4) as verifier:
        verifier.start()
        items = [(PROBLEM, f"{proof}\n-- {i}") for i in range(5) for proof in proofs]
        verdicts = verifier.verify(items)
        assert verifier.identity == WasmBackend().identity
    assert [verdict.status for verdict in verdicts] == expected * 5


def test_a_crash_there_is_a_crash_here(remote):
    with pytest.raises(WorkerDiedError, match="killed"):
        remote.check(replace(FAKE, proof="die"))
    assert remote.check(FAKE).target


@pytest.mark.parametrize(
    ("token", "request_", "words"),
    [
        (None, FAKE, "401 Unauthorized.*Missing API key.*token"),
        ("wrong", FAKE, "401 Unauthorized.*Invalid API key"),
        ("secret", replace(FAKE, limits=Limits(wall_s=99)), "422 .*wall_s <= 10"),
        ("secret", replace(FAKE, proof="x" * (17 << 20)), "413 .*at most 16777216"),
    ],
)
def test_a_refusal_is_an_error(fake, token, request_, words):
    backend = RemoteBackend(fake.url, token=token)
    with pytest.raises(BackendError, match=words) as caught:
        backend.check(request_)
    assert not isinstance(caught.value, WorkerDiedError)
    backend.close()


def test_another_identity_is_an_error():
    with Server.fake(identity="fake/1") as first:
        backend = RemoteBackend(first.url)
        assert backend.check(FAKE).target
        assert backend.identity == "fake/1"
        port = first.port
    with Server.fake(identity="fake/2", port=port):
        with pytest.raises(BackendError, match=r"answers of fake/1, got one of fake/2"):
            backend.check(FAKE)
        with pytest.raises(BackendError, match=r"answers of fake/1, got one of fake/2"):
            backend.start()
    backend.close()


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(InstallError, match=r"httpx.*pip install fdjax\[serve\]"):
        RemoteBackend("http://127.0.0.1:9")


def test_nobody_there():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    backend = RemoteBackend(url, patience_s=0.3)
    # A batch must fail as a whole, not proof by proof as if each had crashed Lean.
    for ask in (backend.start, lambda: backend.check(FAKE)):
        with pytest.raises(
            BackendError, match=r"expected an answer.*start the server"
        ) as caught:
            ask()
        assert not isinstance(caught.value, WorkerDiedError)
    backend.close()


def test_a_lean_that_cannot_start_there_is_no_crash_here(tmp_path):
    broken = tmp_path / "broken"
    with Server.fake(broken=str(broken)) as server:
        with Verifier(lambda: RemoteBackend(server.url), workers=2) as verifier:
            broken.touch()
            threading.Timer(1.0, broken.unlink).start()
            [verdict] = verifier.verify([(PROBLEM, "trivial")])
            assert verdict.verified
        broken.touch()
        backend = RemoteBackend(server.url, patience_s=1.0)
        with pytest.raises(BackendError, match=r"/ready.*at last 503") as caught:
            backend.check(FAKE)
        assert not isinstance(caught.value, WorkerDiedError)
        backend.close()


def test_what_is_no_address_is_an_error():
    with pytest.raises(ConfigError, match=r"http\(s\)://host\[:port\], got 'foo'"):
        RemoteBackend("foo")


def test_an_answer_of_another_shape_is_an_error(remote, monkeypatch):
    monkeypatch.setattr("fdjax.lean.backends.remote.IDENTITY_PATH", "/health")
    with pytest.raises(BackendError, match="expected the answer of an fdjax serve"):
        remote.start()


def test_interrupt_ends_a_check(remote):
    timer = threading.Timer(0.2, remote.interrupt)
    timer.start()
    begin = time.monotonic()
    with pytest.raises(WorkerDiedError, match="interrupted"):
        remote.check(replace(FAKE, proof="sleep 3000"))
    assert time.monotonic() - begin < 2
    timer.join()


def test_a_saturated_server_loses_nothing():
    """More is sent at once than the server admits."""
    settings = {"max_items": 2, "max_pending": 2, "retry_after_s": 1}
    words = ["trivial", "no"] * 20
    items = [(PROBLEM, f"{word} sleep 20 {i}") for i, word in enumerate(words)]
    with (
        Server.fake(server=settings, workers=2) as server,
        Verifier(lambda: RemoteBackend(server.url), workers=6) as verifier,
    ):
        verdicts = verifier.verify(items)
        refused = 'fdjax_requests_total{route="/v1/check",status="429"}'
        assert server.metric(refused) > 0
    assert [verdict.verified for verdict in verdicts] == [True, False] * 20
