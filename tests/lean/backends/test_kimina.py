"""The Kimina client: real HTTP, faults on demand, and once a real Lean behind it."""

import asyncio
import threading
import time

import pytest

from fdjax.errors import BackendError, ConfigError
from fdjax.lean import Limits, Problem, Status, Verifier, WorkerDiedError
from fdjax.lean.backends.kimina import KiminaBackend, Patience
from fdjax.lean.facts.backend import RunRequest, WholeFile
from lean.asking import request, status
from lean.corpus import FAILURES, FALSE, GIVING_UP, SWAP, THEOREMS, TRUE
from lean.standin.kimina import KiminaStandIn
from serving import Server, wait_until


@pytest.fixture
def server(scripted_command):
    with KiminaStandIn(scripted_command) as server:
        yield server


@pytest.fixture
def client(server):
    backend = KiminaBackend(server.url, patience=Patience(queue_s=5.0))
    yield backend
    backend.close()


# ---- real Lean


def test_the_contract(kimina):
    items = [*THEOREMS, *FAILURES, *((FALSE, proof) for proof in GIVING_UP)]
    found = [status(kimina, *item) for item in items]
    rejected = len(FAILURES) + len(GIVING_UP)
    expected = [Status.VERIFIED] * len(THEOREMS) + [Status.REJECTED] * rejected
    assert found == expected


def test_no_character_ends_a_comment_on_the_way(kimina, kimina_server):
    # The server splits lines as Python does, Lean at "\n" only.
    for end in "\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029":
        proof = f"  rfl -- {end}#eval 1"
        kimina_server.requests.clear()
        assert status(kimina, TRUE, proof) is not Status.UNSAFE
        [sent] = kimina_server.requests
        [snippet] = sent["snippets"]
        assert snippet["code"].splitlines() == snippet["code"].split("\n")


def test_statements_files_and_positions(kimina):
    broken = Problem(name="t", statement="theorem t (x : ℕ) : x = x")
    assert "ℕ" in kimina.check(request(broken, None)).statement_error
    assert kimina.check(request(SWAP, None)).statement_error == ""
    missing = Problem(name="t", statement="theorem t : True", header="import Missing")
    assert (
        "cannot import Missing"
        in kimina.check(request(missing, "  trivial")).statement_error
    )
    file = WholeFile(f"{SWAP.statement} := by\n  exact ⟨h.2, h⟩")
    [error] = kimina.check(request(SWAP, file)).messages
    assert (error.line, error.column) == (2, 14)
    run = kimina.check(RunRequest(source="import Init\n\n#check Nat"))
    assert [(message.line, message.text) for message in run.messages] == [
        (3, "Nat : Type")
    ]


# ---- faults


def test_one_snippet_a_request_on_one_connection(client, server):
    for _ in range(3):
        assert status(client, TRUE, "  rfl") is Status.VERIFIED
    assert [len(body["snippets"]) for body in server.requests] == [1, 1, 1]
    assert len(server.connections) == 1


@pytest.mark.parametrize("fault", [(429,), (500,), (502,), "drop"])
def test_a_fault_is_retried(client, server, fault):
    server.faults.append(fault)
    assert status(client, TRUE, "  rfl") is Status.VERIFIED
    assert len(server.requests) == 2


def test_a_fault_costs_no_other_proof(server):
    server.faults.extend([(500,), None, (429,), None, "drop", None, "malformed"])
    items = [(TRUE, "  rfl" + "\n" * n) for n in range(12)]

    def client():
        return KiminaBackend(server.url)

    with Verifier(client, workers=4) as verifier:
        verdicts = verifier.verify(items)
    assert [verdict.status for verdict in verdicts] == [Status.VERIFIED] * 12


def test_the_server_says_when_to_come_back(client, server):
    server.faults.append((429, ("Retry-After", "1")))
    begin = time.monotonic()
    assert status(client, TRUE, "  rfl") is Status.VERIFIED
    assert time.monotonic() - begin >= 1


@pytest.mark.parametrize("fault", ["malformed", "empty"])
def test_what_is_no_answer_is_a_death(client, server, fault):
    server.faults.append(fault)
    with pytest.raises(WorkerDiedError, match="expected"):
        client.check(request(TRUE, "  rfl"))


def test_attempts_end(server):
    server.faults.extend([(500,)] * 2)
    client = KiminaBackend(server.url, patience=Patience(failures=2))
    with pytest.raises(WorkerDiedError, match="at last 500") as caught:
        client.check(request(TRUE, "  rfl"))
    client.close()
    # The proof may be why the server failed.
    assert not caught.value.innocent
    assert len(server.requests) == 2


def test_a_slow_answer_is_waited_for_and_a_late_one_is_not(server):
    server.faults.append("slow")
    client = KiminaBackend(server.url)
    assert status(client, TRUE, "  rfl") is Status.VERIFIED
    client.close()
    server.faults.append("slow")
    hasty = KiminaBackend(
        server.url,
        trusted_s=0.001,
        patience=Patience(queue_s=-1.5, failures=1),
    )
    with pytest.raises(WorkerDiedError, match="ReadTimeout"):
        hasty.check(request(TRUE, "  rfl", wall_s=0.5))
    hasty.close()


def items(count):
    return [(TRUE, f"  rfl -- {n}") for n in range(count)]


def test_a_server_that_went_away_fails_the_batch(scripted_command):
    """No proof is recorded as crashed for it."""
    patience = Patience(failures=1, away_s=0.5)
    with KiminaStandIn(scripted_command) as server:
        verifier = Verifier(lambda: KiminaBackend(server.url, patience=patience))
        [verdict] = verifier.verify(items(1))
        assert verdict.verified
    decided = []
    with verifier, pytest.raises(BackendError, match="at last ConnectError") as caught:
        verifier.verify(items(4)[1:], decided=lambda *_: decided.append(_))
    assert not isinstance(caught.value, WorkerDiedError)
    assert not decided


def test_a_server_that_is_restarted_loses_nothing(scripted_command):
    """It ends in the middle of requests and is away for a while."""

    class Second(KiminaStandIn):
        def server_bind(self):
            self.server_address = ("127.0.0.1", first.server_port)
            super().server_bind()

    verdicts = []

    def verify():
        with Verifier(lambda: KiminaBackend(first.url), workers=2) as verifier:
            verdicts.extend(verifier.verify(items(4)))

    with KiminaStandIn(scripted_command) as first:
        first.faults.extend(["slow", "slow"])
        batch = threading.Thread(target=verify)
        batch.start()
        assert wait_until(lambda: len(first.requests) == 2)
    time.sleep(1.0)
    with Second(scripted_command):
        batch.join(60)
    assert [verdict.status for verdict in verdicts] == [Status.VERIFIED] * 4


def test_a_proof_that_the_server_dies_on_is_that_proofs_fault_alone(server):
    proofs = ["  rfl", "  die", "  rfl\n"]
    with Verifier(lambda: KiminaBackend(server.url), workers=1) as verifier:
        verdicts = verifier.verify([(TRUE, proof) for proof in proofs])
    expected = [Status.VERIFIED, Status.CRASHED, Status.VERIFIED]
    assert [verdict.status for verdict in verdicts] == expected


def test_an_fdjax_serve_is_named():
    with Server.fake() as server:
        client = KiminaBackend(server.url)
        client.start()
        for proof in ("  trivial", None):
            with pytest.raises(BackendError, match=r"RemoteBackend.*--backend remote"):
                client.check(request(TRUE, proof))
        client.close()


def test_what_is_no_address_is_a_clear_error():
    with pytest.raises(ConfigError, match=r"http\(s\)://host\[:port\], got 'foo'"):
        KiminaBackend("foo")


def test_a_wrong_token_is_a_clear_error(scripted_command):
    with KiminaStandIn(scripted_command, token="right") as server:
        wrong = KiminaBackend(server.url, token="wrong")
        with pytest.raises(BackendError, match=r"401.*token"):
            wrong.check(request(TRUE, "  rfl"))
        wrong.close()
        right = KiminaBackend(server.url, token="right")
        assert status(right, TRUE, "  rfl") is Status.VERIFIED
        right.close()


def test_another_kind_of_server_is_a_clear_error(server):
    server.faults.append((422,))
    client = KiminaBackend(server.url)
    with pytest.raises(BackendError, match=r"422.*correct"):
        client.check(request(TRUE, "  rfl"))
    client.close()


def test_no_server_is_a_backend_error():
    client = KiminaBackend("http://127.0.0.1:9", patience=Patience(away_s=0.2))
    with pytest.raises(BackendError, match=r"/health: expected .*ConnectError"):
        client.start()
    client.close()


def test_a_time_limit_counts_only_when_the_time_was_used(client, server):
    server.faults.append("liar")
    with pytest.raises(WorkerDiedError, match="timed out"):
        client.check(request(TRUE, "  rfl", wall_s=10.0))


def test_a_proof_that_uses_up_its_time(server):
    client = KiminaBackend(server.url, trusted_s=1.0)
    begin = time.monotonic()
    report = client.check(request(TRUE, "  hang", wall_s=1.0))
    client.close()
    assert report.timed_out
    assert report.seconds >= 1.0
    assert time.monotonic() - begin < 5


def test_a_process_that_dies_is_not_the_proofs_time(client):
    with pytest.raises(WorkerDiedError):
        client.check(request(TRUE, "  die", wall_s=10.0))


def test_an_interrupt_ends_a_request(client):
    client.start()
    threading.Timer(0.3, client.interrupt).start()
    begin = time.monotonic()
    with pytest.raises(WorkerDiedError, match="interrupted"):
        client.check(request(TRUE, "  hang", wall_s=3.0))
    assert time.monotonic() - begin < 2


def test_closing_a_verifier_in_the_middle(server):
    backend = KiminaBackend(server.url)
    verifier = Verifier(lambda: backend, workers=1, limits=Limits(wall_s=3.0))
    verdicts = []
    thread = threading.Thread(
        target=lambda: verdicts.extend(verifier.verify([(TRUE, "  hang")]))
    )
    thread.start()
    time.sleep(0.5)
    begin = time.monotonic()
    verifier.close()
    thread.join(5)
    assert time.monotonic() - begin < 2
    assert [verdict.status for verdict in verdicts] == [Status.CRASHED]


def test_it_works_under_a_running_event_loop(server):
    async def verify():
        with Verifier(lambda: KiminaBackend(server.url), workers=1) as verifier:
            return await verifier.averify([(TRUE, "  rfl")])

    [verdict] = asyncio.run(verify())
    assert verdict.verified
