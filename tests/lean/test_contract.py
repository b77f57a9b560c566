"""What every backend with a real Lean must do: prove, fail, resist, say where."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from fdjax.errors import DataError
from fdjax.lean import (
    CheckRequest,
    Limits,
    Problem,
    Status,
    Verifier,
    WholeFile,
    WorkerDiedError,
)
from fdjax.lean.facts.judge import judge
from lean.corpus import (
    BEHIND_THE_SCAN,
    CARRYING,
    COMMENTED,
    EMPTY,
    FAILURES,
    FALSE,
    FALSE_FILES,
    FALSE_TYPE,
    FILES,
    FILES_BEHIND_THE_SCAN,
    GIVING_UP,
    HIDDEN_CODE,
    MATCH,
    NAMES,
    OTHER_NAMES,
    OWN_MATCH,
    THEOREMS,
    TRUE,
    TRUSTED_SYNTAX,
    UNSAFE,
    VALUES,
    problem,
    with_value,
)

BACKENDS = [
    "wasm",
    "native",
    "repl",
    # They run what `repl` and `wasm` run; tests of their own cover the rest of the way.
    pytest.param("kimina", marks=pytest.mark.slow),
    pytest.param("remote", marks=pytest.mark.slow),
]

LIMITS = Limits(memory_mb=4096)
"""A stand-in reads the library into its memory where a toolchain would map it."""


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request):
    """One worker of each kind, without the verifier's scan in front of it."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def verifier(backend):
    with Verifier(lambda: backend, workers=1, limits=LIMITS) as verifier:
        yield verifier


def statuses(verifier, items):
    verdicts = verifier.verify(items)
    return [
        (item[0].name, item[1], verdict.status)
        for item, verdict in zip(items, verdicts, strict=True)
    ]


def test_theorems_are_verified(verifier):
    found = statuses(verifier, THEOREMS)
    assert [row for row in found if row[2] is not Status.VERIFIED] == []


def test_failures_are_rejected_with_an_error(verifier):
    found = statuses(verifier, FAILURES)
    assert [row for row in found if row[2] is not Status.REJECTED] == []
    assert all(verdict.errors for verdict in verifier.verify(FAILURES))


@pytest.mark.parametrize("statement", [TRUE.statement, *COMMENTED])
def test_an_empty_proof_proves_nothing(verifier, statement):
    target = replace(TRUE, statement=statement)
    for verdict in verifier.verify([(target, proof) for proof in EMPTY]):
        assert verdict.status is Status.REJECTED
        assert verdict.reason == "there is no proof behind `:= by`"


def test_an_empty_proof_proves_nothing_where_the_parser_takes_it(verifier):
    target = replace(TRUE, header='macro "by" : term => `(rfl)')
    found = verifier.verify([(target, proof) for proof in ("", "-- rfl", "  rfl")])
    assert [verdict.verified for verdict in found] == [False, False, True]
    assert found[1].reason == "there is no proof behind `:= by`"


def test_a_statement_may_end_in_a_comment(verifier):
    targets = [replace(TRUE, statement=statement) for statement in COMMENTED]
    assert all(report.ok for report in verifier.check_statements(targets))
    for target in targets:
        good, bad = verifier.verify([(target, "  rfl"), (target, "\n  exact foo")])
        assert good.verified
        [error] = bad.errors
        assert (error.in_proof, error.line, error.column) == (True, 2, 8)


def test_a_statement_that_carries_a_proof_is_a_fault_of_the_data(verifier):
    targets = [replace(TRUE, statement=statement) for statement in CARRYING]
    reports = verifier.check_statements(targets)
    assert [t.statement for t, r in zip(targets, reports, strict=True) if r.ok] == []
    items = [(target, proof) for target in targets for proof in ("", "  rfl")]
    for verdict in verifier.verify(items, broken_statements="reject"):
        assert verdict.status is Status.REJECTED
        assert verdict.missing
        assert "must end" in verdict.reason or "one command" in verdict.reason
    with pytest.raises(DataError, match="carries a proof"):
        verifier.verify([(targets[0], "  rfl")])


def test_what_is_wrong_with_a_statement_points_into_it(verifier):
    # Two lines, the second of four columns; one with a wrong word in columns 12 to 15.
    texts = ["theorem t :\n  ∀ x -- over", "theorem t : Foo", "theorem t : True :=\n"]
    broken = [problem(text) for text in texts]
    [open_, word, value] = verifier.check_statements(broken)
    [error] = [d for d in open_.diagnostics if d.severity == "error"]
    assert (error.in_proof, error.line, error.end_line) == (False, 2, 2)
    [error] = word.diagnostics
    assert (error.line, error.column, error.end_column) == (1, 12, 15)
    assert not error.in_proof
    assert value.reason.startswith("the statement must end where `:= by` and a proof")


@pytest.mark.parametrize(
    "tail",
    ["/-- informal -/", "open Nat in", "@[simp]", "variable (x : Nat) in\n-- so"],
)
def test_a_header_that_ends_inside_a_command_has_a_remedy(verifier, tail):
    header = f"open Nat\n\n{tail}\n"
    [report] = verifier.check_statements([replace(TRUE, header=header)])
    assert not report.ok
    assert "a doc comment, `… in` or attributes before the theorem" in report.reason
    assert {diagnostic.in_proof for diagnostic in report.diagnostics} == {False}
    assert report.diagnostics[0].line == header.count("\n") + 1


def test_syntax_that_is_trusted_is_not_judged(verifier):
    for statement, header in TRUSTED_SYNTAX:
        target = Problem(name="t", statement=statement, header=header)
        assert verifier.verify([(target, "  rfl")])[0].verified, statement
        proofs = [(target, proof) for proof in UNSAFE[:6]]
        unsafe = {verdict.status for verdict in verifier.verify(proofs)}
        assert unsafe == {Status.UNSAFE}


def test_behind_trusted_syntax_the_checker_still_stops_attacks(backend):
    for statement, header in TRUSTED_SYNTAX:
        target = Problem(name="t", statement=statement, header=header)
        for proof, field in BEHIND_THE_SCAN[:4]:
            report = backend.check(request(target, proof))
            assert getattr(report, field), (statement, proof)


def test_a_name_is_spelt_as_in_the_statement(verifier):
    for statement, header, name in NAMES:
        target = Problem(name=name, statement=statement, header=header)
        file = WholeFile(f"{statement} := trivial")
        found = verifier.verify([(target, "  trivial"), (target, file)])
        assert [verdict.verified for verdict in found] == [True, True], target
    targets = [
        Problem(name=name, statement=statement, header=header)
        for statement, header, name in OTHER_NAMES
    ]
    for report in verifier.check_statements(targets):
        assert not report.ok
        assert "declares no theorem" in report.reason
        assert "name as it does, and leave `private` out" in report.reason


def test_giving_up_shows_in_the_axioms(verifier):
    for verdict in verifier.verify([(FALSE, proof) for proof in GIVING_UP]):
        assert verdict.status is Status.REJECTED
        assert "sorryAx" in verdict.axioms


def test_what_a_header_assumes_shows_in_the_axioms(verifier):
    sorried = replace(FALSE, header=f"theorem helper : {FALSE_TYPE} := by sorry")
    assumed = replace(FALSE, header=f"axiom helper : {FALSE_TYPE}")
    items = [(target, "  exact helper") for target in (sorried, assumed)]
    by_sorry, by_axiom = verifier.verify(items)
    assert by_sorry.reason == "the proof rests on sorry"
    assert by_axiom.reason == "the proof rests on the axioms helper"


def test_attacks_are_unsafe(verifier):
    verdicts = verifier.verify([(FALSE, proof) for proof in UNSAFE])
    assert {verdict.status for verdict in verdicts} == {Status.UNSAFE}


def test_without_the_scan_the_checker_stops_attacks(backend):
    for proof, field in BEHIND_THE_SCAN:
        asked = request(FALSE, proof)
        report = backend.check(asked)
        # The server of `remote` has a scan of its own.
        assert getattr(report, field) or report.refused, proof
        assert judge(report, asked).status is Status.UNSAFE


def test_without_the_scan_no_attack_is_verified(backend):
    for proof in UNSAFE[:-3] + GIVING_UP:
        asked = request(FALSE, proof)
        assert not judge(backend.check(asked), asked).verified, proof


def test_whole_files_that_prove_are_verified(verifier):
    items = [(target, WholeFile(text)) for target, text in FILES]
    found = statuses(verifier, items)
    assert [row for row in found if row[2] is not Status.VERIFIED] == []


@pytest.mark.parametrize("expected", FALSE_FILES)
def test_whole_files_that_cheat(verifier, expected):
    items = [(FALSE, WholeFile(text)) for text in FALSE_FILES[expected]]
    found = statuses(verifier, items)
    assert [row for row in found if row[2] is not expected] == []


def test_a_statement_means_what_its_own_definitions_mean(verifier):
    [verdict] = verifier.verify([(MATCH, WholeFile(OWN_MATCH))])
    assert verdict.status is Status.REJECTED
    assert verdict.reason == "the theorem proves another statement"


def test_without_the_scan_no_file_is_verified(backend):
    for text in [*FALSE_FILES[Status.UNSAFE], *FILES_BEHIND_THE_SCAN]:
        asked = request(FALSE, WholeFile(text))
        assert not judge(backend.check(asked), asked).verified, text
    for text in FILES_BEHIND_THE_SCAN:
        assert backend.check(request(FALSE, WholeFile(text))).refused


@pytest.mark.parametrize("attack", HIDDEN_CODE)
def test_no_code_of_a_submission_is_run(backend, attack):
    target, submission = HIDDEN_CODE[attack]
    asked = request(target, submission)
    report = backend.check(asked)
    verdict = judge(report, asked)
    # A server's scan refuses some; where Lean is asked, it finds no code to run.
    assert verdict.status in (Status.REJECTED, Status.UNSAFE)
    assert report.refused or any(
        re.search(
            "unknown declaration|already been declared|Error evaluating configuration",
            error.text,
        )
        for error in verdict.errors
    )


@pytest.mark.parametrize("expected", VALUES)
def test_only_plain_data_is_compiled(backend, expected):
    for term in VALUES[expected]:
        asked = request(TRUE, with_value(term))
        verdict = judge(backend.check(asked), asked)
        assert verdict.status is expected, (term, verdict)
        assert [e.text[:30] for e in verdict.errors] in (
            [],
            ["Error evaluating configuration"],
        )


def test_errors_of_every_command_count(backend):
    text = "theorem a : 1 = 2 := by rfl\ntheorem target : (2 : Nat) + 2 = 4 := rfl"
    report = backend.check(request(TRUE, WholeFile(text)))
    assert report.has_errors
    assert [(m.severity, m.line) for m in report.messages] == [("error", 1)]


def test_a_file_on_its_own_gives_its_messages(verifier):
    source = "import Std\n#check Nat\ntheorem a : 1 = 2 := by\n  sorry\n#check Int\n"
    [found, refused] = verifier.elaborate([source, "#eval 1"])
    assert (found.ended, refused.ended) == ("done", "unsafe")
    assert [(d.line, d.severity, d.kind) for d in found.diagnostics] == [
        (2, "information", ""),
        (3, "warning", "hasSorry"),
        (5, "information", ""),
    ]


def test_messages_positions_goals(verifier):
    statement = "theorem t (p q : Prop) (hp : p) (hq : q)\n    : p ∧ q"
    proof = "  constructor\n  · exact hp\n  · exact hp"
    [verdict] = verifier.verify([(problem(statement), proof)])
    [error] = verdict.errors
    # `exact hp` on the proof's third line, after two spaces, a bullet and a space.
    assert (error.line, error.column) == (3, 4)
    assert (error.end_line, error.end_column) == (3, 12)
    assert error.in_proof
    assert "mismatch" in error.text
    [verdict] = verifier.verify([(problem(statement), "  constructor")])
    assert [goal.text.splitlines()[-1] for goal in verdict.goals] == ["⊢ p", "⊢ q"]
    assert (verdict.errors[0].line, verdict.errors[0].column) == (1, 0)
    assert verdict.errors[0].kind == "Tactic.unsolvedGoals"


@pytest.mark.parametrize(
    ("statement", "header", "reason"),
    [
        ("theorem t (x : ℕ) : x = x", "", "ℕ"),
        ("theorem t : True := trivial\ntheorem u : True", "", "more than one command"),
        ("def t : Nat", "", "declares no theorem"),
        ("theorem other : True", "", "declares no theorem t"),
        ("theorem t : True", "import Mathlib", "Mathlib"),
        ("theorem t : True", "axiom", "the header does not elaborate"),
        ("theorem t : True", "theorem t : True := trivial", "already"),
        ("import Std\ntheorem t : True", "", "belong to the header"),
        ("prelude\ntheorem t : True", "", "belong to the header"),
        ("-- x\nmodule\ntheorem t : True", "", "belong to the header"),
        ("public import Std\ntheorem t : True", "", "does not elaborate"),
        ("theorem t : True", "open Nat\nimport Std", "invalid 'import' command"),
        ("theorem t : True", "open Nat\n#exit\n#check nothing", "nothing"),
        ("theorem t : True /- x", "", "unterminated comment"),
        ('theorem t : "x', "", "does not elaborate"),
        ("/-- theorem t -/", "", "does not elaborate"),
    ],
)
def test_broken_trusted_source_is_named(verifier, statement, header, reason):
    broken = type(FALSE)(name="t", statement=statement, header=header)
    [report] = verifier.check_statements([broken])
    assert not report.ok
    assert reason in report.reason


def test_an_imported_module_of_the_library_is_available(verifier):
    source = problem("theorem t : (∅ : Std.HashSet Nat).size = 0", "import Std")
    [verdict] = verifier.verify([(source, "  rfl")])
    [report] = verifier.check_statements([source])
    assert report.ok
    assert verdict.status in (Status.VERIFIED, Status.REJECTED)


# ---- samples that are not part of the project


def rows(name):
    folder = os.environ.get("FDJAX_TEST_DATA")
    if folder is None:
        pytest.skip("FDJAX_TEST_DATA names no folder with sample data")
    lines = Path(folder, name).read_text().splitlines()
    return [json.loads(line) for line in lines]


def sample(statement):
    name = re.search(r"theorem\s+(\S+)", statement).group(1)
    return type(FALSE)(name=name, statement=statement)


@pytest.mark.parametrize(
    "name", ["core_theorems_sample.jsonl", "benign_controls_sample.jsonl"]
)
def test_sample_theorems_are_verified(verifier, name):
    items = [(sample(row["statement"]), row["proof"]) for row in rows(name)]
    verdicts = verifier.verify(items)
    assert [
        (item[0].name, verdict.reason)
        for item, verdict in zip(items, verdicts, strict=True)
        if not verdict.verified
    ] == []


def test_sample_failures_give_the_recorded_errors(verifier):
    data = rows("failing_proofs_sample.jsonl")
    problems = [sample(row["statement"]) for row in data]
    usable = [report.ok for report in verifier.check_statements(problems)]
    # One sample fails in its statement, which is not a failed proof.
    assert usable.count(False) == 1
    for row, target, ok in zip(data, problems, usable, strict=True):
        if not ok:
            continue
        [verdict] = verifier.verify([(target, row["proof"])])
        recorded = [m for m in row["messages"] if m["severity"] == "error"]
        assert verdict.status is Status.REJECTED
        found = [error.text for error in verdict.errors]
        assert found == [message["data"] for message in recorded], row["name"]
        lines = target.statement.count("\n") + 1
        for message, error in zip(recorded, verdict.errors, strict=True):
            if message["pos"]["line"] > lines:
                position = message["pos"]["line"] - lines, message["pos"]["column"]
                assert (error.line, error.column) == position


def attacks():
    """Each attack as what it is meant to be, and files also as a proof."""
    for row in rows("exploits_sample.jsonl"):
        target, text = sample(row["theorem_statement"]), row["malicious_proof"]
        yield target, text
        if row["mode"] == "file":
            yield target, WholeFile(text)


def test_sample_attacks_are_never_verified(verifier):
    items = list(attacks())
    verdicts = verifier.verify(items, broken_statements="reject")
    verified = zip(items, verdicts, strict=True)
    assert [item for item, verdict in verified if verdict.verified] == []


def test_sample_attacks_without_any_scan(backend):
    for target, submission in attacks():
        asked = request(target, submission)
        try:
            report = backend.check(asked)
        except WorkerDiedError:
            continue
        assert not judge(report, asked).verified, submission


def test_a_warning_that_is_cut_off_is_admitted(verifier):
    """A reader who finds no `sorry` among the messages may not conclude anything."""
    tail = "\ntheorem cheat : 1 = 2 := sorry"
    infos = "\n".join(["#check Nat.add_comm"] * 20) + tail
    warnings = "\n".join(f"theorem t{i} : 1 = 2 := sorry" for i in range(20)) + tail
    limits = replace(LIMITS, output_bytes=100)
    behind_infos, behind_warnings = verifier.elaborate([infos, warnings], limits=limits)
    assert behind_infos.complete
    assert "hasSorry" in {d.kind for d in behind_infos.diagnostics}
    assert not behind_warnings.complete


def test_a_report_that_fills_a_pipe_arrives_whole(verifier):
    """A pipe holds 64 KiB; a report is somewhat larger than the text in it."""
    source = f"#check fun ({'h' * 70_000} : Nat) => {'h' * 70_000}"
    for _ in range(5):
        [elaboration] = verifier.elaborate([source])
        assert elaboration.ended == "done"
        [printed] = elaboration.diagnostics
        assert len(printed.text) == verifier.limits.output_bytes


def test_a_smaller_limit_holds_for_one_call(verifier):
    if verifier.identity.startswith("kimina/"):
        pytest.skip("a Kimina server's limit leaves time for our program, too")
    slow = "theorem t : (List.range 90000).foldl (· + ·) 0 = 3 := by decide +kernel"
    [elaboration] = verifier.elaborate([slow], limits=replace(LIMITS, wall_s=0.5))
    assert elaboration.ended == "timeout"
    assert 0.5 <= elaboration.seconds < verifier.limits.wall_s / 2


def request(target, proof):
    return CheckRequest(
        name=target.name,
        header=target.header,
        statement=target.statement,
        proof=proof,
        limits=replace(LIMITS, wall_s=60.0),  # on a busy machine, too
    )
