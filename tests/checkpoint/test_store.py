import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from checkpoint.limited import run_limited
from fdjax.checkpoint import CheckpointStore, Retention, checkpoint_steps
from fdjax.errors import CheckpointError, DamagedCheckpointError


def state(offset=0.0):
    return {
        "w": jnp.arange(16.0).reshape(4, 4) / 3 + offset,
        "half": jnp.full((2,), 1 / 3, jnp.bfloat16),
        "noise": jax.random.normal(jax.random.key(1), (100_000,)),
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


def test_a_step_does_not_wait_for_the_disk(tmp_path):
    """64 MB that do not compress take a thread longer than the next step."""
    step = jax.jit(lambda w: w + 1, donate_argnums=0)
    big = step(jax.random.normal(jax.random.key(0), (16, 1_000_000)))
    big.block_until_ready()
    with CheckpointStore(tmp_path) as store:
        store.save(1, {"w": big}, {})
        step(big).block_until_ready()
        assert checkpoint_steps(tmp_path) == []
        store.wait()
        assert checkpoint_steps(tmp_path) == [1]


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
    with CheckpointStore(tmp_path) as store:
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
    ("like", "message"),
    [
        ({"w": jnp.zeros(3)}, r"w: expected float32\[3\], got float32\[2\]"),
        ({"w": jnp.zeros(2, jnp.int32)}, r"w: expected int32\[2\], got float32\[2\]"),
        ({"v": jnp.zeros(2)}, r"v: expected float32\[2\], got none; w: expected none,"),
        ({"w": jnp.zeros(2), "v": jnp.zeros(2)}, r"v: expected float32\[2\], got none"),
    ],
)
def test_another_state_does_not_fit(tmp_path, like, message):
    with CheckpointStore(tmp_path) as store:
        store.save(1, {"w": jnp.zeros(2)}, {})
        with pytest.raises(CheckpointError, match=f"does not fit this run: {message}"):
            store.restore(like)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Checkpoints of steps 1 and 2."""
    folder = tmp_path_factory.mktemp("two")
    with CheckpointStore(folder) as store:
        for step in (1, 2):
            store.save(step, state(step), {"step": step})
    return folder


def files(step, part="state"):
    """Files of a checkpoint that hold bytes, without those that say it is done."""
    return [
        path
        for path in sorted((step / part).rglob("*"))
        if path.is_file() and path.name != "commit_success.txt"
    ]


def each(change, part="state"):
    def damage(step):
        for path in files(step, part):
            change(path)

    return damage


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def arrays(change):
    return each(change, "state/d")


@pytest.mark.parametrize(
    "damage",
    [
        each(halve),
        arrays(halve),
        arrays(lambda path: path.unlink()),
        arrays(lambda path: path.write_bytes(bytes(path.stat().st_size))),
        each(lambda path: path.unlink()),
        each(halve, "host"),
        each(lambda path: path.write_text("5"), "host"),
        each(lambda path: path.write_text(path.read_text().replace("2", "3")), "host"),
        each(lambda path: path.unlink(), "host"),
        lambda step: shutil.rmtree(step / "state"),
        lambda step: shutil.rmtree(step / "host"),
    ],
)
def test_damage_is_called_so_and_set_aside(two, tmp_path, capfd, damage):
    folder = shutil.copytree(two, tmp_path / "checkpoints")
    damage(folder / "2")
    with CheckpointStore(folder) as store:
        with pytest.raises(DamagedCheckpointError, match=r"/2 is damaged"):
            store.restore(state())
        store.set_aside_after(1)
        assert store.steps == [1]
        restored, host = store.restore(state())
        store.save(2, state(5.0), {"step": 2})
        again, _ = store.restore(state())
    assert host == {"step": 1}
    np.testing.assert_array_equal(restored["w"], state(1)["w"])
    np.testing.assert_array_equal(again["w"], state(5.0)["w"])
    assert (folder / "2.set-aside").is_dir()
    assert "Traceback" not in capfd.readouterr().err


def test_a_flipped_bit_is_never_restored(two, tmp_path):
    """zstd stores random numbers as they are, and notices nothing."""
    folder = shutil.copytree(two, tmp_path / "checkpoints")
    path = max(files(folder / "2"), key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with (
        CheckpointStore(folder) as store,
        pytest.raises(DamagedCheckpointError, match="got other bits in noise"),
    ):
        store.restore(state())


def test_a_checkpoint_of_another_version_is_not_called_damaged(two, tmp_path):
    folder = shutil.copytree(two, tmp_path / "checkpoints")
    (folder / "2" / "host" / "metadata").write_text('{"source": {}}')
    with (
        CheckpointStore(folder) as store,
        pytest.raises(CheckpointError, match="another version of fdjax") as caught,
    ):
        store.restore(state())
    assert not isinstance(caught.value, DamagedCheckpointError)


def test_a_folder_that_holds_no_checkpoint_is_never_the_newest(two, tmp_path, caplog):
    folder = shutil.copytree(two, tmp_path / "checkpoints")
    shutil.rmtree(folder / "2")
    (folder / "2").mkdir()
    (folder / "notes").mkdir()
    with CheckpointStore(folder) as store:
        assert store.steps == [1]
        assert store.restore(state())[1] == {"step": 1}
    assert "2.set-aside" in caplog.text
    assert sorted(path.name for path in folder.iterdir()) == [
        "1",
        "2.set-aside",
        "notes",
    ]


def test_what_a_killed_process_left_to_delete_goes(tmp_path):
    with CheckpointStore(tmp_path, Retention(newest=None)) as store:
        for step in (1, 2, 3, 4):
            store.save(step, state(), {})
    # It had begun with the first.
    shutil.rmtree(tmp_path / "1" / "host")
    with CheckpointStore(tmp_path, Retention(newest=1)) as store:
        store.hold(2)
        store.delete_others()
        assert store.steps == [2, 4]
        assert checkpoint_steps(tmp_path) == [2, 4]
        store.release(2)
        store.delete_others()
    assert checkpoint_steps(tmp_path) == [4]


def test_an_unfinished_save_is_not_a_checkpoint(tmp_path):
    with CheckpointStore(tmp_path) as store:
        store.save(1, {"w": jnp.zeros(2)}, {})
    torn = tmp_path / "2.orbax-checkpoint-tmp"
    torn.mkdir()
    (torn / "state").mkdir()
    with CheckpointStore(tmp_path) as store:
        assert store.latest_step == 1


def test_a_full_disk_is_one_error_and_keeps_what_was_complete(tmp_path):
    # Even where the new one would have been the only one that stays.
    with CheckpointStore(tmp_path, Retention(newest=1)) as store:
        store.save(1, state(), {})
    # Files may not outgrow 64 KiB: the write is refused as on a full disk.
    code = f"""
import resource, signal
from pathlib import Path
import jax
from fdjax.checkpoint import CheckpointStore, Retention
from fdjax.errors import CheckpointError
large = {{"w": jax.random.normal(jax.random.key(0), (512, 512))}}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    with CheckpointStore(Path({str(tmp_path)!r}), Retention(newest=1)) as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, resource.RLIM_INFINITY))
        store.save(2, large, {{}})
except CheckpointError as error:
    print(error)
"""
    ran = run_limited(code)
    assert ran.returncode == 0, ran.stderr
    assert "Make room and resume" in ran.stdout
    assert "ERROR:absl" not in ran.stderr
    with CheckpointStore(tmp_path) as again:
        assert again.steps == [1]
        restored, _ = again.restore(state(1.0))
    np.testing.assert_array_equal(restored["w"], state()["w"])


def test_a_checkpoint_larger_than_the_room_left_is_not_begun(tmp_path, monkeypatch):
    small, large = {"w": jnp.zeros(2)}, {"w": jnp.zeros(3)}
    with CheckpointStore(tmp_path) as store:
        usage = shutil.disk_usage(tmp_path)._replace(free=8)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        store.save(1, small, {})
        with pytest.raises(CheckpointError, match="no room for 12 bytes, 8 are free"):
            store.save(2, large, {})
    assert checkpoint_steps(tmp_path) == [1]
