"""Checkpoints in an object store that answers over HTTP on this machine."""

import uuid

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

pytest.importorskip("google_crc32c", reason="needs the extra: pip install 'fdjax[gcs]'")

from fdjax.checkpoint import CheckpointStore, Retention, checkpoint_steps
from fdjax.errors import ConfigError, DamagedCheckpointError, StoreError
from fdjax.objects import place
from object_store import shared_store


@pytest.fixture
def store():
    server = shared_store()
    yield server
    server.fault = lambda method, path: None


@pytest.fixture
def address(store):
    return place(f"gs://bucket/{uuid.uuid4().hex}/fd")


def below(store, address):
    prefix = str(address).removeprefix("gs://bucket/") + "/"
    return {name.removeprefix(prefix): name for name in store.names(prefix)}


def state(offset=0.0):
    mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("fsdp"))
    return {
        "w": jax.device_put(jnp.arange(64.0).reshape(8, 8) / 3 + offset, rows),
        "half": jnp.full((2,), 1 / 3, jnp.bfloat16),
        "noise": jax.random.normal(jax.random.key(1), (10_000,)),
        "key": jax.random.key(5),
    }


def save(address, *steps, keep=None):
    with CheckpointStore(address, keep) as checkpoints:
        for step in steps:
            checkpoints.save(step, state(step), {"step": step})


def save_and_wait(checkpoints):
    checkpoints.save(2, state(2), {"step": 2})
    checkpoints.wait()


def bits(tree):
    return [np.asarray(jax.random.key_data(leaf) if leaf.dtype == tree["key"].dtype
            else leaf).tobytes() for leaf in jax.tree.leaves(tree)]  # fmt: skip


def test_what_is_saved_is_restored_bit_for_bit_and_old_ones_go(store, address):
    save(address, 1, 2, 3)
    assert checkpoint_steps(address) == [2, 3]
    assert not [name for name in below(store, address) if name.startswith("1/")]
    with CheckpointStore(address) as checkpoints:
        assert checkpoints.latest_step == 3
        restored, host = checkpoints.restore(state())
        assert checkpoints.host(2) == {"step": 2}
    assert host == {"step": 3}
    assert bits(restored) == bits(state(3))
    assert restored["w"].sharding == state()["w"].sharding


def test_a_checkpoint_without_orbaxs_mark_is_none_and_goes(store, address):
    save(address, 1, 2)
    del store.objects[below(store, address)["2/commit_success.txt"]]
    assert checkpoint_steps(address) == [1]
    with CheckpointStore(address) as checkpoints:
        assert checkpoints.steps == [1]
        assert not [name for name in below(store, address) if name.startswith("2/")]
        checkpoints.save(2, state(9), {"step": 2})
        restored, _ = checkpoints.restore(state())
    assert bits(restored) == bits(state(9))


def largest(store, address, step):
    names = [name for short, name in below(store, address).items()
             if short.startswith(f"{step}/state/") and "/d/" in short]  # fmt: skip
    return max(names, key=lambda name: len(store.objects[name].content))


@pytest.mark.parametrize("damage", ["flipped", "halved", "no arrays", "no host"])
def test_damage_is_called_so_and_set_aside(store, address, damage):
    save(address, 1, 2)
    name = largest(store, address, 2)
    content = bytearray(store.objects[name].content)
    match damage:
        case "flipped":
            content[len(content) // 2] ^= 4
            store.put(name, content)
        case "halved":
            store.put(name, content[: len(content) // 2])
        case "no arrays":
            del store.objects[name]
        case "no host":
            del store.objects[below(store, address)["2/host/metadata"]]
    with CheckpointStore(address) as checkpoints:
        with pytest.raises(DamagedCheckpointError, match="/2 is damaged"):
            checkpoints.restore(state())
        checkpoints.set_aside_after(1)
        assert checkpoints.steps == [1]
        assert bits(checkpoints.restore(state())[0]) == bits(state(1))
        checkpoints.save(2, state(5), {"step": 2})
        assert bits(checkpoints.restore(state())[0]) == bits(state(5))
    assert checkpoint_steps(address) == [1, 2]
    assert [one for one in below(store, address) if one.startswith("2.set-aside/state")]


def test_what_a_killed_process_left_to_delete_goes(store, address):
    save(address, 1, 2, 3, keep=Retention(newest=None))
    with CheckpointStore(address, Retention(newest=1)) as checkpoints:
        checkpoints.hold(2)
        checkpoints.delete_others()
        assert checkpoints.steps == [2, 3]
    assert checkpoint_steps(address) == [2, 3]


def test_a_store_that_is_busy_is_asked_again(store, address):
    left = {"POST": 3, "GET": 3, "DELETE": 1}

    def busy(method, path):
        if "/state/" in path or "/upload/" in path:
            left[method] = left.get(method, 0) - 1
            return 503 if left[method] >= 0 else None
        return None

    with CheckpointStore(address) as checkpoints:
        store.fault = busy
        checkpoints.save(1, state(1), {"step": 1})
        checkpoints.wait()
        restored, _ = checkpoints.restore(state())
    assert left["POST"] < 0
    assert left["GET"] < 0
    assert bits(restored) == bits(state(1))


def test_a_store_that_refuses_is_no_damage(store, address):
    """Else a resume would set aside what is whole, and train the same again."""
    save(address, 1, 2)
    with CheckpointStore(address) as checkpoints:
        store.fault = lambda method, path: 403 if "/2/" in path else None
        with pytest.raises(StoreError, match=r"403|PERMISSION_DENIED|Forbidden"):
            checkpoints.restore(state())
        store.fault = lambda method, path: 403 if "/2/state/" in path else None
        with pytest.raises(StoreError, match=r"403|PERMISSION_DENIED|Forbidden"):
            checkpoints.restore(state())


# Tensorstore tells of writes that end after the loop that waited for them has gone.
unheard = pytest.mark.filterwarnings(
    "ignore:Exception ignored:pytest.PytestUnraisableExceptionWarning"
)


def save_refused(store, address):
    """Orbax tells of it once more as it closes, if it had begun to write."""
    with CheckpointStore(address) as checkpoints:
        store.fault = lambda method, path: 403 if method == "POST" else None
        save_and_wait(checkpoints)


@unheard
def test_a_save_that_is_refused_ends_with_the_stores_error(store, address):
    save(address, 1)
    with pytest.raises(StoreError, match="goes on from the newest"):
        save_refused(store, address)
    store.fault = lambda method, path: None
    assert checkpoint_steps(address) == [1]


@unheard
def test_a_missing_bucket_and_a_forbidden_one_are_settings_to_correct(store, address):
    with pytest.raises(
        ConfigError, match=r"gs://elsewhere/fd.*check the bucket's name"
    ):
        CheckpointStore(place("gs://elsewhere/fd"))
    store.fault = lambda method, path: 403 if method == "POST" else None
    with pytest.raises(ConfigError, match=r"Forbidden.*Storage Object User"):
        CheckpointStore(address)
