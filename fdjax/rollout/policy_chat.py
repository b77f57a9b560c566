"""The policy as the model that writes feedback on its own attempts."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
from jaxtyping import Array, Key
from transformers import PreTrainedTokenizerFast

from fdjax.data.chat import prompt_tokens
from fdjax.data.formats import PromptFormat
from fdjax.data.tokenizer import continuation_texts
from fdjax.errors import FeedbackError
from fdjax.feedback import Kind, PolicyFeedback, Usage
from fdjax.feedback.chat.chat import Answer, Failure, Question, Reply, at_no_cost
from fdjax.feedback.chat.recording import Recording, question_key
from fdjax.records import Problem
from fdjax.sampling import Sampler, SamplingError

__all__ = ["PolicyChat"]


@dataclass(kw_only=True)
class _Round:
    """A rollout whose groups are written on."""

    key: Key[Array, ""]
    identity: Mapping[str, Any]
    open_groups: int
    """Groups whose feedback is not there yet."""
    waiting: list[tuple[list[Question], "asyncio.Future[list[Answer]]"]] = field(
        default_factory=list
    )
    """What they have asked, each with the place for its answers."""
    tasks: set["asyncio.Task[None]"] = field(default_factory=set)


class PolicyChat:
    """Answers with the weights that sampled the attempts (`Chat`).

    The questions about all groups of a rollout are asked together: each waits until
    every group has asked or is done. An answer is a function of the weights, the
    rollout's key and the question, whatever else is asked: equal questions of a rollout
    have equal answers.

    A recording is keyed by the policy's name, the phase, its step and the rollout's
    key, not by the weights: give runs that differ in anything else a file each.
    """

    def __init__(
        self,
        settings: PolicyFeedback,
        sampler: Sampler,
        tokenizer: PreTrainedTokenizerFast,
        *,
        format: PromptFormat,
        name: str,
    ) -> None:
        """Opens the recording, if there is one.

        Args:
          settings: lengths, recording.
          sampler: that of the attempts.
          tokenizer: the policy's own.
          format: of the run's prompts; of it the chat template and its arguments count.
          name: of the policy, in recordings.

        Raises:
          ConfigError: the tokenizer lacks a chat template.
          DataError: the recording cannot be opened.
        """
        self._settings = settings
        self._sampler = sampler
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
        self, key: Key[Array, ""], *, phase: str, step: int, groups: int
    ) -> Iterator[Callable[[], None]]:
        """Answers questions about one rollout, by the weights of the sampler.

        Yields what is called on the event loop whenever a group has its feedback, or
        will have none.

        Args:
          key: typed PRNG key that it was sampled with.
          phase: as its rows are called.
          step: optimizer steps that made the weights.
          groups: how many there are.
        """
        settings = self._settings
        self._round = under_way = _Round(
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
            yield partial(self._done, under_way)
        finally:
            self._round = None
            for task in [*under_way.tasks]:
                task.get_loop().call_soon_threadsafe(task.cancel)

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
        task = asyncio.create_task(self._answer(under_way, waiting))
        under_way.tasks.add(task)
        task.add_done_callback(under_way.tasks.discard)

    async def _answer(
        self,
        under_way: _Round,
        waiting: Sequence[tuple[list[Question], "asyncio.Future[list[Answer]]"]],
    ) -> None:
        """Has sampled what was asked, and hands it to those who wait."""
        asked = {
            question_key(under_way.identity, question): question
            for questions, _ in waiting
            for question in questions
        }
        try:
            # By key: in the same order, whichever group was first.
            answers = await self._answers(under_way, dict(sorted(asked.items())))
        # What samplers and tokenizers raise costs the rollout its feedback.
        except Exception as error:  # noqa: BLE001
            for _, place in waiting:
                if not place.done():
                    place.set_exception(error)
            return
        for questions, place in waiting:
            found = []
            for question in questions:
                key = question_key(under_way.identity, question)
                found.append(answers[key])
                # Who asks the same later does so for nothing.
                answers[key] = at_no_cost(answers[key])
            if not place.done():
                place.set_result(found)

    async def _answers(
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
        sampled = await self._sampled(under_way, list(new.values()))
        for (key, question), answer in zip(new.items(), sampled, strict=True):
            if self._recording is not None and isinstance(answer, Reply):
                answer = self._recording.keep(under_way.identity, question, answer)
            answers[key] = answer
        return answers

    async def _sampled(
        self, under_way: _Round, questions: Sequence[Question]
    ) -> list[Answer]:
        """What the policy says to each question."""
        texts = ["\n\n".join(filter(None, (q.system, q.user))) for q in questions]
        prompts = prompt_tokens(
            self._tokenizer, [_asked(text) for text in texts], format=self._format
        )
        with self._sampler.together():
            answers = [
                asyncio.ensure_future(self._said(under_way, question, prompt))
                for question, prompt in zip(questions, prompts, strict=True)
            ]
            # Each submits its prompt.
            await asyncio.sleep(0)
        return await asyncio.gather(*answers)

    async def _said(
        self, under_way: _Round, question: Question, prompt: Sequence[int]
    ) -> Answer:
        """What the policy says to one question."""
        settings = self._settings
        if len(prompt) > settings.prompt_tokens:
            return Failure(
                kind=Kind.INVALID,
                text=f"the question has {len(prompt)} tokens, more than prompt_tokens "
                f"= {settings.prompt_tokens}",
            )
        # Of what is asked alone: the key is of this rollout.
        number = int(question_key({}, question)[:8], 16)
        try:
            sample = await asyncio.wrap_future(
                self._sampler.submit(
                    prompt,
                    jax.random.fold_in(under_way.key, number),
                    max_new_tokens=settings.max_new_tokens,
                    temperature=settings.temperature,
                )
            )
        except SamplingError as error:
            return Failure(kind=Kind.SERVER, text=str(error))
        [text] = continuation_texts(self._tokenizer, [sample.tokens])
        return Reply(
            text=text,
            finish="complete" if sample.stop == "stop" else "cut",
            usage=Usage(
                requests=1,
                input_tokens=len(prompt),
                output_tokens=len(sample.tokens),
            ),
        )


def _asked(text: str) -> Problem:
    """A text as what a prompt is about."""
    return Problem(name="question", statement=text)
