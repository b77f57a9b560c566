"""Evaluation: pass@k with intervals, diversity of proofs, and the paper's claims."""

from fdjax.eval.arms import ArmResult, common_theorems
from fdjax.eval.claims import ArmRoles, Claim, ClaimVerdict, evaluate_claims
from fdjax.eval.diversity import (
    distinct_proofs,
    distinct_sequences,
    normalize_proof,
    tactic_entropy,
    tactic_sequence,
)
from fdjax.eval.passk import (
    Estimate,
    bootstrap_interval,
    paired_difference,
    pass_at_k,
)
from fdjax.eval.results import (
    Evaluation,
    TeacherResult,
    load_evaluation,
    mean_estimate,
    save_evaluation,
)
from fdjax.eval.runner import distinct_names, evaluate_arm, evaluate_teacher
from fdjax.eval.seeds import crossed_interval, pooled_claims, seeds_claim

__all__ = [
    "ArmResult",
    "ArmRoles",
    "Claim",
    "ClaimVerdict",
    "Estimate",
    "Evaluation",
    "TeacherResult",
    "bootstrap_interval",
    "common_theorems",
    "crossed_interval",
    "distinct_names",
    "distinct_proofs",
    "distinct_sequences",
    "evaluate_arm",
    "evaluate_claims",
    "evaluate_teacher",
    "load_evaluation",
    "mean_estimate",
    "normalize_proof",
    "paired_difference",
    "pass_at_k",
    "pooled_claims",
    "save_evaluation",
    "seeds_claim",
    "tactic_entropy",
    "tactic_sequence",
]
