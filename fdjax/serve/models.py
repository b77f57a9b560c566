"""The bodies of requests, as JSON schemas."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field, model_validator

from fdjax.lean import Problem, Submission, WholeFile

__all__ = ["CheckBody", "Code", "LegacyBody", "Snippet", "VerifyBody", "VerifyItem"]

LONGEST_S = 10**9
"""No text has more time, whatever a client asks for; a larger number may not even be
one that a float can hold."""


def _no_infotree(value: Any) -> Any:
    if value is not None:
        raise ValueError("info trees are not offered here; leave infotree out")
    return value


_NoInfotree = Annotated[Any, AfterValidator(_no_infotree)]


class Snippet(BaseModel):
    """A Lean file of a Kimina client."""

    id: str
    code: str


class CheckBody(BaseModel):
    """The body of `POST /api/check`."""

    snippets: list[Snippet]
    timeout: int = Field(30, ge=0, le=LONGEST_S)
    """Seconds that one snippet may take."""
    debug: bool = False
    """Whether the reply says which server answered."""
    reuse: bool = True
    """Accepted; headers are always reused, and nothing else is."""
    infotree: _NoInfotree = None

    @model_validator(mode="after")
    def _check_snippets(self) -> "CheckBody":
        if not self.snippets:
            raise ValueError("`snippets` must be non empty")
        if len({snippet.id for snippet in self.snippets}) != len(self.snippets):
            raise ValueError("`snippets` must have unique ids")
        return self


class Code(BaseModel):
    """A Lean file of an older Kimina client."""

    custom_id: str | int
    proof: str | None = None
    code: str | None = None

    @model_validator(mode="after")
    def _check_text(self) -> "Code":
        if self.proof is None and self.code is None:
            raise ValueError("either `proof` or `code` must be set")
        return self

    @property
    def text(self) -> str:
        """The file."""
        return (self.code if self.proof is None else self.proof) or ""


class LegacyBody(BaseModel):
    """The body of `POST /verify`."""

    codes: list[Code]
    timeout: int = Field(300, le=LONGEST_S)
    """Seconds that one file may take."""
    infotree_type: _NoInfotree = None
    disable_cache: bool = False
    """Accepted; elaborations are never cached."""


class VerifyItem(BaseModel):
    """One proof of one problem."""

    name: str = Field(min_length=1)
    """Name of the theorem that `statement` declares, as it is spelled there."""
    header: str = ""
    """Source before the statement."""
    statement: str = Field(min_length=1)
    """Source of one theorem up to, not including, `:=`."""
    proof: str | None = None
    """Tactic text, to be placed after `:= by`."""
    source: str | None = None
    """Instead of `proof`: a whole file that must prove the statement."""

    @model_validator(mode="after")
    def _check_submission(self) -> "VerifyItem":
        if (self.proof is None) == (self.source is None):
            raise ValueError("either `proof` or `source` must be set")
        return self

    @property
    def problem(self) -> Problem:
        """What is to be proved."""
        return Problem(name=self.name, header=self.header, statement=self.statement)

    @property
    def submission(self) -> Submission:
        """What is to be checked."""
        return WholeFile(self.source or "") if self.proof is None else self.proof


class VerifyBody(BaseModel):
    """The body of `POST /v1/verify`."""

    items: list[VerifyItem]
