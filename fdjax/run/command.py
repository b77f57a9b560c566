"""An experiment as a command: settings from flags, errors as one line, exit codes."""

import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import tyro
from rich.markup import escape

from fdjax.errors import ExchangeError, FdjaxError, StoreError
from fdjax.run.console import Display
from fdjax.train import StoppedError

__all__ = ["RESTART", "run_command"]

Config = TypeVar("Config")

RESTART = 75
"""Exit code after which the same command goes on, `EX_TEMPFAIL` of sysexits.h: the
machine was taken away, another process of the run was lost, or the network failed."""


def run_command(
    default: Config,
    run: Callable[[Config, Display], object],
    arguments: Sequence[str] | None = None,
) -> int:
    """Runs with the settings that the command line gives.

    One of several processes that fails ends at once, without the interpreter's
    farewell: the others would wait for it, and it for them.

    Args:
      default: settings where no flag says otherwise.
      run: what to do with them.
      arguments: of the command line; the process's own by default.

    Returns:
      The exit code: 0 done, 2 bad input, 130 interrupted, 75 to be started again.
    """
    display = Display()
    try:
        code = _code(default, run, arguments, display)
    except Exception:
        if not jax.distributed.is_initialized():
            raise
        traceback.print_exc()
        code = 1
    if code and jax.distributed.is_initialized():
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _code(
    default: Config,
    run: Callable[[Config, Display], object],
    arguments: Sequence[str] | None,
    display: Display,
) -> int:
    try:
        run(tyro.cli(type(default), default=default, args=arguments), display)
    except StoppedError as stopped:
        display.say(f"{stopped} The same command with --resume goes on.")
        return RESTART if stopped.signal == signal.SIGTERM else 130
    except (FdjaxError, OSError) as error:
        # JAX marks its own note, on tracebacks that nobody sees here, with a rule.
        notes = [
            note
            for note in getattr(error, "__notes__", [])
            if not note.startswith("---")
        ]
        display.say(f"[bold red]error[/] {escape(' '.join([str(error), *notes]))}")
        # What passes by itself; settings stay as they are.
        return RESTART if isinstance(error, ExchangeError | StoreError) else 2
    except jax.errors.JaxRuntimeError as error:
        if not jax.distributed.is_initialized():
            raise
        first = str(error).splitlines()[0]
        display.say(
            f"[bold red]error[/] Process {jax.process_index()} of "
            f"{jax.process_count()} cannot go on without the others, of which one is "
            f"gone or its devices failed: {escape(first)} Start all of them again "
            "with --resume."
        )
        return RESTART
    return 0
