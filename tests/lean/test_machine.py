import pytest

from fdjax.lean import machine


def test_the_free_memory_bounds_the_workers(monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 8)
    monkeypatch.setattr(machine, "available_memory_mb", lambda: 5000)
    # 0.8 of 5,000 MiB holds five workers of 700 MiB.
    assert machine.fitting_workers(700) == 5
    assert machine.fitting_workers(100) == 8
    assert machine.fitting_workers(9000) == 1
    assert machine.fitting_workers(0) == 8


@pytest.mark.parametrize(
    ("limit", "expected"), [("max", 2000), ("1073741824", 512), ("536870912", 0)]
)
def test_a_container_bounds_the_memory(tmp_path, limit, expected):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9000000 kB\nMemAvailable: 2048000 kB\n")
    (tmp_path / "memory.max").write_text(limit + "\n")
    (tmp_path / "memory.current").write_text("536870912\n")
    assert machine.available_memory_mb(meminfo, tmp_path) == expected


def test_this_machine_has_something():
    assert machine.cores() >= 1
    assert machine.available_memory_mb() > 100
