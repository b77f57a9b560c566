"""Episodes: sample a turn, run what it calls, go on behind it, until there is an end."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import jax
import numpy as np
from jaxtyping import Array, Bool, Int32, Key
from transformers import PreTrainedTokenizerFast

from fdjax.data.chat import prompt_tokens
from fdjax.data.formats import PLAIN, PromptFormat
from fdjax.data.formats.places import fenced
from fdjax.data.tokenizer import continuation_texts
from fdjax.episodes.calls import Call, CallError, CallFormat
from fdjax.episodes.glue import Glue
from fdjax.episodes.records import Ended, Episode, Turn
from fdjax.episodes.sampler import Sample, Sampler
from fdjax.errors import ConfigError
from fdjax.judge.answer import AfterThinking
from fdjax.ranges import Whole, require_fields
from fdjax.records import Problem
from fdjax.tools import Observation, Toolbox

__all__ = ["Budget", "Episodes"]

_LAST_CALL = "\n(No calls are left: give your final answer now.)"
_NO_CALL = "error: no calls are left"
_TAGS = ("<tool_call>", "</tool_call>")


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What an episode may use."""

    tokens: int = 4096
    """Tokens behind the prompt, those between turns included."""
    turn_tokens: int | None = None
    """Tokens of one turn; None leaves it to `tokens`."""
    calls: int = 16
    """Calls, those that cannot be read included."""
    prompt_tokens: int | None = None
    """Tokens of a prompt; nothing is sampled from a longer one."""

    def __post_init__(self) -> None:
        require_fields(self, tokens=Whole(1), calls=Whole(0))
        for name in ("turn_tokens", "prompt_tokens"):
            if getattr(self, name) is not None:
                require_fields(self, **{name: Whole(1)})


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """Makes episodes for one tokenizer; what does not go together shows at once.

    Raises:
      ConfigError: the chat template cannot tell of the tools or go on behind a turn.
    """

    tokenizer: PreTrainedTokenizerFast
    format: PromptFormat = PLAIN
    """How problems are put; the tools come from `calls`."""
    calls: CallFormat | None = None
    """How calls are written; None for the episode of one turn, the whole proof."""
    budget: Budget = field(default_factory=Budget)

    def __post_init__(self) -> None:
        self.prompt(Problem(name="probe", statement="theorem probe : True"))
        self.glue  # noqa: B018 - its errors are better now

    @cached_property
    def asking(self) -> PromptFormat:
        """The format of the prompts, tools included."""
        return self.format if self.calls is None else self.calls.asking(self.format)

    @cached_property
    def glue(self) -> Glue | None:
        """What stands between turns; None where there is but one."""
        if self.calls is None:
            return None
        return Glue.of(self.tokenizer, self.asking, self.calls)

    def prompt(self, problem: Problem, feedback: str | None = None) -> list[int]:
        """Token ids of the first turn, with what the teacher reads where it is given.

        Raises:
          DataError: a text is not valid Unicode.
        """
        [ids] = prompt_tokens(self.tokenizer, [problem], [feedback], self.asking)
        return ids

    def teacher(
        self, episode: Episode, feedback: str
    ) -> tuple[Int32[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
        """The tokens that a teacher scores, and where they are the policy's own.

        The feedback enters once, in the first turn; what follows is the student's to
        the token.
        """
        prompt = np.asarray(self.prompt(episode.problem, feedback), np.int32)
        row = episode.row
        tokens = np.concatenate([prompt, row.tokens])
        return tokens, np.concatenate([np.zeros(len(prompt), np.bool_), row.mask])

    async def run(
        self,
        problem: Problem,
        sampler: Sampler,
        tools: Toolbox | None,
        key: Key[Array, ""],
    ) -> Episode:
        """One episode; whatever happens in it is data.

        While tools work, nothing is submitted: the sampler's slot is free.

        Args:
          problem: what is to be proved.
          sampler: continues prompts; its n-th turn gets `fold_in(key, n)`.
          tools: of this episode alone; None without calls.
          key: typed PRNG key of this episode.

        Raises:
          ConfigError: the tools are not those that the model is told of.
        """
        self._require(tools)
        prompt = np.asarray(self.prompt(problem), np.int32)
        turns = [Turn(role="user", tokens=prompt)]
        most = self.budget.prompt_tokens
        if most is not None and len(prompt) > most:
            return Episode(problem=problem, turns=tuple(turns), ended="prompt", text="")
        seconds: Counter[str] = Counter()
        state = _State(
            context=prompt.tolist(), left=self.budget.tokens, calls=self.budget.calls
        )
        for number in itertools.count():
            with _timed(seconds, "sample"):
                turn_key = jax.random.fold_in(key, number)
                turn, ended = await self._turn(sampler, turn_key, state)
            turns.append(turn)
            if ended is None:
                with _timed(seconds, "tools"):
                    answer, ended = await self._answer(turn, tools, state)
                if answer is not None:
                    turns.append(answer)
            if ended is not None:
                break
        text, from_file = self._to_judge(problem, turns, tools)
        return Episode(
            problem=problem,
            turns=tuple(turns),
            ended=ended,
            text=text,
            from_file=from_file,
            seconds=dict(seconds),
        )

    def words(self, tokens: Int32[np.ndarray, " N"]) -> str:
        """The text of a turn; control tokens are left out, tags of calls are not."""
        known = self.tokenizer.get_added_vocab()
        tags = {known[tag]: tag for tag in _TAGS if tag in known}
        parts: list[str] = []
        row: list[int] = []
        for token in [*map(int, tokens), None]:
            if token is None or token in tags:
                parts += continuation_texts(self.tokenizer, [row])
                parts.append("" if token is None else tags[token])
                row = []
            else:
                row.append(token)
        return "".join(parts)

    def _require(self, tools: Toolbox | None) -> None:
        told = None if self.calls is None else tuple(self.calls.specs)
        given = None if tools is None else tools.specs
        if told != given:
            raise ConfigError(
                "Episodes.run: expected the tools that the model is told of, "
                f"{_names(told)}, got {_names(given)}: give Episodes.calls the specs "
                "of the toolbox"
            )

    async def _turn(
        self, sampler: Sampler, key: Key[Array, ""], state: "_State"
    ) -> tuple[Turn, Ended | None]:
        """The policy's next turn, and why nothing can follow it."""
        most = min(state.left, self.budget.turn_tokens or state.left)
        sample: Sample = await asyncio.wrap_future(
            sampler.submit(state.context, key, max_new_tokens=most)
        )
        turn = Turn(
            role="assistant",
            tokens=np.asarray(sample.tokens, np.int32),
            logprobs=sample.logprobs,
            behaviour_logprobs=sample.behaviour_logprobs,
            entropy=sample.entropy,
            version=sample.version,
        )
        is_all = most == state.left
        state.add(turn.tokens)
        if sample.stop == "length":
            return turn, "tokens" if is_all else "turn"
        return turn, "answer" if self.calls is None else None

    async def _answer(
        self, turn: Turn, tools: Toolbox | None, state: "_State"
    ) -> tuple[Turn | None, Ended | None]:
        """What follows a turn that may have calls, and why the episode ends there."""
        assert self.calls is not None and self.glue is not None and tools is not None
        requested = self._requested(turn)
        if not requested:
            return None, "answer"
        if not state.calls:
            return None, "calls"
        observations = [await self._seen(each, tools, state) for each in requested]
        if not state.calls:
            last = observations[-1]
            observations[-1] = replace(last, text=f"{last.text}{_LAST_CALL}")
        ids = self.glue.tokens(observations, int(turn.tokens[-1]))
        answer = Turn(
            role="tool",
            tokens=np.asarray(ids, np.int32),
            observations=tuple(observations),
        )
        if len(ids) >= state.left:  # nothing could be sampled behind it
            empty = replace(answer, tokens=np.zeros(0, np.int32))
            return empty, "tokens"
        state.add(answer.tokens)
        return answer, None

    def _requested(self, turn: Turn) -> Sequence[Call | CallError]:
        """The calls of a turn, or the one thing that is wrong with it; empty where it
        is the answer.
        """
        assert self.calls is not None and self.glue is not None
        behind = AfterThinking(opened=self.glue.opened)
        text = behind(Problem(name="", statement=""), self.words(turn.tokens))
        if not isinstance(text.submission, str):
            return ()  # its thinking does not end
        try:
            return self.calls.read(text.submission)
        except CallError as error:
            return (error,)

    async def _seen(
        self, requested: Call | CallError, tools: Toolbox, state: "_State"
    ) -> Observation:
        """What the model is told about one call."""
        if not state.calls:
            assert isinstance(requested, Call)
            return _refused(requested, _NO_CALL)
        state.calls -= 1
        if isinstance(requested, CallError):
            return _refused(Call(name="", arguments={}), f"error: {requested}")
        return await tools.call(requested.name, requested.arguments)

    def _to_judge(
        self, problem: Problem, turns: Sequence[Turn], tools: Toolbox | None
    ) -> tuple[str, bool]:
        """What is to be judged, and whether it is a file."""
        own = [turn for turn in turns if turn.role == "assistant"]
        text = self.words(own[-1].tokens)
        file = None if tools is None else tools.final_file
        if file is None or self.format.extract(problem, text).submission is not None:
            return text, False
        written = fenced(file)
        if self.format.extract(problem, written).submission is None:
            # Such a format reads no files, or wants thinking before them.
            return text, False
        return written, True


@dataclass(kw_only=True)
class _State:
    """Where an episode stands."""

    context: list[int]
    """All tokens so far."""
    left: int
    """Tokens that may follow."""
    calls: int
    """Calls that may follow."""

    def add(self, tokens: Int32[np.ndarray, " N"]) -> None:
        """Tokens were sampled or read."""
        # The sampler may still hold the list before.
        self.context = [*self.context, *tokens.tolist()]
        self.left -= len(tokens)


class _timed:  # noqa: N801 - used like a function
    """Adds the wall time of a block."""

    def __init__(self, seconds: "Counter[str]", stage: str) -> None:
        self._seconds, self._stage = seconds, stage

    def __enter__(self) -> None:
        self._begin = time.monotonic()

    def __exit__(self, *raised: object) -> None:
        self._seconds[self._stage] += time.monotonic() - self._begin  # type: ignore[assignment]


def _refused(call: Call, text: str) -> Observation:
    return Observation(
        tool=call.name, arguments=call.arguments, text=text, ended="refused"
    )


def _names(specs: Sequence[object] | None) -> str:
    if specs is None:
        return "none"
    return ", ".join(getattr(spec, "name", "") for spec in specs)
