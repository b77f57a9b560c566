import random

from fdjax.data.theorems import canonical_key, exchange_variables, generate_problems
from fdjax.lean import Verifier, install
from fdjax.records import Problem


def test_names_change_places_after_their_binder_only():
    problem = Problem(
        name="t", statement="theorem t (p q : Prop) (h1 : p ∧ p.q) : q", references=()
    )
    seen = {
        exchange_variables(problem, ["  exact h1 p"], random.Random(seed))[0]
        for seed in range(20)
    }
    assert seen == {
        "theorem t (p q : Prop) (h1 : p ∧ p.q) : q",
        "theorem t (p q : Prop) (h1 : q ∧ p.q) : p",
    }


def test_the_theorem_stays_the_same_and_its_proof_proves_it():
    rng = random.Random(1)
    renamed = []
    for problem in generate_problems(60, seed=5):
        statement, proofs = exchange_variables(problem, problem.references, rng)
        copy = Problem(name=problem.name, statement=statement)
        assert canonical_key(copy) == canonical_key(problem)
        renamed += [(copy, proof) for proof in proofs]
    install()
    with Verifier(workers=2) as verifier:
        verdicts = verifier.verify(renamed)
    assert all(verdict.verified for verdict in verdicts)
