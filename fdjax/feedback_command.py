"""The command `fdjax feedback`: a model's answers ahead of time, for later replays."""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table

from fdjax.errors import ConfigError, DataError
from fdjax.feedback import (
    AnthropicEndpoint,
    Attempt,
    Budget,
    Caps,
    CritiqueSettings,
    Feedback,
    Limits,
    ModelFeedback,
    OpenAIEndpoint,
    Prices,
    Usage,
    Watched,
    iterate_groups,
)
from fdjax.signals import first_stop_signal

__all__ = ["FeedbackOptions", "write_ahead"]


@dataclass(frozen=True, kw_only=True)
class FeedbackOptions:
    """Who writes and how; the command line's options."""

    writer: Literal["openai", "anthropic"]
    """API of the model: OpenAI's chat completions, which many servers speak, or
    Anthropic's messages."""
    model: str
    """The server's name of the model."""
    base_url: str = ""
    """Address of the API; the provider's own by default."""
    key_env: str | None = None
    """Environment variable that holds the key; OPENAI_API_KEY or ANTHROPIC_API_KEY by
    default, and empty for a server that asks for none."""
    max_tokens: int = 2048
    """Tokens of an answer at most."""
    parameters: str = "{}"
    """Further fields of a request as a JSON object, such as '{"temperature": 0.7}'."""
    per: Literal["attempt", "group"] = "attempt"
    """Whether a question is about one attempt or about those at one theorem."""
    template: str = ""
    """Name of a template, or the path of your own; fdjax's newest by default."""
    sentences: int = CritiqueSettings().sentences
    """How long a review may be."""
    references: int = 0
    """Known proofs of the theorem that the model reads."""
    peers: int = 0
    """Proofs among the attempts of a group that the model reads."""
    caps: Caps = field(default_factory=Caps)
    """How much of theorem, attempts and messages the model reads."""
    concurrency: int = Limits().concurrency
    """Requests under way at a time."""
    requests_per_minute: float | None = None
    """Pace at which requests start."""
    timeout: float = Limits().timeout_s
    """Longest time for one request, in seconds."""
    attempts: int = Limits().attempts
    """How often a question is sent at most."""
    price_input: float = 0.0
    """US dollars for 10^6 tokens of input."""
    price_output: float = 0.0
    """US dollars for 10^6 tokens of output."""
    budget_usd: float | None = None
    """US dollars to spend at most."""
    budget_tokens: int | None = None
    """Tokens to use at most."""

    def config(self, recording: Path) -> ModelFeedback:
        """The writer's configuration; a run with the same can replay the recording.

        Raises:
          ConfigError: an option is out of range, or does not fit another.
        """
        given: dict[str, Any] = {
            "model": self.model,
            "max_tokens": self.max_tokens,
            "parameters": self._parameters(),
        }
        if self.base_url:
            given["base_url"] = self.base_url
        if self.key_env is not None:
            given["key_env"] = self.key_env
        kinds = {"openai": OpenAIEndpoint, "anthropic": AnthropicEndpoint}
        return ModelFeedback(
            endpoint=kinds[self.writer](**given),
            per=self.per,
            template=self.template,
            settings=CritiqueSettings(
                caps=self.caps,
                sentences=self.sentences,
                references=self.references,
                peers=self.peers,
            ),
            limits=Limits(
                concurrency=self.concurrency,
                requests_per_minute=self.requests_per_minute,
                timeout_s=self.timeout,
                attempts=self.attempts,
                # Nobody waits for a batch here.
                deadline_s=86_400.0,
            ),
            prices=Prices(input=self.price_input, output=self.price_output),
            budget=Budget(tokens=self.budget_tokens, cost_usd=self.budget_usd),
            recording=recording,
        )

    def _parameters(self) -> dict[str, Any]:
        try:
            value = json.loads(self.parameters)
        except ValueError as error:
            raise ConfigError(
                f"--parameters: expected a JSON object, got {self.parameters!r} "
                f"({error}); put it between single quotes"
            ) from error
        if not isinstance(value, dict):
            raise ConfigError(
                f"--parameters: expected a JSON object, got {self.parameters!r}; write "
                "names and values between braces"
            )
        return value


def write_ahead(attempts: Path, out: Path, options: FeedbackOptions) -> int:
    """Asks about every attempt of a file and records the answers.

    What is recorded already is not asked for again, so that a stopped command goes on
    where it was. Progress goes to stderr, a table to stdout. Call it in the main
    thread: it handles SIGINT and SIGTERM.

    Args:
      attempts: rows of a run's samples.jsonl (`iterate_groups`).
      out: recording to write, or to go on with.
      options: the model, and how it is asked.

    Returns:
      Exit code: 0 when there is feedback on all attempts, 1 when some is missing, 130
      or 143 when stopped.

    Raises:
      ConfigError: an option is wrong, or there is no key.
      DataError: a file cannot be read or written, or holds something else.
      FeedbackError: too much feedback is missing for the command to be of use.
      InstallError: the model's SDK is missing.
    """
    if out.exists() and out.samefile(attempts):
        raise ConfigError(
            f"--out: expected another file than the input, got {out}; name another one"
        )
    total = sum(len(group) for group in iterate_groups(attempts))
    if total == 0:
        raise DataError(
            f"expected attempts that were judged in {attempts}, got none: name the "
            "samples.jsonl of a run"
        )
    writer = options.config(out).make()
    console = Console(stderr=True)
    tally = _Tally()
    with _bar(console) as bar:
        task = bar.add_task("", total=total, counts="")

        def show(notes: Sequence[Feedback]) -> None:
            tally.add(notes)
            bar.update(task, completed=tally.attempts, counts=tally.line())

        # Enough groups for all requests, also where a group is one attempt.
        stopped = asyncio.run(
            _write_all(writer, iterate_groups(attempts), show, 2 * options.concurrency)
        )
    Console().print(tally.table(out))
    if stopped:
        console.print(
            f"{signal.Signals(stopped).name}: stopped. What was answered is in {out}; "
            "run the same command again to go on.",
            soft_wrap=True,
            highlight=False,
        )
        return 128 + stopped
    if missing := tally.missing:
        console.print(
            f"{missing:,} of {total:,} attempts have no feedback. Run the same command "
            "again to ask about them once more; refusals are kept.",
            soft_wrap=True,
            highlight=False,
        )
    return int(tally.missing > 0)


async def _write_all(
    writer: Watched,
    groups: Iterator[list[Attempt]],
    show: Callable[[Sequence[Feedback]], None],
    at_once: int,
) -> int:
    """Feedback on all groups; the signal that stopped it, or 0."""
    stopped = 0
    loop = asyncio.get_running_loop()
    work = loop.create_task(_write_some_at_once(writer, groups, show, at_once))

    def stop(number: int) -> None:
        nonlocal stopped
        stopped = number
        loop.call_soon_threadsafe(work.cancel)

    try:
        with first_stop_signal(stop), suppress(asyncio.CancelledError):
            await work
    finally:
        await writer.aclose()
    return stopped


async def _write_some_at_once(
    writer: Watched,
    groups: Iterator[list[Attempt]],
    show: Callable[[Sequence[Feedback]], None],
    at_once: int,
) -> None:
    """Reads a group when another one is finished: files may be of any length."""

    async def write(group: list[Attempt]) -> None:
        show(await writer.write(group))

    running: set[asyncio.Task[None]] = set()
    try:
        for group in groups:
            running.add(asyncio.create_task(write(group)))
            if len(running) >= at_once:
                running = await _rest(running)
        while running:
            running = await _rest(running)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _rest(running: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
    """Those that are not finished when one is; raises what that one raised."""
    finished, rest = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    for task in finished:
        task.result()
    return rest


@dataclass(kw_only=True)
class _Tally:
    """What was written so far."""

    attempts: int = 0
    usage: Usage = field(default_factory=Usage)
    kinds: Counter[str] = field(default_factory=Counter)
    """Missing feedback by the kind of failure."""

    def add(self, notes: Sequence[Feedback]) -> None:
        """Counts the feedback on a group."""
        self.attempts += len(notes)
        self.usage = sum((note.usage for note in notes), self.usage)
        self.kinds.update(str(note.kind) for note in notes if note.kind is not None)

    @property
    def missing(self) -> int:
        """Attempts without feedback."""
        return self.kinds.total()

    def line(self) -> str:
        """What a progress bar says."""
        paid = f"{self.usage.requests:,} requests, {self.usage.tokens:,} tokens"
        if self.usage.cost_usd:
            paid += f", ${self.usage.cost_usd:,.2f}"
        return paid + (f", {self.missing:,} missing" if self.missing else "")

    def table(self, out: Path) -> Table:
        """The summary at the end."""
        usage = self.usage
        table = Table(show_header=False)
        for name, value in (
            ("recording", str(out)),
            ("attempts", f"{self.attempts:,}"),
            ("read from the recording", f"{usage.recorded:,}"),
            ("requests", f"{usage.requests:,}, {usage.retries:,} of them again"),
            ("tokens", f"{usage.input_tokens:,} in, {usage.output_tokens:,} out"),
            ("US dollars", f"{usage.cost_usd:,.2f}"),
            ("characters left out", f"{usage.cut_characters:,}"),
            *((f"missing: {kind}", f"{n:,}") for kind, n in self.kinds.most_common()),
        ):
            table.add_row(name, escape(value))
        return table


def _bar(console: Console) -> Progress:
    whole = Column(no_wrap=True)
    return Progress(
        BarColumn(bar_width=16),
        MofNCompleteColumn(table_column=whole),
        TimeRemainingColumn(table_column=whole),
        TextColumn("{task.fields[counts]}", table_column=Column(overflow="ellipsis")),
        console=console,
    )
