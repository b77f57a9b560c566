"""Exchanges counted in programs: lines as compilers write them, and compiled loops."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from fdjax.plan.collectives import collectives, received_bytes, summed
from fdjax.plan.hlo import Program
from fdjax.sharding import make_mesh

# A loop of four turns that gathers 64 KiB among all, reduces among pairs, has a kernel
# on three lines, and scatters inside a fusion; a gathering that goes on beside other
# work; and two branches, of which one moves more than the other.
PROGRAM = r"""HloModule jit_step, is_scheduled=true

%add () -> () {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%scattered () -> () {
  %p = f32[64,128] parameter(0)
  ROOT %rs = f32[8,128] reduce-scatter(%p), channel_id=3, replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%add
}

%layer () -> () {
  %carry = (s32[], bf16[32,128]) parameter(0)
  %i = s32[] get-tuple-element(%carry), index=0
  %w = bf16[32,128] get-tuple-element(%carry), index=1
  %whole = bf16[256,128] all-gather(%w), channel_id=1, replica_groups=[1,8]<=[8], dimensions={0}
  %g = f32[64,128] convert(%whole)
  %r = f32[64,128] all-reduce(%g), channel_id=2, replica_groups=mesh['fsdp'=4,'tensor'=2] {'tensor'}, to_apply=%add
  %kernel = f32[64,128] custom-call(%r), frontend_attributes={kernel_metadata={
"xprof_metadata":"{\"block_q\": 512}"
}}, metadata={op_name="splash"}
  %s = f32[8,128] fusion(%kernel), kind=kCustom, calls=%scattered
  ROOT %next = (s32[], bf16[32,128]) tuple(%i, %w)
}

%more () -> () {
  %carry = (s32[], bf16[32,128]) parameter(0)
  %i = s32[] get-tuple-element(%carry), index=0
  %four = s32[] constant(4)
  ROOT %less = pred[] compare(%i, %four), direction=LT
}

%taken () -> () {
  %p = f32[128] parameter(0)
  ROOT %moved = f32[128] collective-permute(%p), channel_id=5, source_target_pairs={{0,1},{1,0}}
}

%left () -> () {
  %p = f32[128] parameter(0)
  %twice = f32[256] concatenate(%p, %p)
  %sent = f32[256] collective-permute(%twice), channel_id=7, source_target_pairs={{0,1},{1,0}}
  ROOT %half = f32[128] slice(%sent), slice={[0:128]}
}

ENTRY %main () -> () {
  %w = bf16[32,128] parameter(0)
  %x = f32[128] parameter(1)
  %zero = s32[] constant(0)
  %start = (bf16[32,128], bf16[256,128]) all-gather-start(%w), channel_id=4, replica_groups=[1,8]<=[8], dimensions={0}
  %tuple = (s32[], bf16[32,128]) tuple(%zero, %w)
  %loop = (s32[], bf16[32,128]) while(%tuple), condition=%more, body=%layer
  %done = bf16[256,128] all-gather-done(%start)
  %alone = f32[128] all-reduce(%x), channel_id=6, replica_groups={{0},{1}}, to_apply=%add
  ROOT %out = f32[128] conditional(%zero, %x, %x), branch_computations={%taken, %left}
}
"""  # noqa: E501 - lines are those of the compiler


def test_kinds_groups_and_turns_by_hand():
    found = collectives(Program.parse(PROGRAM), devices=8)
    rows = {(one.kind, one.times): (one.size, one.group, one.received) for one in found}
    gathered, reduced = 256 * 128 * 2, 64 * 128 * 4
    assert rows == {
        ("all-gather", 5): (gathered, 8, 5 * gathered * 7 / 8),
        ("all-reduce", 4): (reduced, 2, 4 * reduced * 2 / 2),
        ("reduce-scatter", 4): (reduced, 8, 4 * reduced * 7 / 8),
        # One of the branches is taken: at least as much as in the lesser.
        ("collective-permute", 1): (512, 2, 512),
    }
    assert received_bytes(found) == pytest.approx(sum(row[2] for row in rows.values()))
    assert next(iter(summed(found))) == "all-gather"


def test_a_compiled_loop_counts_its_turns():
    """Six layers whose weights are cut over eight devices, as fsdp has them."""
    mesh = make_mesh(fsdp=8, data=1)

    def layers(x, weights):
        def layer(x, weight):
            weight = jax.lax.with_sharding_constraint(
                weight, NamedSharding(mesh, PartitionSpec())
            )
            return jnp.tanh(x @ weight), None

        return jax.lax.scan(layer, x, weights)[0]

    def shaped(shape, *spec):
        layout = NamedSharding(mesh, PartitionSpec(*spec))
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=layout)

    compiled = (
        jax.jit(layers)
        .lower(shaped((8, 64), "fsdp"), shaped((6, 64, 64), None, "fsdp"))
        .compile()
    )
    found = collectives(Program.parse(compiled.as_text()), devices=8)
    gathers = [one for one in found if one.kind == "all-gather"]
    assert [(one.size, one.times, one.group) for one in gathers] == [
        (64 * 64 * 4, 6, 8)
    ]
