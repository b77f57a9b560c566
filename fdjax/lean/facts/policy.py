"""The policy: what the parsers of all checkers let proofs and files contain.

It is sent to every checker, which applies it to syntax trees, to compiled code and to
imports. The textual scan (`scan.py`) takes what it needs from it.
"""

from dataclasses import dataclass

__all__ = ["LONGEST", "POLICY", "Policy"]

LONGEST = 200_000
"""Characters of a submission."""


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


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _within(namespace: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{namespace}.{name}" for name in names)


_MODES = (
    *_within("Occurrences", ("all", "neg", "pos")),
    *_within("TransparencyMode", ("all", "default", "instances", "reducible")),
)

POLICY = Policy(
    commands=(
        *_within(
            "Lean.Parser.Command",
            _words(
                """
                addDocString attribute check declaration deriving end eoi export
                grindPattern in include moduleDoc mutual namespace omit open print
                printAxioms section set_option synth universe variable version where
                """
            ),
        ),
        "lemma",
    ),
    attributes=_words(
        """
        always_inline class coe congr continuity default_instance deprecated
        elab_as_elim expose ext fun_prop gcongr grind implicit_reducible inherit_doc
        inline instance irreducible local match_pattern measurability mono noinline
        nolint norm_cast push_cast reducible refl scoped semireducible simp simps
        specialize symm to_additive trans
        """
    ),
    file_options=("autoImplicit", "relaxedAutoImplicit"),
    raised=("maxRecDepth",),
    options=_words(
        """
        diagnostics exponentiation.threshold linter. maxHeartbeats maxRecDepth
        maxSynthPendingDepth pp. synthInstance.maxHeartbeats synthInstance.maxSize
        tactic.hygienic
        """
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
    words=_words(
        """
        builtin_init bv_check by_elab csimp dbgSleep dbgStackTrace dbgTrace
        dbgTraceIfShared dbgTraceVal dbg_sleep dbg_stack_trace dbg_trace
        dbg_trace_if_shared dbg_trace_val elab_stx evalExpr eval_expr implemented_by
        include_bytes include_str lcAny lcProof lcUnreachable native_decide ofReduceBool
        ofReduceNat polyrith ptrAddrUnsafe ptrEq reduceBool reduceNat run_cmd run_conv
        run_elab run_meta run_tac run_term_elab skipKernelTC trustCompiler unsafeBaseIO
        unsafeCast unsafeEIO unsafeIO withPtrAddr withPtrAddrUnsafe withPtrEq
        withPtrEqDecEq withPtrEqUnsafe
        """
    ),
    reserved=("_auto", "_tmp"),
    constants=(
        *_words("false none some true"),
        *_MODES,
        *_within("Lean.Meta", _MODES),
    ),
    configuration=_words(
        """
        Lean.Parser.Term.app Lean.Parser.Term.dotIdent Lean.Parser.Term.hygienicLParen
        Lean.Parser.Term.optEllipsis Lean.Parser.Term.paren choice group hygieneInfo
        null num term[_] term{}
        """
    ),
    functions=(
        *_words(
            """
            Array.empty Array.mkArray0 Array.mkEmpty Array.push HPow.hPow Int.instNegInt
            Lean.Name.mkNum Lean.Name.mkSimple Lean.Name.mkStr
            """
        ),
        *(f"Lean.Name.mkStr{count}" for count in range(1, 9)),
        *_words(
            """
            Lean.mkAtom List.toArray Neg.neg OfNat.ofNat String.toRawSubstring
            String.toSubstring instHPow instNatPowNat instOfNat instOfNatNat instPowNat
            """
        ),
    ),
    growing=("Array.mkEmpty", "HPow.hPow"),
    largest=10_000,
    unlike=_words(
        "ByteArray Float Float32 FloatArray Task Thunk float32Spec floatSpec"
    ),
    nodes=100_000,
    imports=("Init", "Std"),
)
