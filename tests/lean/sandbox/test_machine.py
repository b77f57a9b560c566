import pytest

from fdjax.lean.sandbox import machine


def test_the_free_memory_bounds_the_workers(monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 8)
    monkeypatch.setattr(machine, "available_memory_mb", lambda: 5000)
    # 0.8 of 5,000 MiB holds five workers of 700 MiB.
    assert machine.fitting_workers(700) == 5
    assert machine.fitting_workers(100) == 8
    assert machine.fitting_workers(9000) == 1
    assert machine.fitting_workers(0) == 8
    # What somebody chose counts instead: 4,000 MiB hold two of 2,000.
    assert machine.fitting_workers(700, 2000) == 2
    assert machine.fitting_workers(8192, 512) == 7
    assert machine.fitting_workers(0, 2000) == 8


@pytest.mark.parametrize(
    ("limit", "expected"), [("max", 2000), ("1073741824", 512), ("536870912", 0)]
)
def test_a_container_bounds_the_memory(tmp_path, limit, expected):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9000000 kB\nMemAvailable: 2048000 kB\n")
    (tmp_path / "memory.max").write_text(limit + "\n")
    (tmp_path / "memory.current").write_text("536870912\n")
    assert machine.available_memory_mb(meminfo, tmp_path) == expected


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000", 8),
        ("250000 100000", 2),
        ("50000 100000", 1),
        ("1600000 100000", 8),
    ],
)
def test_a_container_bounds_the_cores(tmp_path, monkeypatch, quota, expected):
    affinity = set(range(8))
    monkeypatch.setattr(
        machine.os, "sched_getaffinity", lambda process: affinity, raising=False
    )
    assert machine.cores(tmp_path) == 8
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert machine.cores(tmp_path) == expected


def test_this_machine_has_something():
    assert machine.cores() >= 1
    assert machine.available_memory_mb() > 100
