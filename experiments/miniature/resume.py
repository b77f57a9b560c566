"""What a resumed comparison may change."""

from fdjax.run.changes import ResumeRules

__all__ = ["RESUME"]

_ARMS = ("grpo", "fd", "fd_then_grpo", "sft_references")
_PHASES = ("sft", *_ARMS)

RESUME = ResumeRules(
    phases=_PHASES,
    # Seed, data, model and Lean's time limit, which decides verdicts, are fixed by any.
    fixed_by={
        # Places and resources decide no number; what is measured is measured anew.
        "name": (),
        "runs": (),
        "seeds": (),
        "minif2f": (),
        "lean_workers": (),
        "evaluation": (),
        "warm_start": ("sft",),
        "rollout": _ARMS,
        # SFT's rows have the widths and the hints of the rollouts.
        "rollout.max_new_tokens": _PHASES,
        "rollout.feedback_tokens": _PHASES,
        "rollout.handover": ("fd", "fd_then_grpo"),
        "grpo": ("grpo",),
        "fd_then_grpo": ("fd_then_grpo",),
        "fd": ("fd",),
        "fd.plan": _PHASES,
        "control": ("sft_references",),
    },
    # `decay_steps` is a setting of its own.
    grows={"rollout.steps": (), "warm_start.steps": _ARMS},
    advice="Name, runs, lean_workers, minif2f and evaluation may change, rollout.steps "
    "may grow. ",
)
