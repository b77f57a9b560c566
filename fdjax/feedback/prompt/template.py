"""Versioned templates: files of text with two blocks, rendered in a sandbox."""

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from fdjax.errors import ConfigError, DataError
from fdjax.feedback.chat.chat import Question

__all__ = ["Template"]

_SUFFIX = ".jinja"
_NAME = re.compile(r"[a-z][a-z0-9_]*@[1-9][0-9]*")
_BLOCKS = ("system", "user")


@dataclass(frozen=True, kw_only=True)
class Template:
    """What a model is told and asked; a Jinja file with the blocks `system` and `user`.

    A changed text is another version: recordings are keyed by `name`.
    """

    name: str
    """`name@version`, such as `critique@1`."""
    source: str
    """The file's text."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"expected a template called name@version, such as critique@1, got "
                f"{self.name!r}: rename the file"
            )
        missing = [name for name in _BLOCKS if name not in self._compiled.blocks]
        if missing:
            raise ConfigError(
                f"template {self.name}: expected the blocks system and user, got no "
                f"{missing[0]}: add {{% block {missing[0]} %}}…{{% endblock %}}"
            )

    @classmethod
    def packaged(cls, name: str) -> Self:
        """One of fdjax's own.

        Raises:
          ConfigError: there is none of this name and version.
        """
        folder = files("fdjax.feedback.prompt") / "templates"
        names = sorted(
            each.name.removesuffix(_SUFFIX)
            for each in folder.iterdir()
            if each.name.endswith(_SUFFIX)
        )
        if name not in names:
            raise ConfigError(
                f"expected one of the templates {', '.join(names)}, got {name!r}: "
                "choose one, or read your own with Template.read"
            )
        return cls(name=name, source=(folder / f"{name}{_SUFFIX}").read_text("utf-8"))

    @classmethod
    def read(cls, path: Path) -> Self:
        """A file of your own, called `name@version.jinja`.

        Raises:
          ConfigError: its name or its text is not a template's.
          DataError: it cannot be read.
        """
        try:
            source = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"expected a template in UTF-8 at {path}, got {error}: correct the "
                "path or the file"
            ) from error
        return cls(name=path.name.removesuffix(_SUFFIX), source=source)

    @property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of SHA-256 over the text, for records."""
        return hashlib.sha256(self.source.encode()).hexdigest()[:16]

    def question(self, **values: Any) -> Question:
        """The blocks with values in the places of their names.

        Blank lines around each block are dropped, and what is no Unicode is replaced.

        Raises:
          ConfigError: the template names a value that is not given, or goes wrong.
        """
        system, user = (self._render(name, values) for name in _BLOCKS)
        return Question(
            system=system,
            user=user,
            template=self.name,
            template_digest=self.digest,
        )

    def _render(self, block: str, values: dict[str, Any]) -> str:
        compiled = self._compiled
        context = compiled.new_context(values)
        try:
            text = "".join(compiled.blocks[block](context))
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise ConfigError(
                f"template {self.name}, block {block}: expected values that it can "
                f"render, got {type(error).__name__}: {error}; correct the template"
            ) from error
        # A row's JSON may hold lone surrogates, which no request can.
        return text.strip("\n").encode("utf-8", "replace").decode()

    @cached_property
    def _compiled(self) -> jinja2.Template:
        environment = ImmutableSandboxedEnvironment(
            autoescape=False,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        try:
            return environment.from_string(self.source)
        except jinja2.TemplateError as error:
            raise ConfigError(
                f"template {self.name}: expected a Jinja template, got "
                f"{type(error).__name__}: {error}; correct the file"
            ) from error
