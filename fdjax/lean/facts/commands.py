"""The words with which Lean's commands begin, by what the commands do."""

from fdjax.lean.facts.lexer import code
from fdjax.lean.facts.statement import last_theorem

__all__ = [
    "DECLARING",
    "METAPROGRAMS",
    "PRINTING",
    "RUNNING",
    "begins_a_command",
    "first_word",
    "is_file",
]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


DECLARING = _words(
    """
    abbrev add_decl_doc attribute axiom class def deriving end example export
    grind_pattern import include inductive instance lemma mutual namespace noncomputable
    omit opaque partial private protected section structure theorem universe variable
    """
)
"""Reserved words that a proof has no use for and a file may: what they declare shows in
the kernel."""
METAPROGRAMS = _words(
    """
    binder_predicate builtin_dsimproc builtin_initialize builtin_simproc coinductive
    compile_def compile_inductive declare_syntax_cat dsimproc elab elab_rules infix
    infixl infixr init_quot initialize macro macro_rules notation notation3 postfix
    prefix prelude register_builtin_option register_option register_parser_alias simproc
    simproc_decl syntax unif_hint
    """
)
"""Further ones, which change how the rest of a text is read or elaborated, as notation
does, or leave no trace in the kernel."""
PRINTING = _words("check print synth version where")
"""What follows `#` in commands that only print."""
RUNNING = _words(
    """
    check_failure check_simp check_tactic discr_tree_key eval exit find guard guard_expr
    guard_msgs help html import_path instances leansearch lint loogle min_imports moogle
    norm_num push_discr_tree reduce simp test time unfold widget with_exporting
    """
)
"""What follows `#` in others."""

_BEFORE_COMMAND = _words(
    "@ # /-- /-! alias local meta module nonrec public run_cmd scoped"
)
"""What else a command, or a file, may begin with."""
_COMMANDS_AND_TACTICS = _words("open set_option")


def is_file(text: str) -> bool:
    """Whether Lean text begins with a command, not with a tactic."""
    word = first_word(text)
    if word in _COMMANDS_AND_TACTICS:
        return last_theorem(text) is not None
    return begins_a_command(word)


def begins_a_command(word: str) -> bool:
    """Whether a command may begin with a word, which may begin a tactic as well."""
    return any(
        word in words
        for words in (DECLARING, METAPROGRAMS, _BEFORE_COMMAND, _COMMANDS_AND_TACTICS)
    )


def first_word(text: str) -> str:
    """The first token of a text, of documentation its beginning; empty without any."""
    first = next(code(text), None)
    if first is None:
        return ""
    return first.text[:3] if first.kind == "comment" else first.text
