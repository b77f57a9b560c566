import math

import pytest

from fdjax.eval import (
    distinct_proofs,
    distinct_sequences,
    normalize_proof,
    tactic_entropy,
    tactic_sequence,
)


@pytest.mark.parametrize(
    ("proof", "expected"),
    [
        ("  intro h\n  exact h", ["intro", "exact"]),
        ("by intro h\n   exact h", ["intro", "exact"]),
        ("  intro x; exact x", ["intro", "exact"]),
        (
            "  constructor\n  · intro a\n    exact a\n  · left\n    exact b",
            ["constructor", "intro", "exact", "left", "exact"],
        ),
        (
            "  cases h with\n  | inl a => exact fun x => x a\n  | inr b =>\n    omega",
            ["cases", "exact", "omega"],
        ),
        ("  have h : p := by\n    simp\n  exact h", ["have", "simp", "exact"]),
        ("  have h : p := by simp\n  exact h", ["have", "simp", "exact"]),
        # A deeper line continues its step; only the tactics inside it count.
        ("  nlinarith [sq_nonneg a,\n    sq_nonneg b]\n  simp", ["nlinarith", "simp"]),
        ("calc a = b := by simp\n  _ = c := by omega", ["calc", "simp", "omega"]),
        (
            "  simp -- then; omega\n  /- rfl /- rfl -/\n rfl -/ exact h",
            ["simp", "exact"],
        ),
        ("  case inl h => simp\n  exact ⟨a, by decide⟩", ["simp", "exact", "decide"]),
        ("  { simp }\n  { omega }", ["simp", "omega"]),
        ("", []),
        ("  -- nothing", []),
    ],
)
def test_tactic_sequence(proof, expected):
    assert list(tactic_sequence(proof)) == expected


def test_distinct_proofs_ignore_white_space_only():
    assert normalize_proof("  intro h\n\n\texact  h \n") == "intro h exact h"
    assert distinct_proofs(["  intro h\n  exact h", "intro h\nexact h\n"]) == 1
    assert distinct_proofs(["intro h\nexact h", "intro g\nexact g"]) == 2
    assert distinct_proofs([]) == 0


def test_distinct_sequences_ignore_arguments():
    assert distinct_sequences(["intro h\nexact h", "intro g\nexact g"]) == 1
    assert distinct_sequences(["intro h\nexact h", "intro h\nsimpa"]) == 2


def test_tactic_entropy_by_hand():
    # Shares 2/4, 1/4, 1/4: 1/2 log 2 + 2 (1/4) log 4 = 1.5 log 2.
    proofs = ["intro h\nexact h", "intro h\nomega"]
    assert tactic_entropy(proofs) == pytest.approx(1.5 * math.log(2))
    assert tactic_entropy(["rfl", "rfl"]) == 0.0
    assert tactic_entropy([]) == 0.0
