"""A prompt format: data that says how to ask, and a function that finds the answer."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from fdjax.data.formats.places import PLACES, comment, fenced, places
from fdjax.errors import ConfigError
from fdjax.judge.answer import Extract, extract_name
from fdjax.lean.facts.backend import WholeFile
from fdjax.records import Problem, is_unicode

__all__ = ["PromptFormat"]

_OWN_ARGUMENTS = frozenset(
    (
        *("add_generation_prompt", "chat_template", "continue_final_message"),
        *("conversation", "max_length", "messages", "padding", "return_dict"),
        *("return_assistant_tokens_mask", "return_tensors", "sanitize_control_tokens"),
        *("strftime_now", "tokenize", "tokenizer_kwargs", "truncation"),
    )
)
"""What we give to the chat template, or to what renders it, ourselves."""

_PROBE = Problem(name="probe", statement="theorem probe : True", informal="True holds.")
_PROOF = "  trivial"


@dataclass(frozen=True, kw_only=True)
class PromptFormat:
    r"""How a problem is put to a model, and where the answer is in what it writes.

    `user`, `informed`, `prefill` and `answer` are Jinja templates. Each may name a
    problem's `PLACES` (`places` says what they are) and use two filters: `fenced` puts
    a text between code fences, `comment` makes it a comment in Lean. Texts of problems
    and feedback are data: what looks like a template in them is text.

    >>> from fdjax.judge.answer import last_fence
    >>> terse = PromptFormat(user="Prove it:\n{{ file | fenced }}", extract=last_fence)
    >>> print(terse.user_turn(Problem(name="t", statement="theorem t : True")))
    Prove it:
    ```lean4
    theorem t : True := by
      sorry
    ```

    Raises:
      ConfigError: a template does not parse, names a place that does not exist or
        leaves feedback out; an argument of the chat template is one that we set;
        `extract` does not find the proof that `answer` writes.
    """

    user: str
    """Template of the user's turn."""
    extract: Extract
    """Finds the answer in a completion: `whole_text`, `last_fence`, `up_to_fence`,
    `AfterThinking(...)`, or a function of your own."""
    informed: str = "{{ question }}\n{{ feedback }}"
    """Template of the user's turn where there is feedback; it may also name `feedback`
    and `question`, which is the turn without. By default feedback is added as it is on
    a line of its own, as the method's author does."""
    system: str | None = None
    """The system message; None leaves it to the chat template."""
    prefill: str = ""
    """Template of the beginning of the assistant's turn, which the completion goes on
    from. Control tokens in the template are control tokens."""
    answer: str | None = None
    """Template of a completion that gives a known proof, for supervised training; it
    may also name `proof` (tactic text) and `solved` (the whole file with it). None:
    the format is not for supervised training."""
    chat_template: str | None = None
    """The chat template in Jinja; None takes the tokenizer's own."""
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What the chat template is told besides, such as `enable_thinking`."""

    def __post_init__(self) -> None:
        for name, template, more in self._templates():
            _require_template(f"PromptFormat.{name}", template, {*PLACES, *more})
        if "feedback" not in _names(self.informed):
            raise ConfigError(
                "PromptFormat.informed: expected a template with {{ feedback }}, got "
                f"{self.informed!r}: the teacher would read no feedback"
            )
        if not is_unicode(self.system or ""):
            raise ConfigError(
                "PromptFormat.system: expected valid Unicode, got a lone surrogate: "
                "write the character that is meant"
            )
        if taken := sorted(_OWN_ARGUMENTS & self.arguments.keys()):
            raise ConfigError(
                "PromptFormat.arguments: expected variables of the chat template, got "
                f"{', '.join(taken)}, which fdjax sets itself: leave them out"
            )
        self._try()

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides how a prompt is written and read, as JSON values."""
        written = ("user", "informed", "system", "prefill", "answer", "chat_template")
        return {name: getattr(self, name) for name in written} | {
            "arguments": dict(self.arguments),
            "extract": extract_name(self.extract),
        }

    def user_turn(self, problem: Problem, feedback: str | None = None) -> str:
        """What the user says; without feedback where it is None or empty."""
        texts = places(problem)
        question = _render(self.user, texts)
        if not feedback:
            return question
        return _render(
            self.informed, texts | {"question": question, "feedback": feedback}
        )

    def beginning(self, problem: Problem) -> str:
        """The part of the assistant's turn that stands in the prompt."""
        return _render(self.prefill, places(problem))

    def answer_text(self, problem: Problem, proof: str) -> str:
        """The completion that answers a problem with a known proof.

        Args:
          problem: the problem.
          proof: tactic text, as in `Problem.references`.

        Raises:
          ConfigError: the format has no template for it.
        """
        if self.answer is None:
            raise ConfigError(
                "expected a prompt format that can write answers, got one without: "
                "set PromptFormat.answer, to '{{ proof }}' or '{{ solved | fenced }}' "
                "for instance"
            )
        texts = places(problem)
        solved = f"{texts['opened']}\n{proof}"
        return _render(self.answer, texts | {"proof": proof, "solved": solved})

    def _templates(self) -> Iterator[tuple[str, str, tuple[str, ...]]]:
        yield "user", self.user, ()
        yield "informed", self.informed, ("question", "feedback")
        yield "prefill", self.prefill, ()
        if self.answer is not None:
            yield "answer", self.answer, ("proof", "solved")

    def _try(self) -> None:
        """All templates on a problem, so that a mistake shows before a run does."""
        try:
            self.user_turn(_PROBE, "hint")
            self.beginning(_PROBE)
            written = None if self.answer is None else self.answer_text(_PROBE, _PROOF)
        except TemplateError as error:
            raise ConfigError(
                f"PromptFormat: expected templates that render, got: {error}: correct "
                "the template"
            ) from error
        if written is None:
            return
        found = self.extract(_PROBE, written).submission
        is_file = isinstance(found, WholeFile)
        expected = f"{places(_PROBE)['opened']}\n{_PROOF}" if is_file else _PROOF
        if ((found.text if is_file else found) or "").strip() != expected.strip():
            raise ConfigError(
                "PromptFormat: expected `extract` to find the proof in what `answer` "
                f"writes, got {found!r} from {written!r}: change one of them"
            )


_ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=StrictUndefined, keep_trailing_newline=True
)
_ENVIRONMENT.filters |= {"fenced": fenced, "comment": comment}


@lru_cache(maxsize=64)
def _compiled(template: str) -> Template:
    return _ENVIRONMENT.from_string(template)


@lru_cache(maxsize=64)
def _names(template: str) -> set[str]:
    """The names that a template leaves open."""
    return meta.find_undeclared_variables(_ENVIRONMENT.parse(template))


def _render(template: str, texts: Mapping[str, str]) -> str:
    return _compiled(template).render(texts)


def _require_template(name: str, template: str, known: set[str]) -> None:
    try:
        _compiled(template)
        unknown = sorted(_names(template) - known)
    except TemplateError as error:
        raise ConfigError(
            f"{name}: expected a Jinja template, got: {error}: correct it, or write "
            "{% raw %} around braces that are text"
        ) from error
    if unknown:
        raise ConfigError(
            f"{name}: expected the places {', '.join(sorted(known))}, got "
            f"{', '.join(unknown)}: correct the template"
        )
