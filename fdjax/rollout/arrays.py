"""The arrays that a train step takes, of attempts or of reference proofs."""

from typing import Any, NamedTuple

from jaxtyping import Bool, Float32, Int32

from fdjax.sampling import SamplingConfig

__all__ = ["Batch", "TeacherPrompts"]

Leaf = Any
"""A NumPy array on the host, the JAX array made of it inside a train step."""


class TeacherPrompts(NamedTuple):
    """What the teacher reads in place of the student's prompts."""

    prompts: Int32[Leaf, "B S_teacher"]
    """Left-padded: the same question with feedback."""
    valid: Bool[Leaf, "B S_teacher"]
    """False on padding."""
    mask: Bool[Leaf, "B T"]
    """Tokens on which the teacher may be heard: the policy's own, of attempts with
    feedback, within the part that is scored."""


class Batch(NamedTuple):
    """B sequences, and of each what terms read; None where no term asks for it."""

    prompts: Int32[Leaf, "B S"]
    """Left-padded."""
    prompt_valid: Bool[Leaf, "B S"]
    """False on padding."""
    responses: Int32[Leaf, "B T"]
    """Right-padded."""
    response_valid: Bool[Leaf, "B T"]
    """False on padding."""
    written: Bool[Leaf, "B T"]
    """Tokens that the policy wrote itself, or that make up a reference proof."""
    known: Bool[Leaf, " B"]
    """Whether there is a reward; a reference proof has one."""
    passed: Bool[Leaf, " B"]
    """Whether it is a success, as a reference proof is; False where unknown."""
    pass_rate: Float32[Leaf, " B"] | None = None
    """Share of successes among the known rewards of the attempt's group."""
    advantages: Float32[Leaf, " B"] | None = None
    """Of each attempt; 0 where the reward is not known."""
    old_logprobs: Float32[Leaf, "B T"] | None = None
    """Nats: `Sample.logprobs`, of the policy that sampled, not of what top-k and
    top-p left of it."""
    version: Int32[Leaf, " B"] | None = None
    """Optimizer steps of the weights that sampled."""
    feedback: TeacherPrompts | None = None
    """The teacher's prompts with the feedback on the attempt."""
    wrong_feedback: TeacherPrompts | None = None
    """The same with the feedback on an attempt at another problem."""
    sampling: SamplingConfig | None = None
    """How the tokens were drawn; objectives hold their temperature against it. None in
    a batch of another origin."""
