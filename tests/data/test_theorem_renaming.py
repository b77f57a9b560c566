import random

from fdjax.data.theorems import canonical_key, generate_problems, reword
from fdjax.lean import Verifier, install
from fdjax.records import Problem


def test_names_change_places_and_hypotheses_their_order():
    problem = Problem(
        name="t", statement="theorem t (p q : Prop) (h1 : (p)) (h2 : p ∧ p.q) : q"
    )
    seen = {
        (statement, *texts)
        for statement, texts in (
            reword(problem, ["  exact h1 h2 h3"], random.Random(seed))
            for seed in range(40)
        )
    }
    head = "theorem t (p q : Prop)"
    assert seen == {
        (f"{head} (h1 : (p)) (h2 : p ∧ p.q) : q", "  exact h1 h2 h3"),
        (f"{head} (h1 : (q)) (h2 : q ∧ q.q) : p", "  exact h1 h2 h3"),
        (f"{head} (h1 : p ∧ p.q) (h2 : (p)) : q", "  exact h2 h1 h3"),
        (f"{head} (h1 : q ∧ q.q) (h2 : (q)) : p", "  exact h2 h1 h3"),
    }


def test_the_theorem_stays_the_same_and_its_proof_proves_it():
    rng = random.Random(1)
    renamed = []
    for problem in generate_problems(60, seed=5):
        statement, proofs = reword(problem, problem.references, rng)
        copy = Problem(name=problem.name, statement=statement)
        assert canonical_key(copy) == canonical_key(problem)
        renamed += [(copy, proof) for proof in proofs]
    install()
    with Verifier(workers=2) as verifier:
        verdicts = verifier.verify(renamed)
    assert all(verdict.verified for verdict in verdicts)
