"""An algorithm is a tuple of terms: what they read together, and the usual mixture."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fdjax.errors import ConfigError
from fdjax.ranges import Number, require
from fdjax.train.terms.fd import FD
from fdjax.train.terms.grpo import GRPO, GSPO
from fdjax.train.terms.term import Needs, SequenceTerm, Term, TokenTerm, Weight

__all__ = ["mixture", "needs_of"]


def needs_of(terms: Sequence[Term]) -> Needs:
    """What an algorithm reads.

    Raises:
      ConfigError: there are no terms, two of one name, one of no kind or of both, or
        they contradict each other.
    """
    names = [term.name for term in terms]
    if not names or len(set(names)) < len(names):
        raise ConfigError(
            f"expected one or more terms of different names, got {names}: two of a "
            "kind would report their metrics under one name"
        )
    needs = Needs()
    for term in terms:
        if isinstance(term, TokenTerm) == isinstance(term, SequenceTerm):
            raise ConfigError(
                "expected each term to be either a TokenTerm or a SequenceTerm, got "
                f"{type(term).__name__}: give it `rows` and `of_tokens`, or "
                "`of_sequences`"
            )
        if isinstance(term, SequenceTerm) and term.needs.teacher:
            raise ConfigError(
                f"expected no teacher for whole sequences, got {term.name}, which "
                "reads one: make it a TokenTerm"
            )
        needs = needs | term.needs
    return needs


def mixture(
    share: Weight, *, fd: FD, policy_gradient: GRPO | GSPO
) -> tuple[FD | GRPO | GSPO, ...]:
    """(1 − w) · policy gradient + w · distillation; at the ends one of them alone.

    Args:
      share: w in [0, 1], or a schedule of it by the optimizer steps taken.
      fd: the distillation, of weight 1.
      policy_gradient: the other, of weight 1.

    Raises:
      ConfigError: w is not in [0, 1], or a term has another weight already.
    """
    if (fd.weight, policy_gradient.weight) != (1.0, 1.0):
        raise ConfigError(
            f"expected terms of weight 1, got {fd.weight} and "
            f"{policy_gradient.weight}: the share is their weight"
        )
    if callable(share):
        rest = _Rest(share)
        return replace(fd, weight=share), replace(policy_gradient, weight=rest)
    require("share", share, Number(least=0, most=1))
    if share == 0:
        return (policy_gradient,)
    if share == 1:
        return (fd,)
    return replace(fd, weight=share), replace(policy_gradient, weight=1 - share)


@dataclass(frozen=True)
class _Rest:
    """1 − w by the optimizer steps taken."""

    share: Callable[[Any], Any]

    def __call__(self, step: Any) -> Any:
        return 1 - self.share(step)
