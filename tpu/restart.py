"""Which ends of a run have it started again: one rule for every way of launching."""

import signal

__all__ = ["AGAIN", "exit_code", "starts_again"]

_LOST = (
    signal.SIGHUP,
    signal.SIGABRT,
    signal.SIGBUS,
    signal.SIGKILL,
    signal.SIGSEGV,
    signal.SIGTERM,
)
"""Signals by which a process ends that did nothing wrong: its machine goes away, the
kernel wants its memory, JAX ends it because another process is gone."""

AGAIN = frozenset({75, *(128 + number for number in _LOST)})
"""Exit codes, as a shell has them, after which the same command goes on; 75 is a run's
own word for it (`fdjax.run.command.RESTART`). Any other end is for people to look at:
0 is done, 1 a fault, 2 bad input, 130 Ctrl-C."""


def exit_code(returncode: int) -> int:
    """What a shell calls the end of a process.

    Args:
      returncode: of `subprocess`, negative where a signal ended it.
    """
    return 128 - returncode if returncode < 0 else returncode


def starts_again(returncode: int) -> bool:
    """Whether a process that ended so is started again."""
    return exit_code(returncode) in AGAIN
