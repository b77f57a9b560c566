"""The command `fdjax doctor --pod`."""

import os
import sys
from collections.abc import Callable, Sequence

import jax
from rich.console import Console
from rich.markup import escape

from fdjax.doctor import Finding
from fdjax.pod.examination import examine_pod
from fdjax.pod.options import DoctorOptions
from fdjax.run.command import RESTART

__all__ = ["doctor_of_pod"]


def doctor_of_pod(
    options: DoctorOptions, show: Callable[[Sequence[Finding], bool], int]
) -> int:
    """Looks at all hosts; the exit code is the same on each of them.

    Args:
      options: what is looked at.
      show: says the findings where the second argument is true; returns the exit code.

    Raises:
      ConfigError: a setting is out of range.
    """
    try:
        return show(examine_pod(options), jax.process_index() == 0)
    except jax.errors.JaxRuntimeError as error:
        first = escape(str(error).splitlines()[0])
        Console(stderr=True).print(
            f"[bold red]error[/] A host did not come, or was lost: {first} See "
            "which of them runs nothing, and start all again.",
            soft_wrap=True,
        )
        sys.stdout.flush()
        # The interpreter's farewell would wait for the others, and they for it.
        os._exit(RESTART)
