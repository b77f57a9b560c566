"""A pretrained prover learns from feedback on its proofs, then from their verdicts.

Claim under test (arXiv:2605.30861): GRPO started from an FD checkpoint beats either
alone. The policy is any Hugging Face model of the families that `fdjax.model` has, its
problems are yours, and Lean checks every proof. With `--episode tools` an attempt is an
episode of several turns, in which Lean answers the policy's calls.

Command, with Lean's core library only and Lean's own messages as feedback:
`python -m experiments.prover --policy FOLDER --problems train.jsonl
--evaluation-problems test.jsonl`. docs/experiments.md has settings for published
provers, with Mathlib and a language model's feedback.
Hardware: an accelerator for each 10 GiB that `--dry-run` says are held.
Cost: that of the samples; `--dry-run` says how many tokens an iteration has at most.
Expected figure: none yet, for no large policy has been trained here. The claim is about
pass@k of FD→GRPO on the problems held out, above that of FD and of GRPO alone
(`--fd-steps 0`); in the miniature it is contradicted (docs/quickstart.md).
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from fdjax.data.duplicates import deduplicate
from fdjax.data.formats import (
    CHAT,
    CHAT_THINKING,
    COMPLETION,
    DEEPSEEK_V1,
    DEEPSEEK_V2,
    GOEDEL_V2,
    KIMINA,
    PLAIN,
    QWEN3,
    QWEN3_NO_THINKING,
    PromptFormat,
)
from fdjax.data.problems import load_problems
from fdjax.episodes import Fenced, Hermes
from fdjax.errors import ConfigError
from fdjax.feedback import CompilerFeedback, ModelFeedback, PolicyFeedback, Writer
from fdjax.feedback.writing import aclose_all
from fdjax.judge import LeanJudge
from fdjax.lean import BackendConfig, Embedded, Limits, Native, Repl, Verifier
from fdjax.lean.engine.verifier import WORKERS
from fdjax.lean.facts.backend import WALL_S
from fdjax.objects import local_folder
from fdjax.ranges import Among, Whole, require_fields
from fdjax.records import Problem
from fdjax.run import Arm, RunConfig, RunContext, Task, experiment
from fdjax.tools import LEAN_TOOLS, LeanTools
from fdjax.train import (
    FD,
    GRPO,
    BaseTeacher,
    OptimizerConfig,
    PhaseConfig,
    Teacher,
)

__all__ = ["CONFIG", "ProverConfig", "main"]

FormatName = Literal[
    "chat",
    "chat_thinking",
    "qwen3",
    "qwen3_no_thinking",
    "goedel_v2",
    "kimina",
    "deepseek_v2",
    "deepseek_v1",
    "completion",
    "plain",
]


@dataclass(frozen=True, kw_only=True)
class ProverConfig(RunConfig):
    """Settings of the experiment."""

    problems: str = ""
    """Problems to train on: a file or folder, or the name of a dataset on the hub
    (`fdjax.data.problems.load_problems`)."""
    evaluation_problems: str = ""
    """Problems held out; those among `problems` are left out there."""
    on_error: Literal["raise", "skip"] = "raise"
    """What happens with rows that are no problem."""
    header: str = ""
    """Lean before every problem that imports nothing."""
    format: FormatName = "chat"
    """How problems are put to the policy (docs/formats.md)."""
    episode: Literal["proof", "tools"] = "proof"
    """An attempt is a whole proof, or several turns with Lean's tools."""
    call_format: Literal["fenced", "hermes"] = "fenced"
    """How the policy calls tools (docs/episodes.md): in fenced blocks, which any chat
    model may learn, or as its chat template has it for Qwen's and Hermes' models."""
    lean: BackendConfig = field(default_factory=Embedded)
    """Who checks proofs; the embedded Lean has the core library only."""
    lean_workers: int = 2
    """Proofs checked at a time."""
    lean_timeout_s: float = 60.0
    """Wall time that one proof may use."""
    feedback: CompilerFeedback | ModelFeedback | PolicyFeedback = field(
        default_factory=lambda: CompilerFeedback(
            max_errors=3, max_message_characters=600
        )
    )
    """Who writes feedback: Lean's messages, a language model behind an API, or the
    policy itself."""
    fd_steps: int = 100
    """Iterations of Feedback Distillation."""
    grpo_steps: int = 200
    """Iterations of GRPO after it; 0 for FD alone."""
    fd: FD = field(default_factory=FD)
    """The distillation."""
    teacher: Teacher = field(default_factory=BaseTeacher)
    """Whose weights read the feedback."""
    grpo: GRPO = field(default_factory=GRPO)
    """The policy gradient."""
    fd_optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(learning_rate=1e-6, warmup_steps=5)
    )
    grpo_optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(learning_rate=1e-6, warmup_steps=5)
    )
    microbatches: int = 1
    """Parts of an optimizer step's batch, one after the other, to save memory."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_fields(
            self,
            on_error=Among("raise", "skip"),
            format=Among(*get_args(FormatName)),
            episode=Among("proof", "tools"),
            call_format=Among("fenced", "hermes"),
            lean_workers=WORKERS,
            lean_timeout_s=WALL_S,
            fd_steps=Whole(0),
            grpo_steps=Whole(0),
            microbatches=Whole(1),
        )
        if not self.fd_steps and not self.grpo_steps:
            raise ConfigError("expected fd_steps or grpo_steps above 0, got neither")


CONFIG = ProverConfig(name="prover")

_CALLS = {"fenced": Fenced(specs=LEAN_TOOLS), "hermes": Hermes(specs=LEAN_TOOLS)}


def task(context: RunContext[ProverConfig]) -> Task:
    """The user's problems, Lean, and the writer of feedback."""
    config = context.config
    problems, held_out = _problems(context, "problems"), []
    if config.evaluation_problems:
        held_out = _problems(context, "evaluation_problems")
        kept = deduplicate(problems, {"evaluation_problems": held_out})
        if kept.removed:
            context.display.say(
                f"{len(kept.removed)} of {len(problems)} problems are left out: they "
                "occur twice, or in the evaluation"
            )
        problems = kept.problems
    else:
        context.display.say(
            "[yellow]No evaluation_problems:[/] measured on the first problems of the "
            "training set, which says nothing about others"
        )
    verifier = context.resources.enter_context(
        Verifier(
            config.lean.make,
            workers=config.lean_workers,
            limits=Limits(
                wall_s=config.lean_timeout_s, memory_mb=config.lean.default_memory_mb
            ),
            cache_path=local_folder(config.runs) / "verdicts.sqlite",
        )
    )
    prompts = prompt_format(config.format)
    return Task(
        problems=problems,
        evaluation=held_out or problems[:16],
        judge=LeanJudge(verifier=verifier, extract=prompts.extract),
        writer=_writer(context),
        format=prompts,
        calls=None if config.episode == "proof" else _CALLS[config.call_format],
        tools=None if config.episode == "proof" else _tools(config.lean, verifier),
    )


def arms(config: ProverConfig) -> tuple[Arm, ...]:
    """One: FD, then GRPO from where it ends."""
    phases = []
    if config.fd_steps:
        phases.append(
            PhaseConfig(
                name="fd",
                terms=(config.fd,),
                steps=config.fd_steps,
                optimizer=config.fd_optimizer,
                teacher=config.teacher,
                microbatches=config.microbatches,
            )
        )
    if config.grpo_steps:
        phases.append(
            PhaseConfig(
                name="fd_then_grpo" if config.fd_steps else "grpo",
                terms=(config.grpo,),
                steps=config.grpo_steps,
                optimizer=config.grpo_optimizer,
                microbatches=config.microbatches,
            )
        )
    return (Arm(name="prover", phases=tuple(phases)),)


def prompt_format(name: FormatName) -> PromptFormat:
    """The prompt format of this name."""
    match name:
        case "chat":
            return CHAT
        case "chat_thinking":
            return CHAT_THINKING
        case "qwen3":
            return QWEN3
        case "qwen3_no_thinking":
            return QWEN3_NO_THINKING
        case "goedel_v2":
            return GOEDEL_V2
        case "kimina":
            return KIMINA
        case "deepseek_v2":
            return DEEPSEEK_V2
        case "deepseek_v1":
            return DEEPSEEK_V1
        case "completion":
            return COMPLETION
        case "plain":
            return PLAIN


def _problems(
    context: RunContext[ProverConfig],
    setting: Literal["problems", "evaluation_problems"],
) -> list[Problem]:
    config = context.config
    source = getattr(config, setting)
    if not source:
        raise ConfigError(
            f"expected {setting}, got none: give --{setting.replace('_', '-')}, a file "
            "of problems or the name of a dataset"
        )
    path = Path(source)
    read = load_problems(
        path if path.exists() else source,
        on_error=config.on_error,
        header=config.header,
    )
    if read.left_out:
        first = read.left_out[0]
        context.display.say(
            f"{len(read.left_out)} rows of {source} are no problems and left out, the "
            f"first: {first.reason}"
        )
    return list(read.problems)


def _tools(lean: BackendConfig, verifier: Verifier) -> LeanTools:
    """The five tools on the Lean that checks the proofs, and on its library."""
    match lean:
        case Embedded():
            return LeanTools.embedded(verifier)
        case Native() | Repl():
            return LeanTools.of_project(verifier, lean.project)
        case _:
            raise ConfigError(
                "expected a Lean of this machine for an episode with tools, embedded, "
                f"native or repl, got {type(lean).__name__.lower()}: its library is "
                "not here to be searched"
            )


def _writer(context: RunContext[ProverConfig]) -> Writer | PolicyFeedback:
    feedback = context.config.feedback
    if isinstance(feedback, CompilerFeedback | PolicyFeedback):
        return feedback
    writer = feedback.make()
    # Its connections belong to the run's event loop.
    context.resources.callback(lambda: context.loop.run(aclose_all([writer])))
    return writer


def main(arguments: list[str] | None = None) -> int:
    """Command line; exit code 0 done, 2 bad input, 130 interrupted."""
    return experiment(CONFIG, task=task, arms=arms, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
