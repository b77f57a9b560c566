"""FD, GRPO, FD→GRPO and the control on one warm start, budget and test split."""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from experiments.attempts import AttemptLog
from experiments.config import ComparisonConfig
from experiments.console import Display
from experiments.dataset import (
    Row,
    check_problems,
    corrupted_rows,
    make_splits,
    reworded_rows,
)
from experiments.minif2f import core_problems
from fdjax.advantages import zscore
from fdjax.data.chat import prompt_tokens, proof_tokens
from fdjax.data.packing import padded_width
from fdjax.data.problems import write_problems
from fdjax.data.tokenizer import (
    end_token,
    pad_token,
    train_tokenizer,
)
from fdjax.eval import (
    ArmResult,
    Evaluation,
    evaluate_arm,
    evaluate_claims,
    evaluate_teacher,
    load_evaluation,
    save_evaluation,
)
from fdjax.feedback import CompilerFeedback, ReferenceHint
from fdjax.lean import Verifier
from fdjax.metrics import MetricsWriter, SampleWriter
from fdjax.model import Model, ModelConfig
from fdjax.ops import forward_kl, generalized_jsd, reverse_kl
from fdjax.records import Problem
from fdjax.rollout import RolloutEngine
from fdjax.sampling import SamplingConfig, make_generate
from fdjax.train import (
    AlternatingSource,
    DistillationSource,
    OptimizerConfig,
    Phase,
    PolicySource,
    Source,
    StopRequest,
    SupervisedSource,
    TrainState,
    fd_objective,
    grpo_objective,
    init_state,
    make_optimizer,
    make_train_step,
    restart,
    sft_objective,
    train,
)

__all__ = ["Comparison"]

_DIVERGENCES = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jsd": functools.partial(generalized_jsd, alpha=0.5),
}


@dataclass(kw_only=True)
class Comparison:
    """One run; each stage leaves its result in the folder and is skipped when there."""

    config: ComparisonConfig
    folder: Path
    mesh: Mesh
    verifier: Verifier
    display: Display
    writer: MetricsWriter
    samples: SampleWriter
    stop: StopRequest
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self) -> Evaluation:
        """All stages in order; returns what `eval.json` holds."""
        minif2f = self._read_minif2f()
        self._prepare_data()
        self._prepare_model()
        warm = self._warm_start()
        teacher = self._teacher_check(warm)
        policies = {"sft": warm, **self._arms(warm)}
        arms = [self._evaluate(arm, params) for arm, params in policies.items()]
        ks = self.config.evaluation.ks
        evaluation = Evaluation(
            ks=ks,
            arms=tuple(arms),
            claims=evaluate_claims(arms, ks),
            teacher=teacher,
            about=self._about(),
        )
        save_evaluation(self.folder / "eval.json", evaluation)
        if minif2f:
            self._evaluate_minif2f(minif2f, policies)
        return evaluation

    def _arms(self, warm: Any) -> dict[str, Any]:
        """Parameters after each arm's budget, all from one warm start."""
        config, steps = self.config, self.config.rollout.steps
        grpo = self._reinforce("grpo", self._begin(warm, config.grpo.optimizer))
        fd = self._distill(self._begin(warm, config.fd.optimizer), steps // 2)
        # A copy: training on donates the state.
        half = jax.tree.map(jnp.copy, fd.params)
        fd = self._distill(fd, steps)
        both = self._reinforce(
            "fd_then_grpo", self._begin(half, config.grpo.optimizer), skip=steps // 2
        )
        return {
            "grpo": grpo.params,
            "fd": fd.params,
            "fd_then_grpo": both.params,
            "sft_references": self._control(warm).params,
        }

    # Data and model

    def _prepare_data(self) -> None:
        config = self.config.data
        with self._timed("data"), self.display.task("Making theorems", 1) as bar:
            self.splits = make_splits(config)
            everything = [p for split in self.splits.values() for p in split]
            bar(1, f"{len(everything)} theorems")
        path = self.folder / "problems.jsonl"
        if not path.exists():
            write_problems(everything, path)
        total = sum(len(problem.references) for problem in everything)
        with self._timed("lean"), self.display.task("Lean: references", total) as bar:
            check_problems(everything, self.verifier, self._stoppable(bar))
        self.provider = ReferenceHint(base=CompilerFeedback(), plan=self.config.fd.plan)
        count = config.mistakes
        with self._timed("lean"), self.display.task("Lean: mistakes", count) as bar:
            self.informed = corrupted_rows(
                self.splits["sft"],
                self.verifier,
                self.provider,
                count=count,
                seed=config.seed,
                progress=self._stoppable(bar),
            )
        self.plain: list[Row] = [
            (problem, None, reference)
            for problem in self.splits["sft"]
            for reference in problem.references
        ]

    def _prepare_model(self) -> None:
        config, size = self.config.rollout, self.config.model
        self.tokenizer = train_tokenizer(
            [text for row in self.plain for text in (row[0].statement, row[2])]
            + [text for row in self.informed for text in (row[1] or "", row[2])],
            vocab_size=size.vocab_size,
        )
        self.tokenizer.save_pretrained(str(self.folder / "tokenizer"))
        everything = [p for split in self.splits.values() for p in split]
        prompts = prompt_tokens(self.tokenizer, everything)
        self.prompt_width = padded_width([len(ids) for ids in prompts], 8)
        self.teacher_width = self.prompt_width + config.feedback_tokens
        self.plain, self.informed = (
            self._fitting(
                reworded_rows(
                    rows, copies=self.config.data.rewordings, seed=self.config.seed
                ),
                width,
            )
            for rows, width in (
                (self.plain, self.prompt_width),
                (self.informed, self.teacher_width),
            )
        )
        self.model = Model(
            ModelConfig(
                vocab_size=len(self.tokenizer),
                hidden_size=size.hidden_size,
                intermediate_size=size.intermediate_size,
                num_layers=size.num_layers,
                num_heads=size.num_heads,
                num_kv_heads=size.num_kv_heads,
                head_dim=size.head_dim,
                max_position_embeddings=512,
                unroll=True,
            )
        )
        self.engine = self._engine(self.prompt_width)
        self.attempts = AttemptLog(
            model=self.model, tokenizer=self.tokenizer, samples=self.samples
        )

    def _engine(self, prompt_width: int) -> RolloutEngine:
        config = self.config.rollout
        sampling = SamplingConfig(
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            stop_tokens=(end_token(self.tokenizer),),
            pad_token=pad_token(self.tokenizer),
        )
        return RolloutEngine(
            generate=make_generate(self.model, sampling, mesh=self.mesh),
            tokenizer=self.tokenizer,
            verifier=self.verifier,
            provider=self.provider,
            prompt_width=prompt_width,
        )

    def _fitting(self, rows: Sequence[Row], width: int) -> list[Row]:
        """Rows whose prompt (`width` tokens) and proof fit; others are counted."""
        problems, notes, proofs = zip(*rows, strict=True)
        prompts = prompt_tokens(self.tokenizer, problems, notes)
        responses = proof_tokens(self.tokenizer, proofs)
        limit = self.config.rollout.max_new_tokens
        kept = [
            row
            for row, prompt, response in zip(rows, prompts, responses, strict=True)
            if len(prompt) <= width and len(response) <= limit
        ]
        if len(kept) < len(rows):
            self.display.say(
                f"[dim]{len(rows) - len(kept)} of {len(rows)} rows exceed the token "
                "limits and are left out of SFT[/]"
            )
        return kept

    # Arms

    def _warm_start(self) -> Any:
        """SFT with and without feedback in the prompt; the parameters."""
        config = self.config.warm_start
        sources = [
            SupervisedSource(
                rows,
                self.tokenizer,
                batch_size=config.batch_size,
                seed=self.config.seed,
                prompt_width=width,
                response_width=self.config.rollout.max_new_tokens,
            )
            for rows, width in (
                (self.plain, self.prompt_width),
                (self.informed, self.teacher_width),
            )
        ]
        optimizer = make_optimizer(config.optimizer)
        state = init_state(self.model, optimizer, self.mesh, self._key(0))
        phase = self._phase(
            "sft",
            config.steps,
            AlternatingSource(sources[0], sources[1], share=config.feedback_share),
            make_train_step(
                self.model, sft_objective(self.model), optimizer, self.mesh
            ),
            checkpoint_every=300,
            log_every=20,
        )
        return self._train(phase, state).params

    def _begin(self, params: Any, optimizer: OptimizerConfig) -> TrainState:
        # One key for all arms: they start from the same attempts at the same theorems.
        return restart(
            params, self.model, make_optimizer(optimizer), self.mesh, self._key(1)
        )

    def _budget(self) -> dict[str, int]:
        config = self.config.rollout
        return {
            "problems_per_step": config.problems,
            "group_size": config.group_size,
            "updates_per_rollout": config.updates,
            "seed": self.config.seed,
        }

    def _reinforce(self, arm: str, state: TrainState, skip: int = 0) -> TrainState:
        """GRPO for the rest of the budget, on the theorems that are left in it."""
        source = PolicySource(
            self.splits["pool"], self.engine, advantage=zscore, **self._budget()
        )
        source.skip(skip)
        steps = self.config.rollout.steps - skip
        return self._train(self._phase(arm, steps, source, self._grpo_step), state)

    @functools.cached_property
    def _grpo_step(self) -> Callable[[TrainState, Any], Any]:
        config = self.config.grpo
        objective = grpo_objective(
            self.model,
            clip_low=config.clip_low,
            clip_high=config.clip_high,
            temperature=self.config.rollout.temperature,
        )
        return make_train_step(
            self.model, objective, make_optimizer(config.optimizer), self.mesh
        )

    def _distill(self, state: TrainState, steps: int) -> TrainState:
        """Feedback Distillation up to iteration `steps`."""
        source = DistillationSource(
            self.splits["pool"],
            self.engine,
            teacher_width=self.teacher_width,
            score=self.config.fd.score,
            **self._budget(),
        )
        phase = self._phase("fd", steps, source, self._fd_step, keep_checkpoints=None)
        return self._train(phase, state)

    @functools.cached_property
    def _fd_step(self) -> Callable[[TrainState, Any], Any]:
        config = self.config.fd
        objective = fd_objective(
            self.model,
            divergence=_DIVERGENCES[config.divergence],
            temperature=self.config.rollout.temperature,
        )
        return make_train_step(
            self.model,
            objective,
            make_optimizer(config.optimizer),
            self.mesh,
            teacher_rate=config.teacher_rate,
        )

    def _control(self, params: Any) -> TrainState:
        """SFT on the references behind the hints: as many updates and rows as FD."""
        config = self.config.rollout
        rows = self._fitting(
            [
                (problem, None, reference)
                for problem in self.splits["pool"]
                for reference in problem.references
            ],
            self.prompt_width,
        )
        source = SupervisedSource(
            rows,
            self.tokenizer,
            batch_size=config.problems * config.group_size // config.updates,
            seed=self.config.seed,
            prompt_width=self.prompt_width,
            response_width=config.max_new_tokens,
        )
        optimizer = self.config.control
        step = make_train_step(
            self.model, sft_objective(self.model), make_optimizer(optimizer), self.mesh
        )
        phase = self._phase(
            "sft_references", config.steps * config.updates, source, step
        )
        return self._train(phase, self._begin(params, optimizer))

    def _phase(
        self,
        name: str,
        steps: int,
        source: Source,
        step: Callable[[TrainState, Any], Any],
        *,
        checkpoint_every: int = 4,
        log_every: int = 1,
        keep_checkpoints: int | None = 2,
    ) -> Phase:
        return Phase(
            name=name,
            steps=steps,
            source=source,
            train_step=step,
            checkpoint_every=checkpoint_every,
            log_every=log_every,
            keep_checkpoints=keep_checkpoints,
        )

    def _train(self, phase: Phase, state: TrainState) -> TrainState:
        with (
            self._timed(phase.name),
            self.display.task(f"Training {phase.name}", phase.steps) as bar,
        ):

            def on_step(done: int, metrics: dict[str, float]) -> None:
                shown = ("train/loss", "reward/mean", "policy/entropy")
                bar(
                    done,
                    "  ".join(
                        f"{key.split('/')[1]} {metrics[key]:.3f}"
                        for key in shown
                        if key in metrics
                    ),
                )

            return train(
                phase,
                state,
                mesh=self.mesh,
                directory=self.folder / "checkpoints" / phase.name,
                writer=self.writer,
                samples=self.samples,
                stop=self.stop,
                on_data=functools.partial(self.attempts.write, phase.name),
                on_step=on_step,
            )

    # Measurement

    def _evaluate(self, arm: str, params: Any) -> ArmResult:
        config = self.config.evaluation
        path = self.folder / "eval" / f"{arm}.json"
        if path.exists():
            return load_evaluation(path).arms[0]
        problems = self.splits[config.split]
        total = len(problems) * config.samples
        with (
            self._timed("evaluation"),
            self.display.task(f"Evaluating {arm}", total) as bar,
        ):
            done = 0

            def on_rollout(rollout: Any) -> None:
                nonlocal done
                self.stop.check()
                done = min(done + len(rollout.proofs), total)
                bar(done, f"verified {rollout.rewards.mean():.3f}")

            result = evaluate_arm(
                arm,
                params,
                problems,
                self.engine,
                self._key(2),
                samples=config.samples,
                on_rollout=on_rollout,
            )
        path.parent.mkdir(exist_ok=True)
        save_evaluation(path, Evaluation(ks=config.ks, arms=(result,)))
        return result

    def _read_minif2f(self) -> list[Problem]:
        """Statements of the user's miniF2F file, read before anything is trained."""
        if self.config.minif2f is None:
            return []
        with self._timed("miniF2F"):
            problems, total = core_problems(self.config.minif2f, self.verifier)
        self.display.say(
            f"miniF2F: {len(problems)} of {total} statements need no Mathlib"
        )
        return problems

    def _evaluate_minif2f(
        self, problems: list[Problem], policies: dict[str, Any]
    ) -> None:
        """The arms on real miniF2F statements, as a table and `minif2f.json`."""
        with self._timed("miniF2F"):
            lengths = [len(ids) for ids in prompt_tokens(self.tokenizer, problems)]
            engine = self._engine(padded_width(lengths))
            arms = []
            for arm, params in policies.items():
                self.stop.check()
                with self.display.task(f"miniF2F {arm}", len(problems)) as bar:
                    arms.append(
                        evaluate_arm(
                            arm,
                            params,
                            problems,
                            engine,
                            self._key(4),
                            samples=8,
                        )
                    )
                    bar(len(problems), "")
        evaluation = Evaluation(ks=(1, 8), arms=tuple(arms), about=self._about())
        save_evaluation(self.folder / "minif2f.json", evaluation)
        self.display.summary("miniF2F statements without Mathlib", evaluation)

    def _teacher_check(self, params: Any) -> Any:
        """Pass@1 with feedback against without, before any FD."""
        with self._timed("evaluation"):
            result = evaluate_teacher(
                params,
                self.splits["validation"],
                self.engine,
                self._engine(self.teacher_width),
                self._key(3),
                samples=4,
            )
        with_, without = result.with_feedback.value, result.without_feedback.value
        self.display.say(
            f"Teacher on validation theorems: pass@1 {without:.3f} without feedback, "
            f"{with_:.3f} with feedback on its own attempt"
            + ("" if with_ > without else " [bold red](feedback does not help)[/]")
        )
        return result

    # Small things

    def _key(self, purpose: int) -> jax.Array:
        return jax.random.fold_in(jax.random.key(self.config.seed), purpose)

    def _about(self) -> dict[str, str | int | float]:
        config = self.config
        return {
            "seed": config.seed,
            "split": config.evaluation.split,
            "theorems": len(self.splits[config.evaluation.split]),
            "samples": config.evaluation.samples,
            "iterations": config.rollout.steps,
            "attempts per iteration": config.rollout.problems
            * config.rollout.group_size,
            **{f"{name} seconds": round(s, 1) for name, s in self.seconds.items()},
        }

    def _stoppable(self, bar: Callable[[int, str], None]) -> Callable[[int, str], None]:
        def progress(done: int, note: str) -> None:
            self.stop.check()
            bar(done, note)

        return progress

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            spent = time.monotonic() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + spent
