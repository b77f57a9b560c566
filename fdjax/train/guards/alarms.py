"""The alarms of a run: which metric tells what, and what to do about it."""

from functools import partial
from typing import Any, Literal

from fdjax.train.guards.alarm import Alarm
from fdjax.train.guards.config import Guard, GuardsConfig

__all__ = ["ADVICE", "make_alarms"]

_COLLAPSE = (
    "the policy says ever less: read the newest attempts in samples.jsonl; lower the "
    "learning rate, clip or route FD, or raise GRPO's upper clip"
)

ADVICE: dict[Guard, str] = {
    "non_finite": (
        "loss, gradient or parameters were not finite: look at the batch in dumps/, "
        "and lower the learning rate if its values are in order"
    ),
    "equal_groups": (
        "a group whose rewards are equal teaches a policy gradient nothing: draw "
        "problems by pass rate (attempts.sampling), or raise attempts.group_size"
    ),
    "crashed": (
        "the verifier gives no verdicts: run `fdjax doctor`, read the messages in "
        "samples.jsonl, and see whether its workers have memory"
    ),
    "timeout": (
        "verification takes too long: give it more time or fewer workers a core, and "
        "see which tactics the attempts call"
    ),
    "feedback": (
        "the writer fails: feedback/missing_<kind> in metrics.jsonl and "
        "feedback_error in samples.jsonl say how"
    ),
    "logprob_gap": (
        "sampler and trainer differ in weights or programs: compare mesh, attention "
        "and types of both"
    ),
    "length": (
        "attempts run away or do not end: read the newest in samples.jsonl; lower the "
        "learning rate, or raise attempts.max_new_tokens if they make sense"
    ),
    "kl": (
        "the policy jumped: lower the learning rate, or clip gradients "
        "(max_gradient_norm) or divergences (FD.kl_clip)"
    ),
    "entropy": _COLLAPSE,
    "marginal_entropy": _COLLAPSE,
    "canaries": (
        "the verifier decides against what is known: stop, run `fdjax doctor`, and "
        "trust no verdict since the last canaries that came out right"
    ),
}
"""Cause and remedy, by guard."""

_LOGPROB_GAP = {"float32": 1e-3, "bfloat16": 0.05}
"""Nats that rounding does not explain, by the type of the activations."""

_KLS = {
    "fd/forward_kl": 0.05,
    "grpo/reference_kl": 0.05,
    **dict.fromkeys(("grpo/kl_k3", "gspo/kl_k3", "cispo/kl_k3"), 0.01),
}
"""Divergences, and nats up to which none of them is a spike."""


def make_alarms(
    config: GuardsConfig, activations: Literal["float32", "bfloat16"]
) -> tuple[Alarm, ...]:
    """The alarms of the guards that are on; canaries are no metric of a row.

    Args:
      config: bounds, and which guards stop the run.
      activations: type of the policy's activations, for the gap that rounding leaves.
    """
    gap = config.logprob_gap
    lasting = {"patience": config.patience}
    median = {"median_of": config.median_of}
    fall = lasting | median | {"below": config.collapse_factor}
    skipped, finished = "train/skipped", "rollout/finished"
    alarm = partial(_alarm, config)
    every = (
        alarm("non_finite", skipped, above=0.0, stop=False),
        alarm("non_finite", skipped, above=config.non_finite, window=config.median_of),
        alarm(
            "equal_groups",
            "advantages/live_groups",
            below=config.live_groups,
            **lasting,
        ),
        alarm("crashed", "verdict/crashed", above=config.crashed, **lasting),
        alarm("timeout", "verdict/timeout", above=config.timeout, **lasting),
        alarm("feedback", "feedback/missing", above=config.feedback_missing, **lasting),
        alarm(
            "logprob_gap",
            "rollout/logprob_gap",
            above=_LOGPROB_GAP[activations] if gap is None else gap,
        ),
        alarm(
            "length", "rollout/length", above=config.length_factor, **lasting, **median
        ),
        alarm("length", finished, below=config.finished, **lasting),
        *(
            alarm("kl", metric, above=config.kl_factor, floor=floor, **median)
            for metric, floor in _KLS.items()
        ),
        alarm("entropy", "rollout/entropy", below=config.entropy, **lasting),
        alarm("entropy", "rollout/entropy", **fall),
        alarm(
            "marginal_entropy",
            "rollout/marginal_entropy",
            below=config.marginal_entropy,
            **lasting,
        ),
        alarm("marginal_entropy", "rollout/marginal_entropy", **fall),
    )
    return tuple(one for one in every if one.guard not in config.off)


def _alarm(config: GuardsConfig, guard: Guard, metric: str, **settings: Any) -> Alarm:
    stops = {"stop": guard in config.stop}
    return Alarm(guard=guard, metric=metric, advice=ADVICE[guard], **(stops | settings))
