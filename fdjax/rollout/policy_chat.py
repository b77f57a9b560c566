"""The policy as the model that writes feedback on its own attempts."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key
from transformers import PreTrainedTokenizerFast

from fdjax.data.chat import prompt_tokens
from fdjax.data.formats import PromptFormat
from fdjax.data.packing import pad_left
from fdjax.data.tokenizer import continuation_texts, pad_token
from fdjax.errors import FeedbackError
from fdjax.feedback import Kind, PolicyFeedback, Usage
from fdjax.feedback.chat.chat import Answer, Failure, Question, Reply, at_no_cost
from fdjax.feedback.chat.recording import Recording, question_key
from fdjax.records import Problem
from fdjax.rollout.event_loop import Jobs
from fdjax.sampling import Generate

__all__ = ["PolicyChat"]


@dataclass(kw_only=True)
class _Round:
    """A rollout whose groups are written on."""

    params: Any
    key: Key[Array, ""]
    identity: Mapping[str, Any]
    open_groups: int
    """Groups whose feedback is not there yet."""
    waiting: list[tuple[list[Question], "asyncio.Future[list[Answer]]"]] = field(
        default_factory=list
    )
    """What they have asked, each with the place for its answers."""
    jobs: Jobs = field(default_factory=Jobs)


class PolicyChat:
    """Answers with the weights that sampled the attempts (`Chat`).

    The questions about all groups of a rollout are sampled together, in the thread that
    called `Pipeline.collect`: each waits until every group has asked or is done. An
    answer is a function of the weights, the rollout's key and the question, whatever
    else is asked: equal questions of a rollout have equal answers.

    A recording is keyed by the policy's name, the phase, its step and the rollout's
    key, not by the weights: give runs that differ in anything else a file each.
    """

    def __init__(
        self,
        settings: PolicyFeedback,
        generate: Generate,
        tokenizer: PreTrainedTokenizerFast,
        *,
        format: PromptFormat,
        name: str,
    ) -> None:
        """Opens the recording, if there is one.

        Args:
          settings: lengths, recording.
          generate: samples at most `settings.max_new_tokens` at
            `settings.temperature`.
          tokenizer: the policy's own.
          format: of the run's prompts; of it the chat template and its arguments count.
          name: of the policy, in recordings.

        Raises:
          ConfigError: the tokenizer lacks a chat template.
          DataError: the recording cannot be opened.
        """
        self._settings = settings
        self._generate = generate
        self._tokenizer = tokenizer
        self._format = replace(
            format, user="{{ statement }}", system=None, prefill="", answer=None
        )
        self._name = name
        self._round: _Round | None = None
        # Its errors are better now than after the first attempts.
        prompt_tokens(tokenizer, [_asked("?")], format=self._format)
        self._recording = (
            None
            if settings.recording is None
            else Recording(settings.recording, writable=not settings.replay)
        )

    @contextmanager
    def round(
        self, params: Any, key: Key[Array, ""], *, phase: str, step: int, groups: int
    ) -> Iterator[tuple[Jobs, Callable[[], None]]]:
        """Answers questions about one rollout.

        Yields what its caller does meanwhile (`EventLoop.run`), and what is called on
        the event loop whenever a group has its feedback, or will have none.

        Args:
          params: weights that sampled it.
          key: typed PRNG key that it was sampled with.
          phase: as its rows are called.
          step: optimizer steps that made the weights.
          groups: how many there are.
        """
        settings = self._settings
        self._round = under_way = _Round(
            params=params,
            key=key,
            identity={
                "api": "policy",
                "model": self._name,
                "phase": phase,
                "step": step,
                "key": jax.device_get(jax.random.key_data(key)).tolist(),
                "parameters": {
                    "max_new_tokens": settings.max_new_tokens,
                    "temperature": settings.temperature,
                },
            },
            open_groups=groups,
        )
        try:
            yield under_way.jobs, partial(self._done, under_way)
        finally:
            self._round = None

    @property
    def identity(self) -> Mapping[str, Any]:
        """Policy, phase, step, key and parameters (`Chat.identity`)."""
        return self._under_way.identity

    async def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer for each question, in order (`Chat`)."""
        place = asyncio.get_running_loop().create_future()
        self._under_way.waiting.append((list(questions), place))
        self._answer_if_all_wait(self._under_way)
        return await place

    async def aclose(self) -> None:
        """Closes the recording."""
        if self._recording is not None:
            self._recording.close()

    @property
    def _under_way(self) -> _Round:
        if self._round is None:
            raise FeedbackError(
                "expected questions to the policy during Pipeline.collect, got one "
                "outside: give the chat to the pipeline that has its writer"
            )
        return self._round

    def _done(self, under_way: _Round) -> None:
        under_way.open_groups -= 1
        self._answer_if_all_wait(under_way)

    def _answer_if_all_wait(self, under_way: _Round) -> None:
        waiting = [each for each in under_way.waiting if not each[1].done()]
        if not waiting or len(waiting) < under_way.open_groups:
            return
        under_way.waiting = []
        loop = asyncio.get_running_loop()
        under_way.jobs.put(partial(self._answer, under_way, waiting, loop))

    def _answer(
        self,
        under_way: _Round,
        waiting: Sequence[tuple[list[Question], "asyncio.Future[list[Answer]]"]],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """Samples, in the caller's thread, what was asked; hands it to the loop."""
        asked = {
            question_key(under_way.identity, question): question
            for questions, _ in waiting
            for question in questions
        }
        try:
            # By key: in the same order, whichever group was first.
            answers = self._answers(under_way, dict(sorted(asked.items())))
        # What devices and tokenizers raise costs the rollout its feedback.
        except Exception as error:  # noqa: BLE001
            for _, place in waiting:
                loop.call_soon_threadsafe(_fail, place, error)
            return
        for questions, place in waiting:
            found = []
            for question in questions:
                key = question_key(under_way.identity, question)
                found.append(answers[key])
                # Who asks the same later does so for nothing.
                answers[key] = at_no_cost(answers[key])
            loop.call_soon_threadsafe(_give, place, found)

    def _answers(
        self, under_way: _Round, asked: Mapping[str, Question]
    ) -> dict[str, Answer]:
        """The answer of each key: a recorded one, or one that is sampled now."""
        answers: dict[str, Answer] = {}
        for key in asked:
            kept = None if self._recording is None else self._recording.get(key)
            if kept is not None:
                answers[key] = at_no_cost(kept)
        new = {key: asked[key] for key in asked if key not in answers}
        if self._settings.replay:
            what = f"no such answer in {self._settings.recording}"
            return answers | dict.fromkeys(
                new, Failure(kind=Kind.UNRECORDED, text=what)
            )
        sampled = self._sampled(under_way, list(new.values()))
        for (key, question), answer in zip(new.items(), sampled, strict=True):
            if self._recording is not None and isinstance(answer, Reply):
                answer = self._recording.keep(under_way.identity, question, answer)
            answers[key] = answer
        return answers

    def _sampled(
        self, under_way: _Round, questions: Sequence[Question]
    ) -> list[Answer]:
        """What the policy says, in batches of one size."""
        settings = self._settings
        texts = ["\n\n".join(filter(None, (q.system, q.user))) for q in questions]
        ids = prompt_tokens(
            self._tokenizer, [_asked(text) for text in texts], format=self._format
        )
        answers: list[Answer] = [
            Failure(
                kind=Kind.INVALID,
                text=f"the question has {len(row)} tokens, more than prompt_tokens = "
                f"{settings.prompt_tokens}",
            )
            for row in ids
        ]
        fitting = [n for n, row in enumerate(ids) if len(row) <= settings.prompt_tokens]
        # Of what is asked alone: the key is of this rollout.
        numbers = [int(question_key({}, one)[:8], 16) for one in questions]
        for start in range(0, len(fitting), settings.rows):
            part = fitting[start : start + settings.rows]
            rows = [*part, *[part[-1]] * (settings.rows - len(part))]
            prompts, valid = pad_left(
                [ids[row] for row in rows],
                width=settings.prompt_tokens,
                pad=pad_token(self._tokenizer),
            )
            keys = jax.vmap(partial(jax.random.fold_in, under_way.key))(
                jax.device_put(np.array([numbers[row] for row in rows], np.uint32))
            )
            sampled = jax.tree.map(
                np.asarray, self._generate(under_way.params, prompts, valid, keys)
            )
            written = [
                tokens[mask]
                for tokens, mask in zip(sampled.tokens, sampled.mask, strict=True)
            ]
            said = continuation_texts(self._tokenizer, written)
            for place, row in enumerate(part):
                answers[row] = Reply(
                    text=said[place],
                    finish="complete" if sampled.finished[place] else "cut",
                    usage=Usage(
                        requests=1,
                        input_tokens=len(ids[row]),
                        output_tokens=len(written[place]),
                    ),
                )
        return answers


def _asked(text: str) -> Problem:
    """A text as what a prompt is about."""
    return Problem(name="question", statement=text)


def _give(place: "asyncio.Future[list[Answer]]", answers: list[Answer]) -> None:
    if not place.done():
        place.set_result(answers)


def _fail(place: "asyncio.Future[list[Answer]]", error: Exception) -> None:
    if not place.done():
        place.set_exception(error)
