"""Bytes counted in a program as a TPU's compiler writes it, by hand."""

import pytest

from fdjax.plan.hlo import Program
from fdjax.plan.traffic import cycles, moves, streamed

# Four layers' weights, 64 KiB each; rows that are copied to the fast memory; and a
# cache, of which each of four turns writes one tile and a kernel reads all.
SHORT = {
    "$carry": "($index, $fast, $cache, $stack)",
    "$stack": "bf16[4,256,128]{2,1,0:T(8,128)(2,1)}",
    "$slice": "bf16[1,256,128]{2,1,0:T(8,128)(2,1)}",
    "$layer": "bf16[256,128]{1,0:T(8,128)(2,1)}",
    "$cache": "bf16[64,128]{1,0:T(8,128)(2,1)}",
    "$new": "bf16[8,128]{1,0:T(8,128)(2,1)S(1)}",
    "$fast": "bf16[8,256]{1,0:T(8,128)(2,1)S(1)}",
    "$rows": "bf16[8,256]{1,0:T(8,128)(2,1)}",
    "$index": "s32[]{:T(128)S(6)}",
    "$unknown": 'backend_config={"estimated_cycles":"9223372036854775807"}',
    "$window": 'backend_config={"window_config":{"kernel_window_bounds":["16","1"],'
    '"estimated_cycles":"500","iteration_bounds":["1","2"]}}',
}
PROGRAM = r"""HloModule jit_step, is_scheduled=true

%pick () -> () {
  %p = $stack parameter(0)
  %i = $index parameter(1)
  %slice = $slice dynamic-slice(%p, %i), dynamic_slice_sizes={1,256,128}
  ROOT %flat = $layer bitcast(%slice)
}

%product () -> () {
  %p = $stack parameter(0)
  %i = $index parameter(1)
  %x = $fast parameter(2)
  %w = $layer fusion(%p, %i), kind=kLoop, calls=%pick
  ROOT %dot = $new convolution(%x, %w), dim_labels=bf_io->bf
}

%write () -> () {
  %held = $cache parameter(0)
  %new = $new parameter(1)
  %i = $index parameter(2)
  ROOT %put = $cache dynamic-update-slice(%held, %new, %i, %i)
}

%layer () -> () {
  %carry = $carry parameter(0)
  %i = $index get-tuple-element(%carry), index=0
  %x = $fast get-tuple-element(%carry), index=1
  %cache = $cache get-tuple-element(%carry), index=2
  %w = $stack get-tuple-element(%carry), index=3
  %new = $new fusion(%w, %i, %x), kind=kOutput, calls=%product, $window
  %cache.1 = $cache fusion(%cache, %new, %i), kind=kLoop, calls=%write
  %kernel = $new custom-call(%new, %cache.1), $unknown
  %one = $index constant(1)
  %next = $index add(%i, %one)
  ROOT %tuple = $carry tuple(%next, %x, %cache.1, %w)
}

%more () -> () {
  %carry = $carry parameter(0)
  %i = $index get-tuple-element(%carry), index=0
  %four = $index constant(4)
  ROOT %less = pred[]{:T(512)S(6)} compare(%i, %four), direction=LT
}

ENTRY %main () -> () {
  %w = $stack parameter(0), metadata={op_name="params[\'layers\']"}
  %cache = $cache parameter(1), metadata={op_name="pages"}
  %x = $rows parameter(2), metadata={op_name="x"}
  %zero = $index constant(0)
  %w.1 = $stack copy(%w), backend_config={"estimated_cycles":"70"}
  %start = ($fast, $rows, u32[]{:S(2)}) copy-start(%x)
  %x.1 = $fast copy-done(%start)
  %tuple = $carry tuple(%zero, %x.1, %cache, %w.1)
  %loop = $carry while(%tuple), condition=%more, body=%layer
  ROOT %out = $cache get-tuple-element(%loop), index=2
}
"""
for name, text in SHORT.items():
    PROGRAM = PROGRAM.replace(name, text)
LAYER, ROWS, CACHE = 256 * 128 * 2, 8 * 256 * 2, 64 * 128 * 2


def _found(text=PROGRAM):
    program = Program.parse(text)
    return [
        (move.operation.name, move.origin, move.read, move.written)
        for move in moves(program, program.runs(program.entry))
    ]


def test_each_array_counts_once_and_slices_and_updates_what_they_touch():
    weights = "params['layers']"
    assert _found() == [
        ("w.1", weights, 4 * LAYER, 0),
        ("w.1", "", 0, 4 * LAYER),
        ("start", "x", ROWS, 0),
        ("new", weights, 4 * LAYER, 0),
        ("cache.1", "", 0, 4 * 8 * 128 * 2),
        ("kernel", "pages", 4 * CACHE, 0),
    ]


def test_what_is_no_update_in_place_writes_all_of_it():
    copied = PROGRAM.replace(
        "ROOT %put = bf16[64,128]{1,0:T(8,128)(2,1)} dynamic-update-slice(%held,",
        "%own = bf16[64,128]{1,0:T(8,128)(2,1)} copy(%held)\n"
        "  ROOT %put = bf16[64,128]{1,0:T(8,128)(2,1)} dynamic-update-slice(%own,",
    )
    assert ("cache.1", "pages", 4 * CACHE, 0) in _found(copied)
    assert ("cache.1", "", 0, 4 * CACHE) in _found(copied)


def test_what_a_slice_is_not_taken_of_is_read_whole():
    whole = PROGRAM.replace("dynamic-slice(%p, %i), dynamic_slice", "select(%p, %i), s")
    assert ("new", "params['layers']", 4 * 4 * LAYER, 0) in _found(whole)


def test_arrays_fill_whole_tiles():
    odd = PROGRAM.replace("bf16[64,128]", "bf16[57,100]")
    assert ("kernel", "pages", 4 * CACHE, 0) in _found(odd)


def test_cycles_and_windows_count_loops_as_often_as_they_run():
    program = Program.parse(PROGRAM)
    runs = list(program.runs(program.entry))
    assert cycles(runs) == 4 * 500 + 70
    assert streamed(runs, itemsize=2) == 4 * LAYER


def test_a_loop_of_unknown_turns_is_for_the_caller():
    program = Program.parse(PROGRAM.replace("direction=LT", "direction=NE"))
    assert program.open_loop().named("body") == "layer"
    assert [run.operation.name for run in program.runs(program.entry)][-1] == "out"
    with pytest.raises(ValueError, match="one loop of unknown turns, got 0"):
        Program.parse(PROGRAM).open_loop()
    branches = PROGRAM.replace("copy(%w)", "conditional(%w)")
    with pytest.raises(ValueError, match=r"conditional w\.1 is not counted"):
        list(Program.parse(branches).runs("main"))
    with pytest.raises(ValueError, match="got no ENTRY"):
        Program.parse("HloModule nothing")
