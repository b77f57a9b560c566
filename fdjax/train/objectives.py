"""What a step minimises: a weighted sum of terms over one forward pass."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int32

from fdjax.errors import ConfigError
from fdjax.model import Model
from fdjax.ops import (
    TEMPERATURE,
    Chunking,
    chunked_logprobs,
    chunked_sum,
    entropy,
    head_logits,
    masked_mean,
)
from fdjax.ranges import require
from fdjax.records import Metrics, union
from fdjax.rollout.arrays import Batch
from fdjax.train.forward import response_hidden, teacher_hidden
from fdjax.train.terms import (
    FD,
    Needs,
    SequenceTerm,
    Term,
    Tokens,
    TokenTerm,
    needs_of,
)
from fdjax.train.terms.term import Reading

__all__ = ["Objective", "make_objective"]

Normalizers = Any
"""A pytree of scalars."""


def _scored(batch: Any) -> Bool[Array, "B T"]:
    return batch.mask


def _count(batch: Any) -> Float32[Array, ""]:
    return jnp.maximum(batch.mask.sum().astype(jnp.float32), 1.0)


@dataclass(frozen=True)
class Objective:
    """A loss, and what it needs of the state and of the batch.

    `make_objective` makes one of terms. One of your own is a function of the parameters
    and any NamedTuple of arrays; with a `mask` [B, T] in it, the loss alone will do.
    """

    loss: Callable[
        [Any, Any, Any, Normalizers, Int32[Array, ""]],
        tuple[Float32[Array, ""], Metrics],
    ]
    """`(params, teacher, batch, normalizers, step) -> (loss, metrics)`: a sum over the
    batch divided by normalizers of the global batch, so that shards and microbatches
    add up."""
    needs: Needs = Needs()  # noqa: RUF009 - it is frozen
    """What it reads; without a teacher in it, `teacher` is None."""
    scored: Callable[[Any], Bool[Array, "B T"]] = _scored
    """The tokens of a batch that count."""
    normalizers: Callable[[Any], Normalizers] = _count
    """The normalizers of a global batch: by default one, its scored tokens."""

    @property
    def reads_teacher(self) -> bool:
        """Whether there must be a teacher."""
        return bool(self.needs.teacher)


def make_objective(
    model: Model, terms: Sequence[Term], *, temperature: float | None = None
) -> Objective:
    """The objective of an algorithm, which is a tuple of terms.

    The student's forward pass is one for all terms, and so are its logits, which exist
    for a chunk of tokens at a time. The teacher's is one for each thing it reads, where
    a term asks for it. Each term is a mean over tokens of its own, as its normalizer
    says.

    Args:
      model: of student and teacher; only their parameters differ.
      terms: of different kinds.
      temperature: at which attempts are sampled; it divides all logits, so that all
        terms speak of the distribution that sampled. By default that of the batch, and
        1 for reference proofs. Where it is given, a batch sampled at another one is a
        ConfigError when the step is traced.

    Raises:
      ConfigError: there are no terms, two of one kind, or they contradict each other;
        the temperature is not positive. When traced: a part of the batch is missing.

    Metrics: those of the terms, and train/entropy (nats at the temperature, over tokens
    that other terms than FD score).
    """
    if temperature is not None:
        require("temperature", temperature, TEMPERATURE)
    terms = tuple(terms)
    needs = needs_of(terms)
    of_tokens = [term for term in terms if isinstance(term, TokenTerm)]
    of_sequences = [term for term in terms if isinstance(term, SequenceTerm)]
    chunking = Chunking(mesh=model.mesh)

    def masks(batch: Batch) -> dict[str, Bool[Array, "B T"]]:
        return {term.name: jnp.asarray(term.mask(batch)) for term in terms}

    def scored(batch: Batch) -> Bool[Array, "B T"]:
        return _any(masks(batch).values())

    def normalizers(batch: Batch) -> dict[str, Float32[Array, ""]]:
        own = masks(batch)
        return {term.name: term.normalizer(own[term.name]) for term in terms}

    def loss(
        params: Any,
        teacher: Any,
        batch: Batch,
        normalizers: Mapping[str, Float[Array, ""]],
        step: Int32[Array, ""],
    ) -> tuple[Float32[Array, ""], Metrics]:
        sampled_at = _temperature(batch, temperature)
        own = masks(batch)
        scheduled = {
            term.name: jnp.asarray(term.weight(step), jnp.float32)
            for term in terms
            if callable(term.weight)
        }
        hidden = response_hidden(
            model,
            params,
            batch.prompts,
            batch.prompt_valid,
            batch.responses,
            batch.response_valid,
        )
        head = model.output_embeddings(params)
        losses: list[Float32[Array, ""]] = []
        metrics: Metrics = {}
        if of_tokens:
            rows = {"tokens": batch.responses}
            for term in of_tokens:
                own_rows = term.rows(batch, own[term.name], step)
                own_rows = {"mask": own[term.name]} | own_rows
                rows |= {f"{term.name}.{name}": row for name, row in own_rows.items()}
            shared = {"scheduled": scheduled, "normalizers": normalizers}
            for reading in sorted(needs.teacher):
                informed = teacher_hidden(model, teacher, batch, reading)
                rows[f"teacher.{reading}"] = informed
                teacher_head = model.output_embeddings(teacher)
                shared["teacher_head"] = teacher_head.astype(informed.dtype)
            total, of_losses = chunked_sum(
                _chunk(of_tokens, sampled_at),
                hidden,
                head,
                mask=_any(own[term.name] for term in of_tokens),
                rows=rows,
                shared=shared,
                chunking=chunking,
            )
            losses.append(total)
            metrics = union(metrics, of_losses)
        if of_sequences:
            mask = _any(own[term.name] for term in of_sequences)
            logprobs, spread = chunked_logprobs(
                hidden,
                head,
                batch.responses,
                mask=mask,
                temperature=sampled_at,
                chunking=chunking,
            )
            for term in of_sequences:
                value, of_loss = term.of_sequences(
                    logprobs,
                    batch=batch,
                    mask=own[term.name],
                    normalizer=normalizers[term.name],
                )
                losses.append(_weight(term, scheduled) * value)
                metrics = union(metrics, of_loss)
            if "train/entropy" not in metrics:
                spread = jax.lax.stop_gradient(spread)
                metrics["train/entropy"] = masked_mean(spread, mask)
        return sum(losses[1:], start=losses[0]), metrics

    return Objective(loss, needs, scored, normalizers)


def _chunk(terms: Sequence[TokenTerm], temperature: float) -> Callable[..., Any]:
    """The weighted sum of the terms over a chunk of tokens, for `ops.chunked_sum`."""

    def chunk(
        logits: Float32[Array, "R V"], rows: Mapping[str, Array], shared: Any
    ) -> tuple[Float32[Array, ""], Metrics]:
        def teacher_logits(reading: Reading) -> Float32[Array, "R 1 V"]:
            # Padding may hold anything.
            informed = jnp.where(rows["mask"][:, None], rows[f"teacher.{reading}"], 0)
            return head_logits(informed, shared["teacher_head"])[:, None]

        logits = logits[:, None]
        losses, metrics, plain = [], [], []
        for term in terms:
            prefix = f"{term.name}."
            own = {
                name.removeprefix(prefix): row[:, None]
                for name, row in rows.items()
                if name.startswith(prefix)
            }
            mask = own.pop("mask")
            value, of_loss = term.of_tokens(
                Tokens(
                    logits=logits,
                    tokens=rows["tokens"][:, None],
                    mask=mask,
                    rows=own,
                    normalizer=shared["normalizers"][term.name],
                    temperature=temperature,
                    teacher_logits=teacher_logits,
                )
            )
            losses.append(_weight(term, shared["scheduled"]) * value)
            metrics.append(of_loss)
            # FD reports entropies of its own.
            if not isinstance(term, FD):
                plain.append(mask)
        if plain:
            spread = entropy(jax.lax.stop_gradient(logits), temperature=temperature)
            metrics.append({"train/entropy": masked_mean(spread, _any(plain))})
        return sum(losses[1:], start=losses[0]), union(*metrics)

    return chunk


def _weight(term: Term, scheduled: Mapping[str, Any]) -> float | Float32[Array, ""]:
    return scheduled[term.name] if callable(term.weight) else term.weight


def _any(masks: Iterable[Bool[Array, "..."]]) -> Bool[Array, "..."]:
    return reduce(jnp.logical_or, masks)


def _temperature(batch: Batch, expected: float | None) -> float:
    """One temperature for sampler and loss, wherever the batch says its own."""
    if batch.sampling is None:
        return 1.0 if expected is None else expected
    sampled_at = batch.sampling.temperature
    if expected is not None and sampled_at != expected:
        raise ConfigError(
            f"expected the objective at the temperature of the sampler, "
            f"{sampled_at}, got {expected}: give both the same, or none"
        )
    return sampled_at
