"""The self-test passes on a sound Lean and fails on a careless one."""

from dataclasses import replace

import pytest

from fdjax.cli import main
from fdjax.lean import WasmBackend
from fdjax.lean.embedded import wasm as wasm_module
from fdjax.lean.engine import selftest as selftest_module
from fdjax.lean.engine.selftest import selftest
from fdjax.lean.facts.policy import POLICY


@pytest.fixture(autouse=True)
def short_proofs(monkeypatch):
    """Half a second is as long for a proof that would take minutes."""
    monkeypatch.setattr(selftest_module, "WALL_S", 0.5)


def failures(backend, header=""):
    return [out.what for out in selftest(backend, header) if not out.passed]


def test_the_embedded_lean_passes(lean_folder):
    assert failures(WasmBackend(lean_folder)) == []


def test_a_checker_that_lets_code_run_fails(lean_folder, monkeypatch):
    careless = replace(POLICY, kinds=(), words=(), proof_kinds=())
    monkeypatch.setattr(wasm_module, "POLICY", careless)
    assert "a program in a tactic" in failures(WasmBackend(lean_folder))


def test_a_header_that_does_not_elaborate_fails_every_proof(lean_folder):
    failed = failures(WasmBackend(lean_folder), "import Mathlib")
    assert "a tactic proof" in failed
    assert "start" not in failed


def test_the_command_passes_the_checker_of_lake_projects(lake_project, capsys):
    arguments = ["--project", str(lake_project), "--lake", str(lake_project / "lake")]
    with pytest.raises(SystemExit) as ended:
        main(["lean", "selftest", *arguments, "--header", "import Std"])
    printed = capsys.readouterr().out
    assert ended.value.code == 0, printed
    assert "Lean (version 4.28.0)" in printed
    assert "all as it should be" in printed


def test_the_command_fails_with_the_self_test(lean_folder, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["lean", "selftest", "--header", "import Nowhere"])
    assert ended.value.code == 1
    assert "Nowhere" in capsys.readouterr().out
