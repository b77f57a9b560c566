"""How long devices wait for judges and writers, by how far sampling runs ahead.

    python -m benchmarks.overlap [--iterations 30] [--json OUT]

The loop is fdjax's own: pipeline, stages, source. Devices are simulated, a sleep for
sampling and one for the optimizer step; judge and writer sleep in the run's own event
loop, a thread of its own, for times with a long tail. All is a hundred times as fast as
on a pod. Beside it a small policy is really trained by GRPO at each k, with several
seeds: what staleness costs in learning.
"""

import argparse
import asyncio
import os
import statistics
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from transformers import PreTrainedTokenizerFast

from benchmarks.figures import print_facts, write_figures
from fdjax.data.tokenizer import end_token, train_tokenizer
from fdjax.episodes import Budget, Episodes
from fdjax.feedback import Attempt, ConstantFeedback, Feedback, Writer
from fdjax.judge import Judge, Judgement
from fdjax.metrics import StageTimer
from fdjax.model import Model, ModelConfig
from fdjax.records import Problem
from fdjax.rollout import Pipeline
from fdjax.sampling import Sample, Sampler, SamplingConfig, SlotSampler, SlotsConfig
from fdjax.sharding import make_mesh, shard_batch
from fdjax.train import (
    FD,
    GRPO,
    OptimizerConfig,
    RolloutSource,
    TrainState,
    init_state,
    make_objective,
    make_optimizer,
    make_train_step,
    needs_of,
)

PROBLEMS = [
    Problem(name=f"sum{n}", statement=f"theorem sum{n} : {n} + 0 = {n}")
    for n in range(64)
]
GROUPS, MEMBERS, TOKENS = 16, 8, 16
SAMPLE_S, STEP_S = 1.2, 0.4
JUDGE_S, WRITER_S, TAIL = 0.25, 0.35, 0.6
"""Medians for a group, and the deviation of the logarithm: one in a hundred takes four
times as long."""


class Devices(Sampler):
    """Sleeps where devices would work, and adds up how long."""

    def __init__(self) -> None:
        self.busy_s = 0.0
        self._asked: list[Future[Sample]] = []
        self._taking = threading.RLock()

    def work(self, seconds: float) -> None:
        """The devices are at it."""
        time.sleep(seconds)
        self.busy_s += seconds

    @property
    def sampling(self) -> SamplingConfig:
        """See `Sampler`, as the others."""
        return SamplingConfig(max_new_tokens=TOKENS)

    def publish(self, params: Any, version: int) -> None:
        """No weights are needed."""

    def together(self) -> Any:
        """Nothing is taken up before its end."""
        return self._taking

    def rest(self) -> None:
        """Nothing is held."""

    def submit(self, prompt: Any, key: Any, **limits: Any) -> Future[Sample]:
        """Some tokens to come."""
        self._asked.append(Future())
        return self._asked[-1]

    def serve(self, until: Future[Any]) -> None:
        """All that waits takes as long as one batch does."""
        while not until.done():
            with self._taking:
                asked, self._asked = self._asked, []
            if asked:
                self.work(SAMPLE_S)
            for future in asked:
                values = np.zeros(TOKENS, np.float32)
                future.set_result(
                    Sample(
                        tokens=np.ones(TOKENS, np.int32),
                        logprobs=values,
                        behaviour_logprobs=values,
                        entropy=values,
                        stop="length",
                        version=0,
                    )
                )
            time.sleep(1e-3)


class Tailed:
    """Judges and writes, each with a time of its own for every group."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    async def judge(self, attempts: Sequence[tuple[Problem, str]]) -> list[Judgement]:
        """Half of the attempts are right."""
        await self._wait(JUDGE_S)
        return [Judgement(reward=float(n % 2)) for n, _ in enumerate(attempts)]

    async def write(self, group: Sequence[Attempt]) -> list[Feedback]:
        """The same of each attempt."""
        await self._wait(WRITER_S)
        return [Feedback(parts=("hint",))] * len(group)

    async def _wait(self, median_s: float) -> None:
        await asyncio.sleep(median_s * self._random.lognormal(sigma=TAIL))


class Written:
    """A reward that a small policy can learn: the share of its letters that are e."""

    async def judge(self, attempts: Sequence[tuple[Problem, str]]) -> list[Judgement]:
        """At once."""
        return [
            Judgement(reward=text.count("e") / max(len(text), 1))
            for _, text in attempts
        ]


def main() -> None:
    """Measure, and print the tables."""
    args = _arguments()
    tokenizer = train_tokenizer([each.statement for each in PROBLEMS], vocab_size=300)
    idle = {k: _idle(tokenizer, k, args.iterations) for k in args.staleness}
    rewards = {
        k: [_reward(tokenizer, k, seed, args.steps) for seed in args.seeds]
        for k in args.staleness
    }
    facts = {
        "groups": GROUPS,
        "members": MEMBERS,
        "sampling s": SAMPLE_S,
        "step s": STEP_S,
        "judge s": JUDGE_S,
        "writer s": WRITER_S,
        "tail": TAIL,
        "processors": os.cpu_count(),
        "jax": version("jax"),
    }
    print_facts(facts)
    print("| k | devices idle | seconds an iteration | reward at the end |")
    print("|---:|---:|---:|---:|")
    for k, (share, seconds) in idle.items():
        found = rewards[k]
        spread = f"{min(found):.3f}–{max(found):.3f}"
        print(
            f"| {k} | {share:.1%} | {seconds:.2f} | {statistics.mean(found):.3f} "
            f"({spread}) |"
        )
    figures = [
        {"k": k, "idle": share, "seconds": seconds, "rewards": rewards[k]}
        for k, (share, seconds) in idle.items()
    ]
    write_figures({"facts": facts, "figures": figures}, args.json)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--staleness", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--iterations", type=int, default=30)
    parser.add_argument("--steps", type=int, default=60, help="of the small policy")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _source(
    tokenizer: PreTrainedTokenizerFast,
    sampler: Sampler,
    judge: Judge,
    writer: Writer,
    term: Any,
    **settings: Any,
) -> RolloutSource:
    pipeline = Pipeline(
        sampler=sampler,
        episodes=Episodes(
            tokenizer=tokenizer, budget=Budget(tokens=TOKENS, prompt_tokens=48)
        ),
        judge=judge,
        writer=writer,
    )
    return RolloutSource(
        PROBLEMS,
        pipeline,
        needs=needs_of((term,)),
        problems_per_step=GROUPS,
        group_size=MEMBERS,
        updates_per_rollout=1,
        teacher_width=64,
        **settings,
    )


def _idle(
    tokenizer: PreTrainedTokenizerFast, k: int, iterations: int
) -> tuple[float, float]:
    """Share of the time in which devices had nothing to do, and seconds an iteration.

    Args:
      tokenizer: of the prompts.
      k: staleness.
      iterations: to measure, after the first.
    """
    devices, host = Devices(), Tailed(seed=1)
    source = _source(tokenizer, devices, host, host, FD(), seed=0, staleness=k)
    state = TrainState(
        params=None,
        opt_state=(),
        teacher=None,
        step=jnp.int32(0),
        key=jax.random.key(0),
    )
    begin = 0.0
    for iteration in range(iterations + 1):
        if iteration == 1:
            # The first one fills the pipeline.
            begin, devices.busy_s = time.perf_counter(), 0.0
        source.next(state, StageTimer())
        devices.work(STEP_S)
    source.drop()
    wall = time.perf_counter() - begin
    return 1 - devices.busy_s / wall, wall / iterations


def _reward(tokenizer: PreTrainedTokenizerFast, k: int, seed: int, steps: int) -> float:
    """Mean reward of the last tenth of the iterations of a small policy by GRPO."""
    mesh = make_mesh(data=-1)
    model = Model(
        ModelConfig(
            vocab_size=304,
            hidden_size=32,
            intermediate_size=64,
            num_layers=2,
            num_heads=2,
            num_kv_heads=2,
            head_dim=16,
            max_position_embeddings=128,
        ),
        mesh,
    )
    optimizer = make_optimizer(OptimizerConfig(learning_rate=3e-3))
    state = init_state(model, optimizer, mesh, jax.random.key(seed))
    step = make_train_step(model, make_objective(model, (GRPO(),)), optimizer, mesh)
    sampler = SlotSampler(
        model,
        SamplingConfig(max_new_tokens=TOKENS, stop_tokens=(end_token(tokenizer),)),
        SlotsConfig(longest=64, slots=64, page=16),
        mesh,
    )
    writer = ConstantFeedback(text="hint")
    source = _source(
        tokenizer, sampler, Written(), writer, GRPO(), seed=seed, staleness=k
    )
    rewards = []
    for _ in range(steps):
        data = source.next(state, StageTimer())
        rewards.append(data.metrics["reward/mean"].value())
        for batch in data.batches:
            state, _ = step(state, shard_batch(batch, mesh))
    source.drop()
    return statistics.mean(rewards[-max(1, steps // 10) :])


if __name__ == "__main__":
    main()
