"""An experiment as a command: settings from flags, errors as one line, exit codes."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import tyro
from rich.markup import escape

from fdjax.errors import FdjaxError
from fdjax.run.console import Display
from fdjax.train import StoppedError

__all__ = ["run_command"]

Config = TypeVar("Config")


def run_command(
    default: Config,
    run: Callable[[Config, Display], object],
    arguments: Sequence[str] | None = None,
) -> int:
    """Runs with the settings that the command line gives.

    Args:
      default: settings where no flag says otherwise.
      run: what to do with them.
      arguments: of the command line; the process's own by default.

    Returns:
      The exit code: 0 done, 2 bad input, 130 interrupted.
    """
    display = Display()
    try:
        run(tyro.cli(type(default), default=default, args=arguments), display)
    except StoppedError as stopped:
        display.say(f"{stopped} The same command with --resume goes on.")
        return 130
    except (FdjaxError, OSError) as error:
        # JAX marks its own note, on tracebacks that nobody sees here, with a rule.
        notes = [
            note
            for note in getattr(error, "__notes__", [])
            if not note.startswith("---")
        ]
        display.say(f"[bold red]error[/] {escape(' '.join([str(error), *notes]))}")
        return 2
    return 0
