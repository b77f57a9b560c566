"""Verdicts survive the death of cluster nodes; one program runs all scenarios."""

import importlib.util
import socket
import sys
from pathlib import Path

import pytest

from fdjax.errors import BackendError, InstallError
from fdjax.lean import FakeBackend, Verifier
from fdjax.lean.backends.ray import RayBackend
from lean.corpus import (
    FAILURES,
    FILES,
    GIVING_UP,
    THEOREMS,
    TRUE,
    UNSAFE,
)
from programs import found_by

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None or sys.platform != "linux",
    reason="ray is not installed (pip install fdjax[ray]), or this is not Linux",
)
# What uses the program's results: it starts seven clusters.
takes_a_minute = pytest.mark.slow


@pytest.fixture(scope="module")
def results(tmp_path_factory, lean_folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        return found_by(
            Path(__file__).with_name("on_cluster.py"),
            timeout_s=240,
            MARKER=str(tmp_path_factory.mktemp("cluster") / "hung-once"),
            RAY_USAGE_STATS_ENABLED="0",
        )


@needs_ray
@takes_a_minute
def test_no_proof_is_lost_with_its_node(results):
    result = results["node_lost"]
    expected = ["VERIFIED" if i % 3 else "REJECTED" for i in range(400)]
    assert result["statuses"] == expected
    texts = ["" if i % 3 else f"  fail -- {i}" for i in range(400)]
    assert result["texts"] == texts
    assert result["checked"] == 400
    assert result["losses"] >= 1
    assert result["restarts"] == 0


@needs_ray
@takes_a_minute
def test_the_contract(results):
    rejected = len(FAILURES) + len(GIVING_UP)
    assert results["contract"]["statuses"] == [
        *["VERIFIED"] * len(THEOREMS),
        *["REJECTED"] * rejected,
        *["UNSAFE"] * len(UNSAFE),
        *["VERIFIED"] * len(FILES),
        # Three coercions, a false bound, a hidden tactic; a configuration and two Leans
        # of their own.
        *["REJECTED", "REJECTED", "REJECTED", "UNSAFE", "REJECTED"],
        *["UNSAFE", "UNSAFE", "UNSAFE"],
    ]


@needs_ray
@takes_a_minute
def test_real_lean_on_a_node_that_dies(results):
    result = results["lean_on_a_lost_node"]
    assert result["statuses"] == ["VERIFIED", "REJECTED"] * 30
    assert result["losses"] >= 1
    # The raylet and Ray's workers were killed, Lean was not: it ends by itself.
    assert result["lean_processes"] >= 1
    assert result["left"] == 0


@needs_ray
@takes_a_minute
def test_a_proof_that_ends_its_worker_every_time_is_crashed(results):
    result = results["deaths"]
    crashed = ["VERIFIED", "CRASHED", "REJECTED", "CRASHED", "VERIFIED"]
    assert result["statuses"] == crashed
    # Deaths of Lean are no losses; each of the two attempts loses its actor once.
    assert (result["restarts"], result["losses"]) == (4, 2)


@needs_ray
@takes_a_minute
def test_a_hung_node_counts_as_lost(results):
    result = results["hung"]
    assert result["statuses"] == ["VERIFIED", "REJECTED"]
    assert (result["restarts"], result["losses"]) == (0, 1)


@needs_ray
@takes_a_minute
def test_closing_does_not_wait_for_a_proof(results):
    assert results["closed"]["seconds"] < 5
    assert results["closed"]["statuses"] == ["CRASHED"]


@needs_ray
@takes_a_minute
def test_clusters_that_cannot_serve_are_refused_with_the_reason(results):
    messages = results["refused"]
    assert "got none" in messages["no room"]
    assert "use fewer workers" in messages["no room"]
    assert "install the same fdjax" in messages["another Lean"]
    assert "RuntimeError: a module is missing" in messages["broken factory"]


@needs_ray
@pytest.mark.filterwarnings("ignore")  # importing Ray warns
def test_an_address_where_no_cluster_is_fails_at_once():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        backend = RayBackend(FakeBackend, address=f"127.0.0.1:{port}")
        with pytest.raises(BackendError, match="correct the address"):
            backend.start()


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        Verifier(lambda: RayBackend(FakeBackend), workers=1) as verifier,
        pytest.raises(InstallError, match=r"pip install fdjax\[ray\]"),
    ):
        verifier.verify([(TRUE, "  trivial")])
