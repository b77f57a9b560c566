"""Dojo may refuse a proof and never verifies one by itself."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from fdjax.errors import InstallError
from fdjax.lean import FakeBackend, Verifier
from fdjax.lean.backends.dojo import LeanDojoBackend
from lean.corpus import TRUE
from programs import found_by

needs_lean_dojo = pytest.mark.skipif(
    importlib.util.find_spec("lean_dojo") is None,
    reason="lean-dojo is not installed (pip install fdjax[lean-dojo])",
)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    program = Path(__file__).with_name("on_dojo.py")
    return found_by(program, tmp_path_factory.mktemp("dojo"), timeout_s=120)


@needs_lean_dojo
def test_dojo_refuses_and_the_other_backend_decides(result):
    assert result["statuses"] == [
        "VERIFIED",
        "REJECTED",  # Dojo accepts it, the other backend does not
        "REJECTED",
        "REJECTED",
        "REJECTED",
        "VERIFIED",  # does not parse in parentheses: the other backend is asked
        "TIMEOUT",
        "CRASHED",
        "VERIFIED",  # longer than a terminal's line
        "VERIFIED",
        "VERIFIED",
    ]
    asked = ["cheat", "fine", "fine", "fine", "fine", "malformed"]
    assert sorted(result["asked"]) == asked
    assert result["texts"][1:4] == [
        "denied",
        "unknown identifier",
        "unsolved goals\np q : Prop\nh : p ∧ q\n⊢ q ∧ p",
    ]
    assert result["goals"][3] == 1
    assert result["identity"].startswith("lean-dojo-4.")
    assert result["identity"].endswith("/fake")


@needs_lean_dojo
def test_nothing_is_left_behind_and_closing_does_not_wait(result):
    assert result["close_s"] < 5
    assert result["left"] == ["Shapes.lean"]


@needs_lean_dojo
def test_our_reader_sees_the_theorems_that_leandojo_sees(result):
    skipped = result["skipped"]
    assert len(result["theirs"]) == len(result["ours"]) + len(skipped)
    theirs = [found for found in result["theirs"] if found[1] not in skipped]
    assert result["ours"] == theirs


def test_without_leandojo_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "lean_dojo", None)
    repo = SimpleNamespace(commit="0" * 40)
    backend = LeanDojoBackend(repo, (), FakeBackend)
    with (
        Verifier(lambda: backend, workers=1) as verifier,
        pytest.raises(InstallError, match=r"pip install fdjax\[lean-dojo\]"),
    ):
        verifier.start()


def test_what_dojo_does_not_know_goes_to_the_other_backend():
    repo = SimpleNamespace(commit="0" * 40)
    backend = LeanDojoBackend(repo, (), FakeBackend)
    with Verifier(lambda: backend, workers=1) as verifier:
        good, bad = verifier.verify([(TRUE, "  trivial"), (TRUE, "  rfl")])
    assert (good.verified, bad.verified) == (True, False)
