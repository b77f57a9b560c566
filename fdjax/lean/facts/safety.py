"""Refuse proofs and files that could do more than prove.

The scan reads Lean's tokens, so comments, strings and parts of longer names never
trigger it. It is the first of several walls: the host parses the text again and
applies the same rules to the syntax tree, and a verdict never depends on the scan
alone. `sorry`, `admit` and `stop` pass: giving up is not an attack, and the axioms
show it (REJECTED, not UNSAFE).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from fdjax.lean.facts.backend import Submission, WholeFile
from fdjax.lean.facts.lexer import code, tokens, without_comments
from fdjax.lean.facts.statement import last_theorem

__all__ = ["POLICY", "Policy", "is_file", "misfit", "scan", "scan_file"]

MAX_CHARACTERS = 200_000


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What proofs and files may contain."""

    options: tuple[str, ...]
    """Names that `set_option` may take; an entry ending in a dot is a prefix."""
    file_options: tuple[str, ...]
    """Further names that it may take in a file."""
    raised: tuple[str, ...]
    """Those of them that take numbers of four digits and more only. With less depth,
    `exact?` would leave lemmas out of its index, which serves later proofs as well."""
    commands: tuple[str, ...]
    """Syntax node kinds of the commands that a file may hold."""
    attributes: tuple[str, ...]
    """Attributes that declarations of a file may carry."""
    kinds: tuple[str, ...]
    """Syntax node kinds that may not occur in a parsed proof or file."""
    proof_kinds: tuple[str, ...]
    """Further kinds that may not occur in a parsed proof."""
    words: tuple[str, ...]
    """Names that may not occur in either, alone or as part of a longer one."""
    reserved: tuple[str, ...]
    """What no part of a name in either may begin with: Lean names so the few
    definitions of its own that it compiles and runs."""
    constants: tuple[str, ...]
    """Names that a tactic's configuration may hold besides keys: it is compiled and
    run, so it may be made of literals and these only."""
    configuration: tuple[str, ...]
    """Syntax node kinds of a tactic's configuration: literals, structures, lists; those
    with `onfig` or `structInst` in their name are not listed."""
    functions: tuple[str, ...]
    """Functions that what Lean compiles for a submission may call, besides making
    values of inductive types: those of literals and of quoted tactic blocks."""
    growing: tuple[str, ...]
    """Those of them whose result may be much larger than what they are given."""
    largest: int
    """The largest number that those may be given."""
    unlike: tuple[str, ...]
    """Types that the compiler lays out otherwise than their constructors say, and
    constants of these: no such value is made or taken apart."""
    nodes: int
    """The most parts of a value that Lean compiles for a submission."""
    imports: tuple[str, ...]
    """Library roots that a trusted header may import."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Reserved words that begin a command or modify one: a proof has no use for them.
_COMMANDS = _words(
    """
    abbrev add_decl_doc attribute axiom binder_predicate builtin_dsimproc
    builtin_initialize builtin_simproc class coinductive compile_def compile_inductive
    declare_syntax_cat def deriving dsimproc elab elab_rules end example export
    grind_pattern import include inductive infix infixl infixr init_quot initialize
    instance lemma macro macro_rules mutual namespace noncomputable notation notation3
    omit opaque partial postfix prefix prelude private protected
    register_builtin_option register_option register_parser_alias section simproc
    simproc_decl structure syntax theorem unif_hint universe variable
    """
)
# Those of them that a file may use: they declare, and what they declare shows in the
# kernel. Notation is not among them: it changes how the rest of the text is read.
_FILE_COMMANDS = _words(
    """
    abbrev add_decl_doc attribute axiom class def deriving end example export
    grind_pattern import include inductive instance lemma mutual namespace
    noncomputable omit opaque partial private protected section structure theorem
    universe variable
    """
)
# Words that run code or reach outside while elaborating, or that make compiled code
# count as a proof.
_CODE = _words(
    """
    builtin_init bv_check by_elab csimp dbg_sleep dbg_stack_trace dbg_trace
    dbg_trace_if_shared dbg_trace_val dbgSleep dbgStackTrace dbgTrace dbgTraceIfShared
    dbgTraceVal elab_stx eval_expr evalExpr extern implemented_by include_bytes
    include_str lcAny lcProof lcUnreachable native native_decide ofReduceBool
    ofReduceNat plausible polyrith ptrAddrUnsafe ptrEq reduceBool reduceNat run_cmd
    run_conv run_elab run_meta run_tac run_term_elab skipKernelTC slim_check
    trustCompiler unsafe unsafeBaseIO unsafeCast unsafeEIO unsafeIO withPtrAddr
    withPtrAddrUnsafe withPtrEq withPtrEqDecEq withPtrEqUnsafe
    """
)
# As a part of a longer name these are harmless, as in `h.native`.
_POISON = _CODE - {"native", "unsafe", "extern", "plausible", "slim_check"}
# What else a command, or a file, may begin with.
_BEFORE_COMMAND = _words(
    "@ # /-- /-! alias local meta module nonrec public run_cmd scoped"
)
_COMMANDS_AND_TACTICS = _words("open set_option")
_HASH_COMMANDS = _words(
    """
    check check_failure check_simp check_tactic discr_tree_key eval exit find guard
    guard_expr guard_msgs help html import_path instances leansearch lint loogle
    min_imports moogle norm_num print push_discr_tree reduce simp synth test time
    unfold version where widget with_exporting
    """
)

# Of those, the ones that only print.
_FILE_HASH_COMMANDS = _words("check print synth version where")

POLICY = Policy(
    commands=(
        "Lean.Parser.Command.addDocString",
        "Lean.Parser.Command.attribute",
        "Lean.Parser.Command.check",
        "Lean.Parser.Command.declaration",
        "Lean.Parser.Command.deriving",
        "Lean.Parser.Command.end",
        "Lean.Parser.Command.eoi",
        "Lean.Parser.Command.export",
        "Lean.Parser.Command.grindPattern",
        "Lean.Parser.Command.in",
        "Lean.Parser.Command.include",
        "Lean.Parser.Command.moduleDoc",
        "Lean.Parser.Command.mutual",
        "Lean.Parser.Command.namespace",
        "Lean.Parser.Command.omit",
        "Lean.Parser.Command.open",
        "Lean.Parser.Command.print",
        "Lean.Parser.Command.printAxioms",
        "Lean.Parser.Command.section",
        "Lean.Parser.Command.set_option",
        "Lean.Parser.Command.synth",
        "Lean.Parser.Command.universe",
        "Lean.Parser.Command.variable",
        "Lean.Parser.Command.version",
        "Lean.Parser.Command.where",
        "lemma",
    ),
    attributes=tuple(
        sorted(
            _words(
                """
                always_inline class coe congr continuity default_instance deprecated
                elab_as_elim expose ext fun_prop gcongr grind implicit_reducible
                inherit_doc inline instance irreducible local match_pattern
                measurability mono noinline nolint norm_cast push_cast reducible refl
                scoped semireducible simp simps specialize symm to_additive trans
                """
            )
        )
    ),
    file_options=("autoImplicit", "relaxedAutoImplicit"),
    raised=("maxRecDepth",),
    options=(
        "diagnostics",
        "exponentiation.threshold",
        "linter.",
        "maxHeartbeats",
        "maxRecDepth",
        "maxSynthPendingDepth",
        "pp.",
        "synthInstance.maxHeartbeats",
        "synthInstance.maxSize",
        "tactic.hygienic",
    ),
    kinds=(
        # Threads may outlive the time in which the compiler is limited.
        "Lean.Parser.Tactic.attemptAllPar",
        "Lean.Parser.Tactic.firstPar",
        "Lean.Parser.Tactic.dbgTrace",
        "Lean.Parser.Tactic.nativeDecide",
        "Lean.Parser.Tactic.runTac",
        "Lean.Parser.Term.byElab",
        "Lean.Parser.Term.dbgTrace",
        "Lean.Parser.Term.includeStr",
        "Lean.Parser.Command.unsafe",
        "Lean.Parser.Term.unsafe",
        "Lean.byElab",
        "Lean.includeStr",
        "Lean.runConv",
        "Lean.runTac",
        "Lean.runTermElab",
    ),
    proof_kinds=("Lean.Parser.Term.attributes",),
    words=tuple(sorted(_POISON)),
    reserved=("_auto", "_tmp"),
    constants=(
        "false",
        "none",
        "some",
        "true",
        *(
            f"{scope}{name}"
            for scope in ("", "Lean.Meta.")
            for name in (
                "Occurrences.all",
                "Occurrences.neg",
                "Occurrences.pos",
                "TransparencyMode.all",
                "TransparencyMode.default",
                "TransparencyMode.instances",
                "TransparencyMode.reducible",
            )
        ),
    ),
    configuration=(
        "Lean.Parser.Term.app",
        "Lean.Parser.Term.dotIdent",
        "Lean.Parser.Term.hygienicLParen",
        "Lean.Parser.Term.optEllipsis",
        "Lean.Parser.Term.paren",
        "choice",
        "group",
        "hygieneInfo",
        "null",
        "num",
        "term[_]",
        "term{}",
    ),
    functions=(
        "Array.empty",
        "Array.mkArray0",
        "Array.mkEmpty",
        "Array.push",
        "HPow.hPow",
        "Int.instNegInt",
        "Lean.Name.mkNum",
        "Lean.Name.mkSimple",
        "Lean.Name.mkStr",
        *(f"Lean.Name.mkStr{count}" for count in range(1, 9)),
        "Lean.mkAtom",
        "List.toArray",
        "Neg.neg",
        "OfNat.ofNat",
        "String.toRawSubstring",
        "String.toSubstring",
        "instHPow",
        "instNatPowNat",
        "instOfNat",
        "instOfNatNat",
        "instPowNat",
    ),
    growing=("Array.mkEmpty", "HPow.hPow"),
    largest=10_000,
    unlike=(
        "ByteArray",
        "Float",
        "Float32",
        "FloatArray",
        "Task",
        "Thunk",
        "float32Spec",
        "floatSpec",
    ),
    nodes=100_000,
    imports=("Init", "Std"),
)

_FENCE = re.compile(r"^[ \t]*```", re.MULTILINE)
_THOUSANDS = re.compile(r"\s*[1-9][0-9]{3}")


def scan(proof: str) -> str:
    """Why `proof` may not be elaborated; empty when it may.

    Args:
      proof: tactic text, to be placed after `:= by`.
    """
    return _explained(_refusal(proof, _PROOF), proof)


def scan_file(source: str, statement: str = "") -> str:
    """Why a whole Lean file may not be elaborated; empty when it may.

    Args:
      source: the file.
      statement: the problem's own; what copies of it say is trusted.
    """
    copies = _copies(source, statement.strip())
    return _explained(_refusal(source, _FILE, copies), WholeFile(source))


def is_file(text: str) -> bool:
    """Whether Lean text begins with a command, not with a tactic."""
    first = _first(text)
    may_be_both = first in _COMMANDS_AND_TACTICS and last_theorem(text) is not None
    return first in _COMMANDS | _BEFORE_COMMAND or may_be_both


def misfit(submission: Submission) -> str:
    """What makes a submission no Lean text of its sort; empty when nothing is plain.

    No verdict rests on it: it goes into the reasons of those that are negative anyway.
    """
    is_whole = isinstance(submission, WholeFile)
    text = (submission.text if is_whole else submission)[:MAX_CHARACTERS]
    is_answer = _FENCE.search(without_comments(text)) or text.lstrip()[:7] == "<think>"
    first = _first(text)
    commands = _COMMANDS | _COMMANDS_AND_TACTICS | _BEFORE_COMMAND | {""}
    if is_whole and (is_answer or first not in commands):
        return "this is no Lean file: prose or a code fence before the first command"
    if is_answer:
        return "this is no tactic text: prose or a code fence around it"
    if not is_whole and is_file(text):
        return "a whole theorem is given as `proof`: give it as `source`"
    if not is_whole and first == "by":
        return "the proof begins with `by`, which is there already: leave it out"
    return ""


def _explained(refusal: str, submission: Submission) -> str:
    """A refusal behind what explains it, if anything does."""
    reason = misfit(submission) if refusal else ""
    return f"{reason} ({refusal})" if reason else refusal


def _first(text: str) -> str:
    """The first token of a text, of documentation its beginning."""
    first = next(code(text), None)
    if first is None:
        return ""
    return first.text[:3] if first.kind == "comment" else first.text


@dataclass(frozen=True, kw_only=True)
class _Rules:
    """How a scan of a proof and of a file differ."""

    commands: frozenset[str]
    """Words that are refused."""
    hash_commands: frozenset[str]
    """Words that are refused behind `#`."""
    options: tuple[str, ...]
    attributes: frozenset[str]
    """Those allowed in `@[…]`; none in a proof."""

    @property
    def declares(self) -> bool:
        """Whether it is a file's."""
        return bool(self.attributes)


_PROOF = _Rules(
    commands=_COMMANDS,
    hash_commands=_HASH_COMMANDS,
    options=POLICY.options,
    attributes=frozenset(),
)
_FILE = _Rules(
    commands=_COMMANDS - _FILE_COMMANDS,
    hash_commands=_HASH_COMMANDS - _FILE_HASH_COMMANDS,
    options=POLICY.options + POLICY.file_options,
    attributes=frozenset(POLICY.attributes),
)


def _copies(text: str, statement: str) -> dict[int, int]:
    """Where copies of a statement begin and end, each behind a blank."""
    copies: dict[int, int] = {}
    start = text.find(statement) if statement else -1
    while start >= 0:
        if not text[start - 1 : start].strip():
            copies[start] = start + len(statement)
        start = text.find(statement, start + len(statement))
    return copies


def _refusal(text: str, rules: _Rules, copies: Mapping[int, int] | None = None) -> str:
    if len(text) > MAX_CHARACTERS:
        return f"the text is longer than {MAX_CHARACTERS} characters"
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        return "the text is not valid Unicode"
    option: str | None = None  # what follows `set_option` so far
    in_attributes = False
    in_imports = True
    previous = ""
    trusted_end = 0
    for kind, token, start in tokens(text):
        if copies and option is None and not in_attributes:
            # A copy counts where it begins with a token: inside of a string or comment
            # it would be something else.
            trusted_end = max(trusted_end, copies.get(start, 0))
        if kind == "comment":
            continue
        if start + len(token) <= trusted_end and kind not in ("ambiguous", "broken"):
            in_imports, previous = False, token if token.strip() else previous
            continue
        if option is not None:
            # A dotted name arrives in pieces and ends at the first other token.
            if not option and token.isspace():
                continue
            if kind in ("word", "field", "name") or token == ".":
                option += token
                continue
            if not _option_allowed(option, rules):
                return f"set_option {option} is not allowed"
            if option in POLICY.raised:
                if token.isspace():
                    continue
                if not _THOUSANDS.match(token):
                    return f"set_option {option} takes 1000 and more"
            option = None
        if "[" in token and previous in ("@", "attribute"):
            in_attributes = True
        if in_attributes and kind in ("word", "name") and _opens_item(previous):
            if token not in rules.attributes:
                return f"the attribute `{token}` is not allowed"
        elif token in ("Lean", "«Lean»") and rules.declares and not in_imports:
            return "`Lean` is not allowed: its namespace is for metaprograms"
        elif refused := _refuse(kind, token, previous, rules):
            return refused
        if in_attributes and "]" in token:
            in_attributes = False
        if token == "set_option":
            option = ""
        if kind == "word" and token != "import" and previous != "import":
            in_imports = False
        if not token.isspace():
            previous = token
    if option is not None and not _option_allowed(option, rules):
        return f"set_option {option} is not allowed"
    return ""


def _opens_item(previous: str) -> bool:
    """Whether the next word in `@[…]` is the name of an attribute."""
    return previous in ("local", "scoped", "-") or previous.rstrip()[-1:] in ("[", ",")


def _refuse(kind: str, token: str, previous: str, rules: _Rules) -> str:
    """Why a token may not follow `previous`; empty when it may."""
    forbidden = f"`{token}` is not allowed"
    if kind == "ambiguous":
        return f"{token} can be read in two ways; put spaces around it"
    if kind == "broken" and rules.declares:
        # Lean goes on somewhere behind its beginning.
        return f"what begins with {token[:2].strip()} has no proper end"
    if kind == "string":
        # In s!"{…}" the braces hold a term, strings and all.
        return "braces in a string are not allowed" if "{" in token else ""
    if kind == "name":
        return forbidden if _is_poison(token[1:-1]) else ""
    if kind == "field":
        return forbidden if _is_poison(token) else ""
    if kind == "word":
        if previous == "#" and token.rstrip("!?") in rules.hash_commands:
            return f"the command `#{token}` is not allowed"
        if token in rules.commands:
            return f"`{token}` begins something that is not allowed"
        return forbidden if token in _CODE or _is_poison(token) else ""
    if previous == "@" and token.startswith("[") and not rules.declares:
        return "attributes are not allowed in a proof"
    if previous == "eval" and token == "%":
        return "`eval%` is not allowed"
    return ""


def _is_poison(name: str) -> bool:
    """Whether a name may not even be a part of a longer one."""
    return name in _POISON or name.startswith(POLICY.reserved)


def _option_allowed(option: str, rules: _Rules) -> bool:
    return any(
        option == allowed or (allowed.endswith(".") and option.startswith(allowed))
        for allowed in rules.options
    )
