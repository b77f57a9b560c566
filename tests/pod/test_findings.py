"""What the facts of several hosts say together."""

from dataclasses import replace

import pytest

from fdjax.pod.facts import HostFacts
from fdjax.pod.findings import devices_alike, findings_of

WELL = HostFacts(
    host="a",
    fdjax="0.1.0",
    python="3.12.1",
    jax="0.12.0.1",
    libtpu="0.0.50",
    memory_gb=300.0,
    disk_gb=80.0,
    disk="/runs",
    lean="verified and rejected",
    lean_works=True,
    endpoint="",
)
HOSTS = [replace(WELL, host=name) for name in "abcd"]


def found(facts=HOSTS, *, clocks_s=(0.0,) * 4, folder=None, endpoint=""):
    findings = findings_of(facts, clocks_s=clocks_s, folder=folder, endpoint=endpoint)
    return {finding.part: finding for finding in findings}


def changed(hosts, **facts):
    return [
        replace(one, **(facts if i in hosts else {})) for i, one in enumerate(HOSTS)
    ]


def test_hosts_that_are_alike_are_well():
    findings = found(folder=[""] * 4, endpoint="https://writer.example")
    assert {finding.state for finding in findings.values()} == {"ok"}
    assert findings["jax"].found == "0.12.0.1 on each host"
    assert findings["endpoint"].found == "https://writer.example answers"


@pytest.mark.parametrize("part", ["fdjax", "python", "jax", "libtpu"])
def test_other_versions_are_a_fault(part):
    finding = found(changed({1, 2}, **{part: "9"}))[part]
    assert finding.state == "fail"
    assert finding.found.endswith("on hosts 0, 3; 9 on hosts 1–2")
    assert finding.remedy


def test_other_devices_are_a_fault():
    assert devices_alike(["4 × TPU v5e"] * 3).state == "ok"
    finding = devices_alike(["4 × TPU v5e", "3 × TPU v5e", "4 × TPU v5e"])
    assert finding.state == "fail"
    assert finding.found == "4 × TPU v5e on hosts 0, 2; 3 × TPU v5e on host 1"


def test_a_lean_that_does_not_work_is_named_with_its_host_and_reason():
    finding = found(changed({3}, lean_works=False, lean="no node"))["Lean"]
    assert (finding.state, finding.found) == ("fail", "host 3: no node")


@pytest.mark.parametrize(
    ("ahead_s", "state", "words"),
    [
        (0.4, "ok", "within 0.400 s of process 0"),
        (-3.0, "note", "host 2 is -3.0 s ahead of host 0"),
        (61.0, "fail", "host 2 is +61.0 s ahead of host 0"),
    ],
)
def test_clocks(ahead_s, state, words):
    finding = found(clocks_s=[0.0, 0.1, ahead_s, -0.2])["clocks"]
    assert (finding.state, finding.found) == (state, words)


def test_little_room_is_worth_knowing():
    findings = found(changed({0}, memory_gb=100.0, disk_gb=9.0))
    assert findings["memory"].state == findings["disk"].state == "note"
    assert findings["memory"].found == "100 to 300 GB free, the least on host 0"


def test_a_full_disk_is_a_fault_that_names_folder_and_limit():
    assert found(changed({3}, disk_gb=2.0))["disk"].state == "note"
    finding = found(changed({1, 3}, disk_gb=0.0, disk="/root/.cache/fdjax"))["disk"]
    assert finding.state == "fail"
    assert finding.found == (
        "hosts 1, 3: 0 GB free in /root/.cache/fdjax, where a run needs 2"
    )
    assert "XDG_CACHE_HOME" in finding.remedy


def test_a_folder_that_is_not_that_of_all_is_a_fault():
    assert "runs" not in found()
    finding = found(folder=["", "", "read-only", "read-only"])["runs"]
    assert (finding.state, finding.found) == ("fail", "hosts 2–3: read-only")


def test_a_writer_out_of_reach_is_a_fault():
    assert "endpoint" not in found()
    finding = found(changed({1}, endpoint="timed out"), endpoint="http://w")["endpoint"]
    assert (finding.state, finding.found) == ("fail", "host 1: timed out")
