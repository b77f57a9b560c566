import jax
import jaxtyping
import pytest
from jax.sharding import AxisType

from fdjax.errors import ConfigError
from fdjax.sharding import initialize_distributed, make_mesh


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({}, (8, 1, 1)),
        ({"data": 2, "fsdp": -1}, (2, 4, 1)),
        ({"data": 1, "fsdp": 2, "tensor": -1}, (1, 2, 4)),
        ({"data": 2, "fsdp": 2, "tensor": 2}, (2, 2, 2)),
        ({"tensor": 8}, (1, 1, 8)),
    ],
)
def test_axes_cover_all_devices(sizes, expected):
    mesh = make_mesh(**sizes)
    assert dict(mesh.shape) == dict(
        zip(("data", "fsdp", "tensor"), expected, strict=True)
    )
    assert set(mesh.devices.flat) == set(jax.devices())
    assert set(mesh.axis_types) == {AxisType.Auto}


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"data": 3}, "the number of devices, 8, got data=3"),
        ({"fsdp": 3}, "the number of devices, 8, got data=-1, fsdp=3"),
        ({"data": -1, "fsdp": -1}, "at most one mesh axis of -1"),
        ({"tensor": 0}, "mesh axis tensor to be"),
        ({"tensor": -2}, "mesh axis tensor to be"),
        ({"fsdp": 2.0}, "mesh axis fsdp to be"),
        ({"data": True}, "mesh axis data to be"),
        ({"data": None}, "mesh axis data to be"),
    ],
)
def test_axes_that_do_not_cover_the_devices_are_refused(sizes, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ConfigError, match=message):
        make_mesh(**sizes)


def test_a_partial_address_is_refused_before_any_connection():
    with pytest.raises(ConfigError, match="together or none"):
        initialize_distributed(coordinator_address="127.0.0.1:1234")


def test_start_up_passes_its_arguments_to_jax(monkeypatch):
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **k: calls.append(k))
    initialize_distributed(
        coordinator_address="127.0.0.1:1234", num_processes=2, process_id=1
    )
    initialize_distributed()
    assert calls[0] == {
        "coordinator_address": "127.0.0.1:1234",
        "num_processes": 2,
        "process_id": 1,
        "heartbeat_timeout_seconds": 30,
    }
    assert set(calls[1].values()) == {None, 30}
