"""Checkers that are shell scripts: how a start fails, and whose fault a death is."""

from pathlib import Path

import pytest

from fdjax.errors import BackendError
from fdjax.lean import CheckRequest, Limits, WorkerDiedError
from fdjax.lean.sandbox.checker import CheckerProcess
from fdjax.lean.sandbox.process import Program

READY = "echo '{\"ready\": true}'; read request; "
# What stands between the first quotes after `nonce`.
STARTED = (
    'nonce=${request#*: \\"}; nonce=${nonce%%\\"*}; '
    'echo "{\\"started\\": \\"$nonce\\"}"; '
)


class Scripted(CheckerProcess):
    identity = "scripted"

    def __init__(self, script):
        super().__init__(grace_s=0.1, start_timeout_s=30.0, confinement="rlimits")
        self.script = script

    def _program(self):
        return Program(
            command=["/bin/sh", "-c", self.script],
            folder=Path("/"),
            remedy="do better",
            readable=[],
            memory_mb=512,
        )


@pytest.fixture
def check():
    """Checks a proof of 1 s with a script."""
    used = []

    def run(script):
        used.append(Scripted(script))
        return used[-1].check(
            CheckRequest(
                name="t",
                header="",
                statement="theorem t : True",
                proof="  trivial",
                limits=Limits(wall_s=1.0),
            )
        )

    yield run
    assert [backend.pid for backend in used] == [None] * len(used)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo why >&2; exit 3", r"exit status 3\) why; do better"),
        ("echo '{\"fatal\": 1}'; exit 71", r"'fatal': 1} \(exit status 71\)"),
    ],
)
def test_a_start_that_fails_names_the_remedy(check, script, says):
    with pytest.raises(BackendError, match=says) as caught:
        check(script)
    assert not isinstance(caught.value, WorkerDiedError)


@pytest.mark.parametrize("script", ["kill -KILL $$", "kill -STOP $$", "echo hello"])
def test_a_start_that_was_disturbed_is_nobodys_fault(check, script):
    with pytest.raises(WorkerDiedError) as caught:
        check(f"{script}; sleep 60")
    assert caught.value.innocent


PANIC = "echo INTERNAL PANIC: out of memory >&2; exit 1"


@pytest.mark.parametrize(
    ("script", "innocent", "exhausted"),
    [
        (READY + PANIC, False, False),
        (READY + STARTED + PANIC, False, True),
        (READY + STARTED + "exit 1", False, False),
        (READY + STARTED + "kill -STOP $$", True, False),
        (READY + STARTED + "echo 1; sleep 60", False, False),
    ],
)
def test_whose_fault_a_death_is(check, script, innocent, exhausted):
    with pytest.raises(WorkerDiedError) as caught:
        check(script)
    assert (caught.value.innocent, caught.value.exhausted) == (innocent, exhausted)


def test_a_proof_that_uses_up_its_time(check):
    report = check(READY + STARTED + "sleep 60")
    assert report.timed_out
    assert 1.25 <= report.seconds < 2.0
