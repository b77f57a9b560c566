"""Children that end, hang, babble and leave others behind."""

import os
import resource
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from fdjax.lean.sandbox.child import Child, ChildLostError
from lean.embedded.test_wasm import alive

PANIC = "echo INTERNAL PANIC: out of memory >&2"


@pytest.fixture
def shell():
    """Starts a shell with a script."""
    with ExitStack() as children:

        def start(script):
            child = Child(["/bin/sh", "-c", script], folder=Path("/"), environment={})
            children.callback(child.close)
            return child

        yield start


def ask(child, question=b"", *, delimiter=b"\n", seconds=10.0, longest=1000):
    deadline = time.monotonic() + seconds
    child.write(question, deadline)
    return child.read_until(delimiter, deadline, longest)


def test_answers_are_told_apart_wherever_they_are_cut(shell):
    child = shell("read it; printf 'one\\n'; sleep 0.1; printf '\\n%s\\n\\nthree' $it")
    assert ask(child, b"two\n", delimiter=b"\n\n") == b"one"
    assert ask(child, delimiter=b"\n\n") == b"two"
    with pytest.raises(ChildLostError) as caught:
        ask(child, delimiter=b"\n\n")
    assert caught.value.how == "ended"


@pytest.mark.parametrize(
    ("script", "how", "says", "exhausted"),
    [
        ("echo why >&2; exit 3", "ended", "exit status 3\\) why", False),
        (f"{PANIC}; exit 1", "ended", "exit status 1", True),
        ("kill -FPE $$", "ended", "exit status -8", True),
        ("kill -KILL $$", "killed", "exit status -9", False),
        ("exit 137", "killed", "exit status 137", False),
        ("exec >&- 2>&-; sleep 60", "ended", "the process ended$", False),
        ("sleep 60", "late", "did not answer in time", False),
        ("cat /dev/zero", "misspoke", "bytes without an end", False),
    ],
)
def test_how_a_child_was_lost(shell, script, how, says, exhausted):
    child = shell(script)
    begin = time.monotonic()
    with pytest.raises(ChildLostError, match=says) as caught:
        ask(child, seconds=1.0)
    assert (caught.value.how, caught.value.exhausted) == (how, exhausted)
    assert begin < caught.value.moment < begin + 1.2
    assert child.pid is None


def test_a_stopped_child_is_noticed_before_the_deadline(shell):
    child = shell("kill -STOP $$")
    with pytest.raises(ChildLostError, match="had been stopped") as caught:
        ask(child, seconds=60.0)
    assert caught.value.how == "stopped"


def test_a_child_that_does_not_read_misses_its_deadline(shell):
    begin = time.monotonic()
    with pytest.raises(ChildLostError) as caught:
        ask(shell("sleep 60"), b"x" * 1_000_000, seconds=0.5)
    assert caught.value.how == "late"
    assert time.monotonic() - begin < 2


def test_what_nobody_asked_for_is_noticed(shell):
    child = shell("read it; printf 'one\\ntwo\\n'; sleep 60")
    child.require_silence()
    assert ask(child, b"\n") == b"one"
    with pytest.raises(ChildLostError, match="more than it was asked") as caught:
        child.require_silence()
    assert caught.value.how == "misspoke"


def test_what_nobody_has_read_is_noticed(shell):
    child = shell("echo early; sleep 60")
    time.sleep(1.0)
    with pytest.raises(ChildLostError, match="more than it was asked"):
        child.require_silence()


def test_standard_error_is_drained_and_its_end_is_told(shell):
    child = shell(f"head -c 1000000 /dev/zero >&2; {PANIC}; echo done; read it; exit 1")
    assert ask(child) == b"done"
    with pytest.raises(ChildLostError, match=r"INTERNAL PANIC: out of memory$"):
        ask(child, b"\n")


def test_a_child_that_ends_leaves_nobody_in_its_group(shell):
    child = shell("sleep 60 >/dev/null 2>&1 & echo $!; exit 3")
    pid = int(ask(child))
    assert alive(pid)
    with pytest.raises(ChildLostError, match="exit status 3"):
        ask(child)
    deadline = time.monotonic() + 5
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(pid)


def test_the_group_is_killed_before_its_leader_is_reaped(shell, monkeypatch):
    """After that, the id may be another group's."""
    states = []

    def killpg(group, number, kill=os.killpg):
        states.append(os.waitid(os.P_PID, group, os.WEXITED | os.WNOWAIT).si_status)
        kill(group, number)

    child = shell("exit 3")
    monkeypatch.setattr(os, "killpg", killpg)
    with pytest.raises(ChildLostError, match="exit status 3"):
        ask(child)
    assert states == [3]


def test_closing_does_not_wait_for_what_left_the_group(shell):
    sleeper = f"{sys.executable} -S -c 'import os, time; os.setsid(); time.sleep(20)'"
    child = shell(f"{sleeper} & echo $!; sleep 60")
    pid = int(ask(child))
    time.sleep(0.5)
    begin = time.monotonic()
    child.close()
    child.close()
    assert time.monotonic() - begin < 3
    os.kill(pid, signal.SIGKILL)


def test_descriptors_may_have_any_number(shell):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    try:
        with ExitStack() as files:
            for _ in range(1100):
                files.enter_context(open(os.devnull))
            assert ask(shell("echo high")) == b"high"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
