"""Verification on a Ray cluster of several nodes' processes; prints results as JSON.

A program of its own: Ray pickles what it defines by value, and Ray's threads, warnings
and handlers stay out of pytest's process.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import psutil
import ray
from ray.cluster_utils import Cluster

from fdjax.errors import BackendError
from fdjax.lean import (
    FakeBackend,
    Limits,
    Problem,
    Verifier,
    WholeFile,
    WorkerDiedError,
    install,
)
from fdjax.lean.backends.fake import accepted, rejected
from fdjax.lean.backends.ray import RayBackend
from fdjax.lean.embedded.wasm import WasmBackend
from lean.corpus import (
    FAILURES,
    FALSE,
    FILES,
    GIVING_UP,
    HIDDEN_CODE,
    THEOREMS,
    UNSAFE,
)

TRUE = Problem(name="t", statement="theorem t : True")
ADD = Problem(name="add", statement="theorem add (a b : Nat) : a + b = b + a")
NODE = {
    "num_cpus": 2,
    "object_store_memory": 80 * 2**20,
    "resources": {"lean": 1},
    # Ray replaces 127.0.0.1 by the machine's address in the network.
    "node_ip_address": "127.0.0.2",
}
# A dead node refuses each check and is noticed after 2 s instead of 15; a slow one has
# as long as always.
QUICK = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 500}


def echo(request):
    """Accepts `trivial`; a rejection repeats the proof."""
    time.sleep(0.02)
    return accepted() if "trivial" in request.proof else rejected(request.proof)


def echoing():
    return FakeBackend(echo)


def kill_node(node):
    """The raylet and Ray's workers at once; the Lean processes that are left."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    family = raylet.children(recursive=True)
    lean = [process for process in family if Path(process.exe()).name == "node"]
    for process in [raylet, *family]:
        if process not in lean:
            process.send_signal(signal.SIGKILL)
    return lean


def summary(verdicts, verifier, backends):
    statistics = verifier.statistics
    return {
        "statuses": [verdict.status.name for verdict in verdicts],
        "texts": [v.diagnostics[0].text if v.diagnostics else "" for v in verdicts],
        "checked": statistics.checked,
        "restarts": statistics.restarts,
        "losses": sum(backend.losses for backend in backends),
    }


def verify(factory, items, *, workers, progress=None, wall_s=10.0, **options):
    backends = []

    def make():
        backends.append(RayBackend(factory, **options))
        return backends[-1]

    limits = Limits(wall_s=wall_s)
    with Verifier(make, workers=workers, limits=limits) as verifier:
        verifier.start()
        verdicts = verifier.verify(items, progress)
        return summary(verdicts, verifier, backends)


def node_lost(cluster, nodes):
    """More workers than places are left: the last proofs run on borrowed actors."""
    proofs = [f"  {'trivial' if i % 3 else 'fail'} -- {i}" for i in range(400)]
    killed = []

    def kill(finished):
        if finished >= 100 and not killed:
            killed.append(kill_node(nodes.pop()))

    items = [(TRUE, proof) for proof in proofs]
    return verify(echoing, items, workers=5, progress=kill, memory_mb=64)


def lean_on_a_lost_node(cluster, nodes):
    good = [(ADD, f"  omega -- {i}") for i in range(30)]
    bad = [(ADD, f"  rfl -- {i}") for i in range(30)]
    items = [item for pair in zip(good, bad, strict=True) for item in pair]
    killed = []

    def kill(finished):
        if finished >= 10 and not killed:
            killed.append(kill_node(nodes.pop()))

    resources = {"lean": 1}
    result = verify(
        WasmBackend, items, workers=2, progress=kill, memory_mb=64, resources=resources
    )
    _, alive = psutil.wait_procs(killed[0], timeout=15)
    return result | {"lean_processes": len(killed[0]), "left": len(alive)}


def contract(cluster, nodes):
    """What every backend answers to the common corpus."""
    items = [*THEOREMS, *FAILURES, *((FALSE, text) for text in [*GIVING_UP, *UNSAFE])]
    items += [(target, WholeFile(text)) for target, text in FILES]
    items += HIDDEN_CODE.values()
    return verify(WasmBackend, items, workers=1, memory_mb=64, resources={"lean": 1})


def deaths(cluster, nodes):
    """Lean dies by itself, and a proof takes its whole actor down each time."""

    def answer(request):
        if "lean dies" in request.proof:
            raise WorkerDiedError("Lean ended")
        if "actor dies" in request.proof:
            os._exit(1)
        return echo(request)

    proofs = ["trivial", "lean dies", "fail", "actor dies", "trivial again"]
    items = [(TRUE, f"  {proof}") for proof in proofs]
    return verify(
        lambda: FakeBackend(answer), items, workers=1, memory_mb=64, max_losses=0
    )


def hung(cluster, nodes):
    marker = Path(os.environ["MARKER"])

    def answer(request):
        if "hang" in request.proof and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGSTOP)
        return echo(request)

    items = [(TRUE, "  trivial -- hang"), (TRUE, "  fail")]
    return verify(
        lambda: FakeBackend(answer),
        items,
        workers=1,
        memory_mb=64,
        wall_s=0.5,
        patience_s=1.0,
    )


def closed(cluster, nodes):
    """Closing in the middle of a request that takes a minute."""
    backend = RayBackend(
        lambda: FakeBackend(lambda request: time.sleep(60) or accepted()), memory_mb=64
    )
    verifier = Verifier(lambda: backend, workers=1)
    verifier.start()
    got = []
    waiting = threading.Thread(
        target=lambda: got.extend(verifier.verify([(TRUE, "  trivial")])), daemon=True
    )
    waiting.start()
    time.sleep(1.0)
    begin = time.monotonic()
    verifier.close()
    seconds = time.monotonic() - begin
    waiting.join(timeout=10)
    return {"seconds": seconds, "statuses": [verdict.status.name for verdict in got]}


class Elsewhere(FakeBackend):
    @property
    def identity(self):
        return f"process {os.getpid()}"


def refused(cluster, nodes):
    driver = os.getpid()

    def broken():
        if os.getpid() != driver:
            raise RuntimeError("a module is missing")
        return FakeBackend()

    backends = {
        "no room": RayBackend(echoing, num_cpus=64, start_timeout_s=1.5),
        "another Lean": RayBackend(Elsewhere, memory_mb=64),
        "broken factory": RayBackend(broken, memory_mb=64),
    }
    messages = {}
    for name, backend in backends.items():
        try:
            backend.start()
        except BackendError as error:
            messages[name] = str(error)
        backend.close()
    return messages


SCENARIOS = [contract, deaths, hung, closed, refused, node_lost, lean_on_a_lost_node]


def main():
    install()
    head = NODE | {"num_cpus": 1, "resources": {}, "include_dashboard": False}
    cluster = Cluster(
        initialize_head=True, head_node_args=head | {"_system_config": QUICK}
    )
    os.environ["RAY_ADDRESS"] = cluster.address
    nodes = [cluster.add_node(**NODE), cluster.add_node(**NODE)]
    results = {}
    for scenario in SCENARIOS:
        while len(nodes) < 2:
            nodes.append(cluster.add_node(**NODE))
        begin = time.monotonic()
        results[scenario.__name__] = scenario(cluster, nodes)
        seconds = time.monotonic() - begin
        print(f"{scenario.__name__}: {seconds:.1f} s", file=sys.stderr)
    ray.shutdown()
    cluster.shutdown()
    print(json.dumps(results))


if __name__ == "__main__":
    main()
