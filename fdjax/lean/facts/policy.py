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
