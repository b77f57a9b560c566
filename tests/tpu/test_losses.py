"""The losses for TPUs, compiled ahead of time by the TPU's own compiler.

Nothing runs: what is held here is that programs compile, and what memory they take.
Needs the extra `[tpu]`: `make tpu`.
"""

import functools
import re

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks import tpu_losses
from fdjax.ops import Chunking, chunked_logprobs
from fdjax.plan.topology import mesh_on, prepare

prepare()

GIB = 2**30
VOCABULARY, WIDTH = 151_936, 2_048
CHIPS = tpu_losses.TOPOLOGIES


def _peak(compiled):
    return compiled.memory_analysis().peak_memory_in_bytes


def _arguments(compiled):
    memory = compiled.memory_analysis()
    return memory.argument_size_in_bytes + memory.output_size_in_bytes


@functools.cache
def _compile(topology, workload, *, tokens=4_096, width=WIDTH, **kwargs):
    mesh = mesh_on(topology)
    return tpu_losses.compile_loss(
        mesh,
        workload,
        vocabulary=VOCABULARY,
        width=width,
        batch=(1, tokens),
        rows=None,
        **kwargs,
    )


def _widest(compiled):
    """Rows of the largest array along the vocabulary that is no head."""
    shapes = re.findall(r"\b(?:f32|bf16)\[([\d,]+)\]", compiled.as_text())
    sizes = [[int(size) for size in shape.split(",")] for shape in set(shapes)]
    return max(
        (size[0] for size in sizes if len(size) == 2 and size[1] == VOCABULARY),
        default=0,
    )


@pytest.mark.parametrize("workload", ["forward_kl", "reverse_kl", "jsd", "grpo"])
@pytest.mark.parametrize("chip", CHIPS)
def test_a_chunk_is_all_that_is_added(chip, workload):
    """Beyond inputs and gradients: the head's in float32, and a chunk's logits."""
    compiled = _compile(CHIPS[chip], workload)
    chunking = Chunking(mesh=mesh_on(CHIPS[chip]))
    rows = chunking.size(4_096, vocabulary=VOCABULARY, width=WIDTH)
    assert _widest(compiled) == rows
    logits = 2 if workload == "grpo" else 3  # the student's, its slope, the teacher's
    logits += 2 * (chip == "v7x")  # its compiler keeps copies
    table = 4 * VOCABULARY * WIDTH
    hidden = 3 * 2 * 4_096 * WIDTH  # cut into chunks, and put together again
    bound = _arguments(compiled) + table + logits * 4 * rows * VOCABULARY + hidden
    assert _peak(compiled) < 1.05 * bound


@pytest.mark.parametrize("chip", CHIPS)
def test_memory_does_not_grow_with_tokens(chip):
    few = _compile(CHIPS[chip], "forward_kl")
    many = _compile(CHIPS[chip], "forward_kl", tokens=16_384)
    more_hidden = 2 * 12_288 * WIDTH  # bytes of one array of hidden states
    # Student's, teacher's, the gradient's, and each in chunks.
    assert _peak(many) - _peak(few) < 7 * more_hidden


def test_whole_logits_do_not_fit_where_chunks_do():
    """16,384 tokens on a v5e of 15.75 GiB, at the width of an 8B model."""
    sizes = {"tokens": 16_384, "width": 4_096}
    assert _peak(_compile(CHIPS["v5e"], "forward_kl", **sizes)) < 8 * GIB
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        _compile(CHIPS["v5e"], "forward_kl", whole=True, **sizes)


@pytest.mark.parametrize(
    ("axes", "ceiling"),
    [({"fsdp": 16}, 6.5), ({"fsdp": 4, "tensor": 4}, 2.2)],
    ids=["fsdp16", "fsdp4-tensor4"],
)
def test_ceilings_on_sixteen_chips(axes, ceiling):
    """The head of an 8B model over v5e:4x4, 4,096 tokens a row of the batch."""
    mesh = mesh_on("v5e:4x4", **axes)
    compiled = tpu_losses.compile_loss(
        mesh,
        "forward_kl",
        vocabulary=VOCABULARY,
        width=4_096,
        batch=(axes["fsdp"], 4_096),
        rows=None,
    )
    assert _peak(compiled) / GIB < ceiling
    # No other device's part of the vocabulary is ever here.
    assert f",{VOCABULARY}]" not in compiled.as_text()


def _compile_logprobs(mesh, batch, width, dtype=jnp.bfloat16):
    def shaped(shape, spec, dtype=dtype):
        layout = NamedSharding(mesh, PartitionSpec(*spec))
        return jax.ShapeDtypeStruct(shape, dtype, sharding=layout)

    def logprobs(hidden, head, tokens, mask):
        return chunked_logprobs(
            hidden,
            head,
            tokens,
            mask=mask,
            temperature=0.7,
            soft_cap=30.0,
            chunking=Chunking(mesh=mesh),
        )

    return (
        jax.jit(logprobs)
        .lower(
            shaped((*batch, width), ("fsdp",)),
            shaped((VOCABULARY, width), ("tensor", "fsdp")),
            shaped(batch, ("fsdp",), jnp.int32),
            shaped(batch, ("fsdp",), jnp.bool_),
        )
        .compile()
    )


@pytest.mark.parametrize(
    ("width", "dtype"),
    [(896, jnp.bfloat16), (4_096, jnp.bfloat16), (8_192, jnp.float32)],
    ids=["896-bfloat16", "4096-bfloat16", "8192-float32"],
)
@pytest.mark.parametrize("chip", CHIPS)
def test_the_kernel_compiles_and_holds_no_logits(chip, width, dtype):
    mesh = mesh_on(CHIPS[chip])
    compiled = _compile_logprobs(mesh, (1, 4_096), width, dtype)
    assert "tpu_custom_call" in compiled.as_text()
    assert _widest(compiled) == 0
    hidden = 4_096 * width * jnp.dtype(dtype).itemsize
    assert _peak(compiled) - _arguments(compiled) < 2 * hidden + 32 * 2**20


def test_the_kernel_over_sixteen_chips():
    mesh = mesh_on("v5e:4x4", fsdp=4, tensor=4)
    compiled = _compile_logprobs(mesh, (8, 2_048), 4_096)
    text = compiled.as_text()
    assert "tpu_custom_call" in text
    assert f"[{VOCABULARY}," not in text
    assert f"[{VOCABULARY // 4},4096]" not in text
    assert f"bf16[{VOCABULARY // 16},4096]" in text
