"""One episode as it happens: sample a turn, run what it calls, go on behind it."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import jax
import numpy as np
from jaxtyping import Array, Int32, Key
from transformers import PreTrainedTokenizerFast

from fdjax.data.formats.places import fenced
from fdjax.episodes.calls import Call, CallError
from fdjax.episodes.glue import Glue
from fdjax.episodes.records import Ended, Episode, Turn
from fdjax.episodes.words import words
from fdjax.judge.answer import AfterThinking, Extract
from fdjax.ranges import Whole, require_fields
from fdjax.records import Problem
from fdjax.sampling import Sampler, SamplingError
from fdjax.tools import Observation, Toolbox

__all__ = ["Budget", "Play"]

_LAST_CALL = "\n(No calls are left: give your final answer now.)"
_NO_CALL = "error: no calls are left"
_ANY = Problem(name="any", statement="theorem any : True")


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What an episode may use.

    Prompt and `tokens` together must fit what the sampler takes: it refuses more, and
    that ends more than an episode.
    """

    tokens: int = 4096
    """Tokens behind the prompt, those between the policy's turns included."""
    turn_tokens: int | None = None
    """Tokens of one of the policy's turns; None leaves it to `tokens`."""
    calls: int = 16
    """Calls, those that cannot be read included."""
    prompt_tokens: int | None = None
    """Tokens of a prompt; nothing is sampled from a longer one."""

    def __post_init__(self) -> None:
        require_fields(self, tokens=Whole(1), calls=Whole(0))
        for name in ("turn_tokens", "prompt_tokens"):
            if getattr(self, name) is not None:
                require_fields(self, **{name: Whole(1)})


@dataclass(kw_only=True)
class Play:
    """An episode on its way."""

    problem: Problem
    prompt: Int32[np.ndarray, " S"]
    tokenizer: PreTrainedTokenizerFast
    extract: Extract
    budget: Budget
    sampler: Sampler
    key: Key[Array, ""]
    _turns: list[Turn] = field(default_factory=list)
    _calls: int = 0
    """How many were made."""
    _seconds: dict[str, float] = field(default_factory=dict)
    _reason: str = ""

    def __post_init__(self) -> None:
        self._turns.append(Turn(role="user", tokens=self.prompt))

    async def one_turn(self) -> Episode:
        """The episode without tools."""
        ended = self._too_long() or await self._sample() or "answer"
        return self._episode(ended)

    async def turns(self, glue: Glue, tools: Toolbox) -> Episode:
        """The episode with tools."""
        ended = self._too_long()
        while ended is None:
            ended = await self._sample() or await self._answer(glue, tools)
        return self._episode(ended, tools.final_file)

    def _too_long(self) -> Ended | None:
        most = self.budget.prompt_tokens
        return "prompt" if most is not None and len(self.prompt) > most else None

    @property
    def _left(self) -> int:
        """Tokens that may follow."""
        return self.budget.tokens - sum(len(turn.tokens) for turn in self._turns[1:])

    async def _sample(self) -> Ended | None:
        """The policy's next turn; says why nothing may follow it."""
        left = self._left
        most = min(left, self.budget.turn_tokens or left)
        number = sum(turn.role == "assistant" for turn in self._turns)
        context = np.concatenate([turn.tokens for turn in self._turns]).tolist()
        with self._timed("sample"):
            key = jax.random.fold_in(self.key, number)
            try:
                sample = await asyncio.wrap_future(
                    self.sampler.submit(context, key, max_new_tokens=most)
                )
            except SamplingError as error:
                self._reason = str(error)
                return "lost"
        self._turns.append(
            Turn(
                role="assistant",
                tokens=np.asarray(sample.tokens, np.int32),
                logprobs=sample.logprobs,
                behaviour_logprobs=sample.behaviour_logprobs,
                entropy=sample.entropy,
                version=sample.version,
            )
        )
        if sample.stop == "stop":
            return None
        # An engine may have a limit of its own, below what was asked for.
        return "tokens" if len(sample.tokens) >= left else "turn"

    async def _answer(self, glue: Glue, tools: Toolbox) -> Ended | None:
        """What follows a turn that calls; says why the episode ends there."""
        turn = self._turns[-1].tokens
        requested = self._requested(glue, turn)
        if not requested:
            return "answer"
        if self._calls >= self.budget.calls:
            return "calls"
        with self._timed("tools"):
            seen = [await self._seen(each, tools) for each in requested]
        if self._calls >= self.budget.calls:
            seen[-1] = replace(seen[-1], text=f"{seen[-1].text}{_LAST_CALL}")
        ids = glue.tokens(seen, int(turn[-1]))
        # Where nothing could be sampled behind them, they are recorded only.
        fits = len(ids) < self._left
        tokens = np.asarray(ids if fits else [], np.int32)
        self._turns.append(Turn(role="tool", tokens=tokens, observations=tuple(seen)))
        return None if fits else "tokens"

    def _requested(
        self, glue: Glue, turn: Int32[np.ndarray, " N"]
    ) -> Sequence[Call | CallError]:
        """The calls of a turn, or what is wrong with it; none where it is the answer.

        In thinking that does not end, nothing is called.
        """
        text = words(self.tokenizer, turn)
        said = AfterThinking(opened=glue.opened)(_ANY, text).submission
        if not isinstance(said, str):
            return ()
        try:
            return glue.calls.read(said)
        except CallError as error:
            return (error,)

    async def _seen(self, requested: Call | CallError, tools: Toolbox) -> Observation:
        """What the model is told of one call."""
        if isinstance(requested, CallError):
            self._calls += 1
            return _refused(Call(name="", arguments={}), f"error: {requested}")
        if self._calls >= self.budget.calls:
            return _refused(requested, _NO_CALL)
        self._calls += 1
        return await tools.call(requested.name, requested.arguments)

    def _episode(self, ended: Ended, file: str | None = None) -> Episode:
        """The whole; `file` is judged where the last turn holds no answer."""
        own = [turn.tokens for turn in self._turns if turn.role == "assistant"]
        text = words(self.tokenizer, own[-1]) if own else ""
        written = None if file is None else fenced(file)
        from_file = (
            written is not None
            and self.extract(self.problem, text).submission is None
            # A format may read no files, or want thinking before them.
            and self.extract(self.problem, written).submission is not None
        )
        return Episode(
            problem=self.problem,
            turns=tuple(self._turns),
            ended=ended,
            text=written if from_file and written is not None else text,
            from_file=from_file,
            reason=self._reason,
            seconds=self._seconds,
        )

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        """Adds the wall time of a block."""
        begin = time.monotonic()
        try:
            yield
        finally:
            seconds = time.monotonic() - begin
            self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds


def _refused(call: Call, text: str) -> Observation:
    return Observation(
        tool=call.name, arguments=call.arguments, text=text, ended="refused"
    )
