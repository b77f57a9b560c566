"""Mutated proofs: whatever is VERIFIED, a separate elaboration of the file accepts.

The other opinion comes from another process, which reads one bare file: header,
statement and proof as text, then a theorem of the same type that follows from the first
one, and what that one rests on. None of the verifier's pipeline is in its way: no
splice, no comparison of types, no judgement.
"""

import re

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from fdjax.lean import RunRequest, WasmBackend, WholeFile
from lean.corpus import FILES, THEOREMS, UNSAFE

BATCH = 10
"""Mutants that the verifier's two workers are given at once."""
EXAMPLES = 300 // BATCH
MANY = 3000 // BATCH
TOKEN = re.compile(r"\s+|[\w'.]+|\W")
CHEATS = ["sorryAx", "cheat", "ofReduceBool", "trustCompiler"]
FRAGMENTS = [
    "sorry",
    "exact sorryAx _ true",
    "rfl",
    "trivial",
    "exact cheat.elim",
    "\naxiom cheat : False\n",
    "\ntheorem target : True := trivial\n",
    "\nend\n",
    "\nnamespace X\n",
    "\nsection\nvariable (h : False)\ninclude h\n",
    "\n#eval 1\n",
    "\n#exit\n",
    "\nset_option debug.skipKernelTC true in\n",
    "set_option maxRecDepth 9 in\n",
    "native_decide",
    "decide +kernel",
    "all_goals ",
    "first | done | ",
    "; ",
    "<;> ",
    "(",
    ")",
    "⟨",
    "⟩",
    "·",
    "\n",
    "  ",
    "/-",
    "-/",
    "--",
    "/--",
    '"',
    'r#"',
    "'",
    "«",
    "»",
    "{",
    "}",
    ":=",
    "by",
    "\\",
    "\t",
    "\r\n",
    "\u200b",
    "ℕ",
]


def drop(draw, text):
    parts = TOKEN.findall(text)
    index = draw(st.integers(0, max(len(parts) - 1, 0)))
    return "".join(parts[:index] + parts[index + 1 :])


def swap(draw, text):
    parts = TOKEN.findall(text)
    left, right = (draw(st.integers(0, max(len(parts) - 1, 0))) for _ in range(2))
    if parts:
        parts[left], parts[right] = parts[right], parts[left]
    return "".join(parts)


def truncate(draw, text):
    return text[: draw(st.integers(0, len(text)))]


def inject(draw, text):
    at = draw(st.integers(0, len(text)))
    return text[:at] + draw(st.sampled_from(FRAGMENTS)) + text[at:]


def graft(draw, text):
    """A line of an attack or of another proof in place of one's own."""
    donors = UNSAFE[:-3] + [proof for _, proof in THEOREMS]
    lines = text.split("\n")
    donor = draw(st.sampled_from(donors)).split("\n")
    lines[draw(st.integers(0, len(lines) - 1))] = draw(st.sampled_from(donor))
    return "\n".join(lines)


@st.composite
def mutants(draw, proved):
    target, text = draw(st.sampled_from(proved))
    for _ in range(draw(st.integers(1, 3))):
        text = draw(st.sampled_from([drop, swap, truncate, inject, graft]))(draw, text)
    return target, text


@pytest.fixture(scope="module")
def other(lean_folder):
    """A process that the verifier has nothing to do with."""
    backend = WasmBackend(lean_folder)
    yield backend
    backend.close()


def bare(target, text):
    """The file, with a second theorem of the same type that needs the first."""
    space = re.search(r"^namespace (\S+)", target.header, re.MULTILINE)
    full = f"_root_.{space[1]}.{target.name}" if space else f"_root_.{target.name}"
    again = re.sub(
        rf"^theorem {re.escape(target.name)}", "theorem again", target.statement
    )
    header = f"{target.header}\n" if target.header else ""
    if text.startswith(target.header):
        header = ""
    return (
        f"{header}{text}\n\n{again} := by\n  first | exact {full} | "
        f"(apply {full} <;> assumption) | (intros; apply {full})\n#print axioms again\n"
    )


def is_proved(other, target, text):
    report = other.check(RunRequest(source=bare(target, text)))
    said = [m.text for m in report.messages if m.severity == "information"]
    # Library theorems are among those axioms: the embedded library holds no proofs.
    return not report.has_errors and not any(cheat in said[-1] for cheat in CHEATS)


def proof_text(target, proof):
    return f"{target.statement} := by\n{proof}"


def test_the_other_opinion_accepts_the_originals(other):
    for target, proof in THEOREMS:
        assert is_proved(other, target, proof_text(target, proof)), (target, proof)
    for target, text in FILES:
        assert is_proved(other, target, text), (target, text)


def test_the_other_opinion_refuses_cheats(other):
    target, _ = THEOREMS[0]
    cheat = "axiom cheat : False\n" + proof_text(target, "  exact cheat.elim")
    assert not is_proved(other, target, cheat)
    assert not is_proved(other, target, proof_text(target, "  sorry"))
    assert not is_proved(other, target, "theorem swap : True := trivial")


def batches(proved):
    return st.lists(mutants(proved), min_size=BATCH, max_size=BATCH, unique=True)


def accepts_no_more_than(other, verifier, items):
    for (target, submission), verdict in zip(
        items, verifier.verify(items), strict=True
    ):
        event(verdict.status.value)
        if verdict.verified:
            whole = isinstance(submission, WholeFile)
            text = submission.text if whole else proof_text(target, submission)
            assert is_proved(other, target, text), (target, submission)


def as_files(batch):
    return [(target, WholeFile(text)) for target, text in batch]


@settings(max_examples=EXAMPLES, deadline=None)
@given(batch=batches(THEOREMS))
def test_mutated_proofs(verifier, other, batch):
    accepts_no_more_than(other, verifier, batch)


@settings(max_examples=EXAMPLES, deadline=None)
@given(batch=batches(FILES))
def test_mutated_files(verifier, other, batch):
    accepts_no_more_than(other, verifier, as_files(batch))


@pytest.mark.slow
@settings(max_examples=MANY, deadline=None)
@given(batch=batches(THEOREMS))
def test_many_mutated_proofs(verifier, other, batch):
    accepts_no_more_than(other, verifier, batch)


@pytest.mark.slow
@settings(max_examples=MANY, deadline=None)
@given(batch=batches(FILES))
def test_many_mutated_files(verifier, other, batch):
    accepts_no_more_than(other, verifier, as_files(batch))
