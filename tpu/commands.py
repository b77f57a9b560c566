"""Commands of other programs: shown exactly, or run one after the other."""

import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from fdjax.errors import FdjaxError, InstallError

__all__ = [
    "PATIENCE",
    "CommandError",
    "Step",
    "output",
    "perform",
    "require_programs",
]

PATIENCE = 30
"""Times in a row that a question may go without an answer. No answer says nothing."""

_HOMES = {
    "gcloud": "https://cloud.google.com/sdk/docs/install",
    "kubectl": "gcloud components install kubectl",
    "docker": "https://docs.docker.com/engine/install",
    "sky": 'pip install "skypilot[gcp]"',
    "xpk": "pip install xpk",
    "tee": "coreutils",
    "git": "https://git-scm.com/downloads",
}


class CommandError(FdjaxError, RuntimeError):
    """A command failed, or what it waited for cannot come."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A command, and what is expected of it."""

    command: tuple[str, ...]
    """Program and arguments."""
    stdin: str = ""
    """What it reads."""
    until: tuple[str, ...] = ()
    """Run it again until it prints one of these; it may run for hours."""
    never: tuple[str, ...] = ()
    """Outputs after which none of `until` can come."""
    remedy: str = ""
    """What to do after them."""

    def text(self) -> str:
        """As it is typed into a shell: one flag a line."""
        lines: list[list[str]] = [[]]
        for word in self.command:
            if word.startswith("--") and len(word) > 2 and len(lines[0]) > 1:
                lines.append([])
            lines[-1].append(shlex.quote(word))
        text = " \\\n  ".join(" ".join(line) for line in lines)
        if self.stdin:
            text += f" <<'END'\n{self.stdin.rstrip()}\nEND"
        if self.until:
            words = " or ".join(self.until)
            text = f"# again each minute, until it says {words}\n{text}"
        return text


def perform(steps: Sequence[Step], *, dry_run: bool) -> None:
    """Runs steps, or prints them.

    Args:
      steps: in their order.
      dry_run: print them, and run none.

    Raises:
      InstallError: a program is not there; nothing was run.
      CommandError: a command failed; those after it were not run.
    """
    if dry_run:
        sys.stdout.write("\n".join(f"{step.text()}\n" for step in steps))
        return
    require_programs(steps)
    for step in steps:
        _run(step)


def require_programs(steps: Sequence[Step]) -> None:
    """Looks for what the steps run.

    Raises:
      InstallError: a program is not there.
    """
    for program in dict.fromkeys(step.command[0] for step in steps):
        if shutil.which(program) is None:
            raise InstallError(
                f"expected the program {program} on PATH, got none: install it "
                f"({_HOMES[program]}), or look at the commands with --dry-run"
            )


def _run(step: Step) -> None:
    sys.stderr.write(f"{step.text()}\n")
    sys.stderr.flush()
    if step.until:
        return _wait(step)
    code = subprocess.run(
        step.command, check=False, input=step.stdin.encode() if step.stdin else None
    ).returncode
    if code:
        raise CommandError(
            f"expected exit code 0 of {shlex.join(step.command[:4])} …, got {code}: "
            "its own message is above; nothing after it was run"
        )


def _wait(step: Step, *, pause_s: float = 60.0) -> None:
    unanswered = 0
    while True:
        try:
            said = output(step.command)
            unanswered = 0
        except CommandError as error:
            unanswered += 1
            if unanswered > PATIENCE:
                raise
            said = str(error)
        if said in step.until:
            return
        sys.stderr.write(f"{said or 'nothing yet'}\n")
        if said in step.never:
            raise CommandError(
                f"expected {' or '.join(step.until)} of "
                f"{shlex.join(step.command[:4])} …, got {said}: {step.remedy}"
            )
        time.sleep(pause_s)


def output(command: Sequence[str]) -> str:
    """What a command prints, without blanks around it.

    Raises:
      CommandError: it failed, and so has said nothing, not even that there is nothing.
    """
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise CommandError(
            f"expected an answer of {shlex.join(command[:4])} …, got exit code "
            f"{done.returncode}: its own message is above; it counts as no answer"
        )
    return done.stdout.strip()
