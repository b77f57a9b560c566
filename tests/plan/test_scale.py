"""The table of scale: what is compared is the same loss, and nothing is made up."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import scale
from fdjax.encoding import decode
from fdjax.model import Model, ModelConfig
from fdjax.plan.bounds import exchanged
from fdjax.plan.chips import GIB
from fdjax.plan.sizes import SIZES
from fdjax.plan.subject import PROMPT
from fdjax.rollout import Batch, TeacherPrompts
from fdjax.sampling import SamplingConfig
from fdjax.train import FD, GRPO, make_objective

CONFIG = ModelConfig(
    vocab_size=64,
    hidden_size=16,
    intermediate_size=32,
    num_layers=1,
    num_heads=2,
    num_kv_heads=1,
    head_dim=8,
)


def _batch():
    """Three attempts with two tokens of padding, some of them unknown."""
    rows, prompt, width = 3, 4, 6
    ids = jax.random.randint(jax.random.key(1), (rows, prompt + width), 0, 64)
    valid = jnp.arange(width)[None] < jnp.array([[6], [4], [5]])
    prompts = jnp.ones((rows, prompt), bool)
    return Batch(
        prompts=ids[:, :prompt],
        prompt_valid=prompts,
        responses=ids[:, prompt:],
        response_valid=valid,
        written=valid,
        known=jnp.array([True, True, False]),
        passed=jnp.array([True, False, False]),
        pass_rate=jnp.full(rows, 0.5),
        advantages=jnp.array([1.0, -1.0, 0.0]),
        old_logprobs=jnp.full((rows, width), -4.0),
        version=jnp.zeros(rows, jnp.int32),
        feedback=TeacherPrompts(ids[:, :prompt] + 0, prompts, valid),
        sampling=SamplingConfig(max_new_tokens=width, temperature=0.7),
    )


@pytest.mark.parametrize("term", [FD(), GRPO()], ids=["fd", "grpo"])
def test_all_logits_are_the_same_loss(term):
    model, batch = Model(CONFIG), _batch()
    student, teacher = (model.init(jax.random.key(seed)) for seed in (0, 1))
    values = []
    for objective in (
        make_objective(model, (term,)),
        scale.all_logits(model, (term,)),
    ):
        normalizers = objective.normalizers(batch)
        loss, _ = objective.loss(
            student,
            teacher if objective.reads_teacher else None,
            batch,
            normalizers,
            jnp.int32(3),
        )
        values.append(float(loss))
    assert values[0] != 0
    # Sums in float32 in another order.
    assert values[1] == pytest.approx(values[0], rel=1e-5)


def test_the_table_says_what_was_not_run():
    cell = scale.Cell("qwen3-8b", "v5e-64", "fd", "bounded")
    whole = cell._replace(losses="all logits")
    floor = {"compute_s": 1.0, "memory_s": 2.5, "links_s": 0.5, "binds": "memory"}
    figures = {"peak_bytes": 8 * GIB, "fits": True, "refusal": "", "floor": floor}
    refused = {"peak_bytes": 17 * GIB, "fits": False, "refusal": "Ran out of memory"}
    too_large = scale.Cell("qwen3-32b", "v5e-16", "fd", "bounded").place
    lines = list(
        scale.table(
            {cell.place: 3 * GIB, too_large: 40 * GIB},
            {cell.key: figures, whole.key: figures | refused},
        )
    )
    assert len(lines) == 2 + len(scale.POLICIES) * len(scale.SLICES)
    assert lines[2] == (
        "| qwen3-8b | v5e-64 | 15.75 | 3.00 | 8.00 | **no**, 17.00 or more | not run "
        "| not run | 2.5 s, memory |"
    )
    [line] = [line for line in lines if line.startswith("| qwen3-32b | v5e-16")]
    assert "| 40.00 | **no** | **no** | not run | not run |" in line


def _committed():
    """Cells that were compiled, and their figures."""
    cells = decode((scale.DOCS / "scale.json").read_bytes())["cells"]
    return [
        (cell, cells[cell.key])
        for cell in scale.CELLS
        if cell.key in cells and not cells[cell.key]["refusal"]
    ]


def test_no_compiled_step_exchanges_less_than_it_must():
    committed = _committed()
    assert len(committed) >= 16
    shares = []
    for cell, figures in committed:
        attempts = scale.prover.CONFIG.attempts
        least = exchanged(
            SIZES[cell.policy],
            fsdp=scale._devices(cell),
            tensor=1,
            data=1,
            tokens=attempts.batch_size * (PROMPT + attempts.max_new_tokens),
            microbatches=figures["microbatches"],
            teachers=int(cell.algorithm == "fd"),
            trained=True,
        )
        shares.append(least / sum(figures["received_bytes"].values()))
        assert 0 < shares[-1] <= 1, (cell.key, shares[-1])
    # It is not far below all of them either.
    assert max(shares) > 0.6


def test_each_cell_is_there_once_and_the_most_telling_come_first():
    assert len({cell.key for cell in scale.CELLS}) == len(scale.CELLS) == 140
    assert [cell.key for cell in scale.CELLS[:3]] == [
        "qwen3-8b, v5e-64, fd, bounded",
        "qwen3-8b, v5e-64, fd, all logits",
        "qwen3-8b, v5p-64, fd, bounded",
    ]
