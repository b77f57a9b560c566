import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from fdjax.errors import ConfigError
from fdjax.sharding import (
    DEFAULT_RULES,
    batch_sharding,
    check_rows,
    init_sharded,
    make_mesh,
    shard_batch,
    shardings,
)

_AXES = {"up": ("layer", "embed", "mlp"), "norm": {"scale": ("embed",)}}


def _init(key):
    return {
        # Bits, not normals: vector code may round differently in another shape.
        "up": jax.random.bits(key, (3, 8, 4)),
        "norm": {"scale": jnp.arange(8.0)},
    }


def _layouts(mesh, rules=DEFAULT_RULES):
    return shardings(mesh, _AXES, jax.eval_shape(_init, jax.random.key(0)), rules)


def test_names_become_mesh_axes():
    layouts = _layouts(make_mesh(data=2, fsdp=2, tensor=2))
    assert layouts["up"].spec == PartitionSpec(None, "fsdp", "tensor")
    assert layouts["norm"]["scale"].spec == PartitionSpec("fsdp")


def test_another_table_gives_another_layout():
    rules = {**DEFAULT_RULES, "embed": None, "mlp": "fsdp"}
    layouts = _layouts(make_mesh(data=4, fsdp=2), rules)
    assert layouts["up"].spec == PartitionSpec(None, None, "fsdp")


@pytest.mark.parametrize(
    ("axes", "rules", "message"),
    [
        (("width",), DEFAULT_RULES, r"got \['width'\]: add a rule"),
        (("embed",), {"embed": "expert"}, "change the rules"),
        (("vocab", "mlp"), DEFAULT_RULES, "different mesh axes"),
    ],
)
def test_impossible_layouts_are_refused(axes, rules, message):
    with pytest.raises(ConfigError, match=message):
        shardings(make_mesh(), {"w": axes}, {"w": jnp.zeros((8,) * len(axes))}, rules)


def test_sharded_init_equals_plain_init_in_pieces():
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    got = init_sharded(mesh, _init, _AXES, jax.random.key(0))
    want = jax.jit(_init)(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, got, want)
    # [3, 8, 4] with 8 over fsdp = 2 and 4 over tensor = 2.
    assert {s.data.shape for s in got["up"].addressable_shards} == {(3, 4, 2)}
    assert {s.data.shape for s in got["norm"]["scale"].addressable_shards} == {(4,)}


def test_an_axis_that_does_not_divide_is_an_error_with_its_name():
    mesh = make_mesh(data=1, fsdp=1, tensor=8)
    with pytest.raises(ConfigError, match=r"\['up'\].*'mlp': 4.*'tensor': 8"):
        init_sharded(mesh, _init, _AXES, jax.random.key(0))
    whole = init_sharded(
        mesh, _init, _AXES, jax.random.key(0), {**DEFAULT_RULES, "mlp": None}
    )
    assert whole["up"].sharding.is_fully_replicated


def test_batches_are_cut_over_data_and_fsdp():
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    batch = shard_batch(np.arange(8.0, dtype=np.float32), mesh)
    assert batch.sharding == batch_sharding(mesh)
    pieces = {s.device: s.data.tolist() for s in batch.addressable_shards}
    # Four parts of two rows, each on the two devices of a tensor group.
    for index, devices in enumerate(mesh.devices.reshape(4, 2)):
        for device in devices:
            assert pieces[device] == [2.0 * index, 2.0 * index + 1]


@pytest.mark.parametrize(
    ("rows", "microbatches", "divisor"), [(6, 1, 4), (8, 3, 12), (8, 4, 16), (0, 1, 4)]
)
def test_rows_that_do_not_divide_are_an_error_with_the_divisor(
    rows, microbatches, divisor
):
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    batch = {"mask": np.ones((rows, 3), bool)}
    with pytest.raises(ConfigError, match=rf"divide by {divisor} = 4 .* got {rows} "):
        check_rows(batch, mesh, microbatches=microbatches)
    check_rows({"mask": np.ones((24, 3), bool)}, mesh, microbatches=3)


@pytest.mark.parametrize(
    "batch", [{}, None, {"a": np.float32(1)}, {"a": np.ones((8, 2)), "b": np.ones(16)}]
)
def test_a_batch_without_rows_in_common_is_refused(batch):
    with pytest.raises(ConfigError, match="as many rows each"):
        shard_batch(batch, make_mesh())
