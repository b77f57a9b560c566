"""Runs that are killed at any moment, with all processes below them, and resumed.

Each trial begins a run, or goes on with one, and kills it when something has appeared
in its folder. A run that came to its end is compared with one that nobody disturbed.
Trials share folders: a run is killed several times on its way.
"""

import hashlib
import json
import os
import random
import signal
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import forked
from fdjax.checkpoint import Retention, checkpoint_steps
from fdjax.checkpoint.orbax_tree import OrbaxTree
from fdjax.checkpoint.store import CheckpointStore
from fdjax.metrics import read_metrics
from feedback.model_server import ModelServer, in_thread
from run.killable import PHASES
from serving import descendants

KILLABLE = Path(__file__).with_name("killable.py")
ENVIRONMENT = os.environ | {
    "JAX_NUM_CPU_DEVICES": "1",
    # Each start compiles nothing that another has compiled.
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
}


@dataclass
class Case:
    """A policy, a server that reviews attempts, and runs."""

    folder: Path
    policy: Path
    server: ModelServer
    trace: list[str] = field(default_factory=list)
    """What happened, for a failure's report."""

    @contextmanager
    def started(self, name, *flags):
        """The running process."""
        folder = self.folder / name
        log = self.folder / f"{name}.log"
        resume = ["--resume"] if (folder / "config.json").exists() else []
        with log.open("ab") as output:
            process = forked.start(
                [KILLABLE, folder, self.policy, self.server.url, *resume, *flags],
                environment=ENVIRONMENT,
                output=output,
            )
            try:
                yield process
            finally:
                kill(process)

    def finish(self, name, *flags):
        """Lets the run come to its end."""
        with self.started(name, *flags) as process:
            process.wait()
        said = (self.folder / f"{name}.log").read_text()
        assert process.returncode == 0, (self.trace, said[-4000:])
        return Ended.read(self.folder / name)


def kill(process):
    """Every process of a run, without a word."""
    if process.poll() is not None:
        return
    below = descendants(process.pid)
    for pid in (process.pid, *below):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


@dataclass(frozen=True)
class Ended:
    """All that a run leaves that does not depend on the clock."""

    metrics: list
    samples: bytes
    probes: bytes
    checkpoints: dict
    """Phase and step to the host's part, and the bits of each array."""
    policy: dict

    @classmethod
    def read(cls, folder):
        assert not (folder / "journal").exists()
        return cls(
            metrics=[without_clock(row) for row in read_metrics(folder / METRICS)],
            samples=(folder / "samples.jsonl").read_bytes(),
            probes=(folder / "probes.jsonl").read_bytes(),
            checkpoints={
                (phase, step): checkpoint(folder / "checkpoints" / phase, step)
                for phase in PHASES
                for step in checkpoint_steps(folder / "checkpoints" / phase)
            },
            policy={
                path.name: path.read_bytes()
                for path in (folder / "policies" / "both").iterdir()
            },
        )


METRICS = "metrics.jsonl"


def without_clock(row):
    return {name: row[name] for name in row if not name.startswith("time")}


def checkpoint(folder, step):
    with CheckpointStore(folder, Retention(newest=None)) as store:
        host = store.host(step)
    tree = OrbaxTree(folder / str(step) / "state")
    arrays = {name: tree.read(tuple(name.split("."))) for name in tree.names}
    # Teacher, moments and counts are among them.
    assert {name.split(".")[0] for name in arrays} >= {"params", "opt_state", "step"}
    return host | {"run": None}, {
        name: (array.dtype, array.shape, array.tobytes())
        for name, array in arrays.items()
    }


def lines(pattern):
    """Counts the lines in the files of a run's folder."""

    def count(folder):
        return sum(
            path.read_bytes().count(b"\n") for path in there(folder.glob(pattern))
        )

    return count


def there(paths):
    """Those that have not gone meanwhile."""
    try:
        return [path for path in paths if path.exists()]
    except FileNotFoundError:
        return []


def files(pattern):
    return lambda folder: len(there(folder.glob(pattern)))


MOMENTS = {
    "judgements and feedback in the journal": (lines("journal/*/*.jsonl"), 12),
    "a checkpoint is being written": (files("checkpoints/*/*tmp*"), 1),
    "a checkpoint is there": (files("checkpoints/*/[0-9]"), 3),
    "attempts in samples.jsonl": (lines("samples.jsonl"), 40),
    "metrics": (lines(METRICS), 3),
    "probes": (lines("probes.jsonl"), 6),
    "the policy is being saved": (files("policies/.both.partly/*"), 2),
}
"""What is counted, and up to which growth a run is let live."""


def killed(case, name, draw):
    """Kills a run at a moment that is drawn; False where it ended before."""
    folder = case.folder / name
    what = draw.choice(list(MOMENTS))
    count, most = MOMENTS[what]
    grown = draw.randint(1, most)
    begun, delay = count(folder), draw.choice([0, 0, draw.random() * 0.3])
    with case.started(name) as process:
        newest = begun
        while process.poll() is None:
            now = count(folder)
            # What falls was cut back by a resume, or dropped.
            begun, newest = min(begun, now), now
            if newest >= begun + grown:
                break
            time.sleep(0.002)
        else:
            case.trace.append(f"{name} ended before {grown} of {what}")
            return False
        time.sleep(delay)
    case.trace.append(f"{name} killed at {grown} more of {what}, {delay:.2f} s later")
    return True


def known(folder):
    """Reviews that the journal has."""
    found = Counter()
    for path in folder.glob("journal/*/*.jsonl"):
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                facts = json.loads(line).get("found", ())
                found.update({fact["parts"][0] for fact in facts if fact.get("parts")})
    return found


def reviewed(text):
    """A review that tells which question it answers."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.fixture(scope="module")
def case(policy, tmp_path_factory):
    server = ModelServer(reviewed)
    with in_thread(server):
        yield Case(tmp_path_factory.mktemp("killed"), policy, server)


def asked(server, since):
    """Reviews asked for since a number of requests."""
    return Counter(
        reviewed(body["messages"][-1]["content"])
        for _, _, body in server.requests[since:]
    )


@pytest.fixture(scope="module")
def undisturbed(case):
    """What a run leaves, and how often each review was asked for."""
    ended = case.finish("undisturbed")
    samples = [json.loads(line) for line in ended.samples.splitlines()]
    assert len(samples) == 8 * sum(PHASES.values())
    assert {row["arm"] for row in samples} == set(PHASES)
    assert any(row["feedback"] for row in samples)
    assert [row["step"] for row in ended.metrics] == [3, 5, 3, 4]
    return ended, asked(case.server, 0)


def trials(case, undisturbed, draw, number):
    """Kills runs that often; each of them ends as the undisturbed one."""
    whole, once = undisturbed
    kills, runs = 0, 0
    while kills < number:
        name, runs = f"run{runs}", runs + 1
        bought = set()
        for _ in range(min(5, number - kills)):
            since = len(case.server.requests)
            if not killed(case, name, draw):
                break
            kills += 1
            compare_purchases(case, since, bought, once)
            bought |= known(case.folder / name).keys()
        since = len(case.server.requests)
        ended = case.finish(name)
        compare_purchases(case, since, bought, once)
        for part in ("metrics", "samples", "probes", "checkpoints", "policy"):
            left, expected = getattr(ended, part), getattr(whole, part)
            assert left == expected, (part, different(left, expected), case.trace)


def different(left, expected):
    """Where two parts differ; the bits of arrays would tell nobody anything."""
    if not isinstance(left, dict):
        return left, expected
    return {
        name: (name in left, name in expected)
        for name in left | expected
        if left.get(name) != expected.get(name)
    }


def compare_purchases(case, since, bought, once):
    """No review was asked for again that the journal had when the run was killed.

    Of those alone that a whole run asks for once: others may be of other iterations.
    """
    again = [
        review
        for review in asked(case.server, since)
        if review in bought and once[review] == 1
    ]
    assert not again, case.trace


@pytest.mark.slow
def test_twenty_kills_change_nothing(case, undisturbed):
    """Four minutes of processor time: each start costs ten seconds."""
    trials(case, undisturbed, random.Random(0), 20)


@pytest.mark.slow
def test_kept_attempts_are_not_sampled_again(case, undisturbed):
    """The rest has other company on the devices: equal up to rounding."""
    whole, _ = undisturbed
    flag = "--checkpoints.attempts"
    folder = case.folder / "keeps"
    kept = lines("journal/fd/*.jsonl")
    with case.started("keeps", flag) as process:
        # A group has three rows: as sampled, judged, commented.
        while kept(folder) < 5 and process.poll() is None:
            time.sleep(0.002)
    rows = b"".join(path.read_bytes() for path in folder.glob("journal/fd/*.jsonl"))
    assert rows.count(b'"found": ["') >= 2
    ended = case.finish("keeps", flag)
    texts = [
        [
            {name: row[name] for name in ("arm", "step", "proof", "feedback")}
            for row in map(json.loads, one.samples.splitlines())
        ]
        for one in (ended, whole)
    ]
    assert texts[0] == texts[1]
    for row, expected in zip(ended.metrics, whole.metrics, strict=True):
        assert row.pop("arm") == expected["arm"]
        numbers = {name: expected[name] for name in expected if name != "arm"}
        assert row == pytest.approx(numbers, rel=1e-4, abs=1e-6, nan_ok=True)
