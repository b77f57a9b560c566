import hashlib
import re
import subprocess
import sys
from collections import Counter

import pytest

from fdjax.data import theorems
from fdjax.data.theorems import canonical_key, generate_problems, word_count
from fdjax.errors import ConfigError

COUNT = 240

PROPOSITIONAL = {
    *("intro", "exact", "apply", "constructor", "left", "right"),
    *("obtain", "rcases", "have", "exfalso"),
}
ARITHMETIC = PROPOSITIONAL | {"rw", "exists", "rfl"}
LISTS = PROPOSITIONAL | {"rw", "rfl", "induction", "|"}
TACTICS = {"propositional": PROPOSITIONAL, "arithmetic": ARITHMETIC, "lists": LISTS}


@pytest.fixture(scope="module")
def problems():
    return generate_problems(COUNT, seed=11)


def tactics(proof):
    """Tactic lines; `| nil =>` and `| cons … =>` only open a case."""
    lines = proof.split("\n")
    assert all(re.match(r"  \S", line) for line in lines)
    return [line.split()[0] for line in lines if not line.startswith("  |")]


def test_families_have_their_shares(problems):
    counts = Counter(problem.family for problem in problems)
    # Default shares: a half, a quarter, a quarter.
    assert counts == {"propositional": 120, "arithmetic": 60, "lists": 60}


def test_shares_are_scaled_and_rounded_to_the_count():
    mixed = generate_problems(7, seed=0, families={"lists": 2, "propositional": 4})
    # 7 * 2/6 = 2.33 and the rest.
    assert Counter(p.family for p in mixed) == {"lists": 2, "propositional": 5}


def test_difficulty_is_the_number_of_tactics_of_the_first_reference(problems):
    for problem in problems:
        sizes = [len(tactics(reference)) for reference in problem.references]
        assert problem.difficulty == sizes[0] == min(sizes)
        assert max(sizes) <= problem.difficulty + 2


def test_difficulties_are_graded(problems):
    for family in TACTICS:
        counts = Counter(p.difficulty for p in problems if p.family == family)
        assert set(counts) <= set(range(2, 10))
        assert {2, 3, 4, 5} <= set(counts)
        # Flat below, not dominated by the shortest proofs.
        assert max(counts.values()) <= 0.3 * sum(counts.values())


def test_difficulty_range_is_respected():
    hard = generate_problems(
        20, seed=1, families={"propositional": 1}, shortest=5, longest=6
    )
    assert {problem.difficulty for problem in hard} == {5, 6}


def test_references_are_several_and_distinct(problems):
    for problem in problems:
        assert 2 <= len(problem.references) <= 4
        assert len(set(problem.references)) == len(problem.references)


def test_only_allowed_tactics_are_used(problems):
    for family, allowed in TACTICS.items():
        used = {
            tactic
            for problem in problems
            if problem.family == family
            for reference in problem.references
            for tactic in tactics(reference)
        }
        assert used <= allowed
        assert {"exact", "intro", "constructor", "left"} <= used


def test_statements_and_proofs_are_short(problems):
    assert word_count("theorem t (p : Prop) : p") == 9  # theorem t ( p : Prop ) : p
    assert word_count("  rw [List.mem_append]\n  rfl") == 6  # rw [ name ] newline rfl
    for problem in problems:
        assert word_count(problem.statement) <= 44
        assert all(word_count(proof) <= 40 for proof in problem.references)


def test_statements_have_one_form(problems):
    names = {
        "propositional": r"\(p q r s : Prop\)",
        "arithmetic": r"\([a-d]( [a-d])* : (Nat|Int)\)",
        "lists": r"\(α : Type\)( \([fglmkab ]+ : [α→List ]+\))+",
    }
    for problem in problems:
        assert problem.name == "t"
        assert problem.header == ""
        assert ":=" not in problem.statement
        match = re.match(rf"theorem t {names[problem.family]}", problem.statement)
        assert match, problem.statement
        hypotheses = re.findall(r"\(h(\d+) : ", problem.statement)
        assert hypotheses == [str(i + 1) for i in range(len(hypotheses))]


def test_new_hypotheses_continue_the_numbering(problems):
    for problem in problems:
        known = set(re.findall(r"\((h\d+) : ", problem.statement))
        for reference in problem.references:
            for line in reference.split("\n"):
                new = set(re.findall(r"h\d+", line)) - known
                assert all(int(name[1:]) <= len(known) + 2 for name in new), reference
                known |= new
            known = set(re.findall(r"\((h\d+) : ", problem.statement))


def test_statements_are_distinct_theorems(problems):
    assert len({canonical_key(problem) for problem in problems}) == COUNT


def test_same_seed_same_problems_other_seed_others(problems):
    assert generate_problems(COUNT, seed=11) == problems
    other = generate_problems(COUNT, seed=12)
    shared = {canonical_key(p) for p in problems} & {canonical_key(p) for p in other}
    assert len(shared) < COUNT / 4


def test_result_does_not_depend_on_the_hash_seed():
    code = (
        "import hashlib\n"
        "from fdjax.data.theorems import generate_problems\n"
        "text = repr(generate_problems(40, seed=5))\n"
        "print(hashlib.sha256(text.encode()).hexdigest())\n"
    )
    expected = hashlib.sha256(repr(generate_problems(40, seed=5)).encode()).hexdigest()
    for hash_seed in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert done.stdout.strip() == expected


def test_all_tactics_are_listed():
    # `|` begins a case of `induction`.
    assert set(theorems.TACTICS) == set().union(*TACTICS.values()) - {"|"}


def test_there_is_something_to_choose(problems):
    """Several hypotheses, and proofs of one theorem that begin differently."""
    several = sum(len(re.findall(r"\(h\d+ : ", p.statement)) >= 2 for p in problems)
    assert several > COUNT / 2
    beginnings = [{r.split("\n")[0] for r in p.references} for p in problems]
    assert sum(len(lines) > 1 for lines in beginnings) > COUNT / 2


@pytest.mark.parametrize(
    "arguments",
    [
        {"count": -1},
        {"shortest": 1},
        {"shortest": 6, "longest": 5},
        {"longest": 10},
        {"references": 1},
        {"families": {}},
        {"families": {"geometry": 1.0}},
        {"families": {"lists": 0.0}},
        {"families": {"lists": 2.0, "arithmetic": -1.0}},
    ],
)
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(ConfigError, match=r"[Ee]xpected .* got"):
        generate_problems(**({"count": 1, "seed": 0} | arguments))
