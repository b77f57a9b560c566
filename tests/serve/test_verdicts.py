"""Verdicts and facts over HTTP."""

import json

import pytest

from fdjax.lean import Limits, Verdict
from serving import Server

STATEMENT = "theorem t (p q : Prop) (h : p ∧ q) : q ∧ p"
FILE = f"theorem side : 1 = 1 := rfl\n{STATEMENT} := ⟨h.2, h.1⟩"


def item(**fields):
    return {"name": "t", "statement": STATEMENT} | fields


def test_verdicts_in_order(real):
    items = [
        (item(proof="  exact ⟨h.2, h.1⟩"), "verified", ""),
        (item(proof="  exact h"), "rejected", "Lean reports an error"),
        (item(proof="  sorry"), "rejected", "the proof rests on sorry"),
        (item(source=FILE), "verified", ""),
        (item(source="theorem t : True := trivial"), "rejected", "another statement"),
        (item(source="axiom t : False"), "rejected", "no theorem"),
        (item(proof="  trivial\n#eval 1"), "unsafe", "`#eval` is not allowed"),
        (item(statement="theorem t : foo", proof="rfl"), "rejected", "Unknown ident"),
        (item(proof="  native_decide"), "unsafe", "`native_decide` is not allowed"),
        (
            item(header="open Nat", statement="theorem t : succ 1 = 2", proof="rfl"),
            "verified",
            "",
        ),
    ]
    body = {"items": [each for each, _, _ in items]}
    status, answer = real.post("/v1/verify", body)
    assert status == 200
    verdicts = [Verdict.from_dict(values) for values in answer["verdicts"]]
    assert [v.status.value for v in verdicts] == [status for _, status, _ in items]
    for verdict, (_, _, reason) in zip(verdicts, items, strict=True):
        assert reason in verdict.reason
        assert bool(verdict.reason) == bool(reason)
    assert verdicts[1].goals == ()
    assert verdicts[1].errors[0].text.startswith("Type mismatch")


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        (f"{STATEMENT} := by sorry", "carries a proof"),
        (f"{STATEMENT} := ⟨h.2, h.1⟩ -- easy", "carries a proof"),
        (f"import Std\n{STATEMENT}", "belong to the header"),
        ("theorem u : True", "declares no theorem t"),
        (f"{STATEMENT} /- open", "header or statement: "),
    ],
)
def test_a_broken_statement_is_told_from_a_failed_proof(real, statement, reason):
    trusted = {"statement": statement}
    items = [item(proof=proof) | trusted for proof in ("", "  exact ⟨h.2, h.1⟩")]
    _, answer = real.post(
        "/v1/verify", {"items": [*items, item(proof="  -- and_comm")]}
    )
    *broken, failed = map(Verdict.from_dict, answer["verdicts"])
    assert [verdict.broken_statement for verdict in broken] == [True, True]
    assert all(reason in verdict.reason for verdict in broken)
    assert failed.status.value == "rejected"
    assert not failed.broken_statement


@pytest.mark.parametrize(
    "trusted",
    [
        {"header": "#eval 1"},
        {"header": 'macro "easy" : tactic => `(tactic| sorry)'},
        {"header": "open Lean"},
        {"statement": "theorem t : (by native_decide)"},
    ],
)
def test_clients_are_not_trusted_with_each_others_workers(real, trusted):
    """A header runs in a process that goes on to check other clients' proofs."""
    body = item(proof="trivial") | trusted
    _, answer = real.post("/v1/verify", {"items": [body, item(proof="exact h.symm")]})
    refused, sound = map(Verdict.from_dict, answer["verdicts"])
    assert refused.status.value == "rejected"
    assert refused.broken_statement
    assert refused.reason.startswith("header or statement: ")
    assert sound.verified
    _, answer = real.post("/v1/check", {"header": ""} | body)
    assert answer["report"]["statement_error"].startswith("header or statement: ")
    assert answer["report"]["target"] is None


def test_headers_run_where_all_clients_are_trusted():
    with Server.fake(server={"trust_headers": True}) as server:
        body = {"items": [item(header="#eval 1", proof="trivial")]}
        _, answer = server.post("/v1/verify", body)
    assert answer["verdicts"][0]["status"] == "verified"


def test_equal_items_are_taken_from_the_cache(real):
    body = {"items": [item(proof="  exact And.symm h")] * 3}
    before = real.metric("fdjax_cache_hits_total")
    _, first = real.post("/v1/verify", body)
    _, again = real.post("/v1/verify", body)
    assert [v["cached"] for v in first["verdicts"]] == [False] * 3
    assert [v["cached"] for v in again["verdicts"]] == [True] * 3
    assert real.metric("fdjax_cache_hits_total") == before + 3


@pytest.fixture(scope="module")
def fake():
    with Server.fake(limits={"memory_mb": 1024}, identity="fake/1") as server:
        yield server


def test_identity_and_limits(fake):
    status, answer = fake.post("/v1/check", {"source": "x", "limits": {"wall_s": 2.5}})
    assert (status, answer["identity"]) == (200, "fake/1")
    assert answer["report"]["messages"][0]["text"] == "x"
    status, text = fake.get("/v1/identity")
    limits = vars(Limits(memory_mb=1024))
    assert json.loads(text) == {"identity": "fake/1", "limits": limits}


def test_a_request_has_its_own_time_and_the_servers_memory(fake):
    limits = {"wall_s": 2.5, "memory_mb": 4096}
    body = {"name": "t", "header": "", "statement": "t", "proof": "no"}
    _, answer = fake.post("/v1/check", body | {"limits": limits})
    assert answer["report"]["messages"][0]["text"] == "2.5 1024"


def test_text_is_scanned_for_clients_that_do_not(fake):
    for body in (
        {"source": "#eval 1"},
        {"name": "t", "header": "", "statement": "t", "proof": "run_tac x"},
        {"name": "t", "header": "", "statement": "t", "proof": {"text": "#eval 1"}},
    ):
        status, answer = fake.post("/v1/check", body)
        assert status == 200
        assert "not allowed" in answer["report"]["refused"]


def test_a_crash_is_told_as_one(fake):
    _, answer = fake.post("/v1/check", {"source": "die"})
    assert (answer["report"], answer["died"]) == (None, "killed")
    items = [item(proof="die"), item(proof="trivial"), item(proof="broken sleep 1")]
    _, answer = fake.post("/v1/verify", {"items": items})
    statuses = [verdict["status"] for verdict in answer["verdicts"]]
    assert statuses == ["crashed", "verified", "rejected"]


def test_an_empty_batch(fake):
    assert fake.post("/v1/verify", {"items": []}) == (200, {"verdicts": []})
