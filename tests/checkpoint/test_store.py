import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from fdjax.checkpoint import CheckpointStore
from fdjax.errors import CheckpointError


def state(offset=0.0):
    return {
        "w": jnp.arange(16.0).reshape(4, 4) / 3 + offset,
        "half": jnp.full((2,), 1 / 3, jnp.bfloat16),
        "step": jnp.asarray(7, jnp.int32),
        "key": jax.random.key(5),
    }


def test_round_trip_is_bitwise_with_typed_keys(tmp_path):
    with CheckpointStore(tmp_path) as store:
        store.save(3, state(), {"source": {"next_index": 4}})
        restored, host = store.restore(state(1.0))
    assert host == {"source": {"next_index": 4}}
    for name in ("w", "half", "step"):
        np.testing.assert_array_equal(restored[name], state()[name])
        assert restored[name].dtype == state()[name].dtype
    draw = jax.random.normal(restored["key"], (3,))
    np.testing.assert_array_equal(draw, jax.random.normal(jax.random.key(5), (3,)))


def test_what_is_saved_is_the_moment_of_saving(tmp_path):
    """The next step donates the state's buffers while the save is still running."""
    donate = jax.jit(lambda w: w * 0 - 1, donate_argnums=0)
    big = jnp.arange(4_000_000.0)
    with CheckpointStore(tmp_path) as store:
        store.save(1, {"w": big}, {})
        donate(big).block_until_ready()
        like = {"w": jnp.zeros(4_000_000)}
        restored, _ = store.restore(like)
    np.testing.assert_array_equal(restored["w"], np.arange(4_000_000, dtype=np.float32))


def test_restores_onto_another_sharding(tmp_path):
    with CheckpointStore(tmp_path) as store:
        store.save(1, {"w": state()["w"]}, {})
        mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ("data",))
        sharding = NamedSharding(mesh, PartitionSpec("data"))
        like = {"w": jax.ShapeDtypeStruct((4, 4), jnp.float32, sharding=sharding)}
        restored, _ = store.restore(like)
    assert restored["w"].sharding == sharding
    np.testing.assert_array_equal(restored["w"], state()["w"])


def test_keeps_the_newest_and_restores_any_that_is_left(tmp_path):
    with CheckpointStore(tmp_path, keep=2) as store:
        for step in (1, 2, 3):
            store.save(step, {"w": jnp.full(2, float(step))}, {})
        assert store.steps == [2, 3]
        restored, _ = store.restore({"w": jnp.zeros(2)}, 2)
    np.testing.assert_array_equal(restored["w"], [2.0, 2.0])


def test_nothing_to_restore(tmp_path):
    with (
        CheckpointStore(tmp_path) as store,
        pytest.raises(CheckpointError, match="got steps"),
    ):
        store.restore({"w": jnp.zeros(2)})


@pytest.mark.parametrize(
    "like",
    [{"w": jnp.zeros(3)}, {"v": jnp.zeros(2)}, {"w": jnp.zeros(2), "v": jnp.zeros(2)}],
)
def test_another_state_does_not_fit(tmp_path, like):
    with CheckpointStore(tmp_path) as store:
        store.save(1, {"w": jnp.zeros(2)}, {})
        with pytest.raises(CheckpointError, match="does not fit"):
            store.restore(like)


def test_an_unfinished_save_is_not_a_checkpoint(tmp_path):
    with CheckpointStore(tmp_path) as store:
        store.save(1, {"w": jnp.zeros(2)}, {})
    torn = tmp_path / "2.orbax-checkpoint-tmp"
    torn.mkdir()
    (torn / "state").mkdir()
    with CheckpointStore(tmp_path) as store:
        assert store.latest_step == 1


def test_a_full_disk_is_one_error_and_keeps_what_was_complete(tmp_path):
    with CheckpointStore(tmp_path) as store:
        store.save(1, state(), {})
    # Files may not outgrow 64 KiB: the write is refused as on a full disk.
    code = f"""
import resource, signal
from pathlib import Path
import jax
from fdjax.checkpoint import CheckpointStore
from fdjax.errors import CheckpointError
large = {{"w": jax.random.normal(jax.random.key(0), (512, 512))}}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    with CheckpointStore(Path({str(tmp_path)!r})) as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, resource.RLIM_INFINITY))
        store.save(2, large, {{}})
except CheckpointError as error:
    print(error)
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "Make room and resume" in ran.stdout
    with CheckpointStore(tmp_path) as again:
        assert again.steps == [1]
        restored, _ = again.restore(state(1.0))
    np.testing.assert_array_equal(restored["w"], state()["w"])
