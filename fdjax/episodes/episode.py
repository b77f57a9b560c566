"""Episodes for one tokenizer: prompts, the episode itself, what a teacher reads."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Array, Bool, Int32, Key
from transformers import PreTrainedTokenizerFast

from fdjax.data.chat import prompt_tokens
from fdjax.data.formats import PLAIN, PromptFormat
from fdjax.episodes.calls import CallFormat
from fdjax.episodes.glue import Glue
from fdjax.episodes.play import Budget, Play
from fdjax.episodes.records import Episode
from fdjax.errors import ConfigError
from fdjax.records import Problem
from fdjax.sampling import Sampler
from fdjax.tools import Toolbox

__all__ = ["Episodes"]


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """Makes episodes; what does not go together shows when it is made.

    Raises:
      ConfigError: the chat template cannot tell of the tools or go on behind a turn.
    """

    tokenizer: PreTrainedTokenizerFast
    format: PromptFormat = PLAIN
    """How problems are put, and where the answer is; `calls` adds the tools."""
    calls: CallFormat | None = None
    """How calls are written; None for the episode of one turn, the whole proof."""
    budget: Budget = field(default_factory=Budget)

    def __post_init__(self) -> None:
        self.prompts([Problem(name="probe", statement="theorem probe : True")])
        self.glue  # noqa: B018 - its errors are better now than in an episode

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

    def prompts(
        self,
        problems: Sequence[Problem],
        feedback: Sequence[str | None] | None = None,
    ) -> list[list[int]]:
        """Token ids of first turns, with what the teacher reads where it is given.

        Raises:
          DataError: a text is not valid Unicode.
        """
        return prompt_tokens(self.tokenizer, problems, feedback, self.asking)

    async def run(
        self,
        problem: Problem,
        sampler: Sampler,
        tools: Toolbox | None,
        key: Key[Array, ""],
        *,
        prompt: Sequence[int] | None = None,
    ) -> Episode:
        """One episode; whatever the policy does in it is data.

        While tools work, nothing is submitted: the sampler's slot is free.

        Args:
          problem: what is to be proved.
          sampler: continues prompts; the n-th turn, from 0 on, gets `fold_in(key, n)`.
          tools: of this episode alone; None without calls.
          key: typed PRNG key of this episode.
          prompt: token ids of the first turn; those of `prompts` for a student.

        Raises:
          ConfigError: the tools are not those that the model is told of.
          DataError: a text of the problem is not valid Unicode.
        """
        told = () if self.calls is None else tuple(self.calls.specs)
        given = () if tools is None else tools.specs
        if told != given or (tools is None) != (self.calls is None):
            raise ConfigError(
                "Episodes.run: expected the tools that the model is told of, "
                f"{[spec.name for spec in told]}, got {[spec.name for spec in given]}: "
                "make Episodes.calls with the specs of the toolbox"
            )
        play = Play(
            problem=problem,
            prompt=np.asarray(prompt or self.prompts([problem])[0], np.int32),
            tokenizer=self.tokenizer,
            extract=self.format.extract,
            budget=self.budget,
            sampler=sampler,
            key=key,
        )
        if self.glue is None or tools is None:
            return await play.one_turn()
        return await play.turns(self.glue, tools)

    def teacher(
        self, episode: Episode, feedback: str
    ) -> tuple[Int32[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
        """The tokens that a teacher scores, and where they are the policy's own.

        The feedback enters once, in the first turn. What follows is the student's, to
        the token.
        """
        [ids] = self.prompts([episode.problem], [feedback])
        prompt = np.asarray(ids, np.int32)
        row = episode.row
        before = np.zeros(len(prompt), np.bool_)
        return np.concatenate([prompt, row.tokens]), np.concatenate([before, row.mask])
