"""Theorems, failures and attacks; the core library is all they need."""

from fdjax.records import Problem


def problem(statement: str, header: str = "") -> Problem:
    name = statement.split()[1].removesuffix(".{u}")
    return Problem(name=name, statement=statement, header=header)


SWAP = problem("theorem swap (p q : Prop) (h : p ∧ q) : q ∧ p")
FALSE = problem("theorem target : (2 : Nat) + 2 = 5")
TRUE = problem("theorem target : (2 : Nat) + 2 = 4")

THEOREMS = [
    (SWAP, "  exact ⟨h.2, h.1⟩"),
    (SWAP, "  obtain ⟨a, b⟩ := h\n  exact And.intro b a"),
    (SWAP, "  constructor\n  · exact h.2\n  · exact h.1"),
    (problem("theorem em (p : Prop) : p ∨ ¬p"), "  exact Classical.em p"),
    (problem("theorem lin (a b : Nat) (h : a < b) : a + 1 ≤ b"), "  omega"),
    (problem("theorem bits (x : BitVec 8) : x &&& x = x"), "  simp"),
    (problem("theorem zero (n : Nat) : 0 + n = n"), "  simp +arith"),
    (
        problem("theorem sum (n : Nat) : n ≤ n * n"),
        "  induction n with\n  | zero => simp\n  | succ k _ => exact Nat.le_mul_self _",
    ),
    (problem("theorem len (l : List Nat) : (l ++ []).length = l.length"), "  simp"),
    (problem("theorem fn (f : Nat → Nat) : (fun x => f x) = f"), "  rfl"),
    (TRUE, "  have local_sorry : True := trivial\n  decide +kernel"),
    (
        TRUE,
        "-- a comment with #eval, sorry and theorem\n  rfl /- macro /- unsafe -/ -/",
    ),
    (TRUE, '  have := "theorem def #eval"\n  rfl'),
    (TRUE, '  have c := \'"\'\n  have := "x"\n  rfl'),
    (TRUE, "  have «two words» : True := trivial\n  rfl"),
    (TRUE, "  set_option maxRecDepth 4000 in\n  set_option pp.all true in\n  rfl"),
    (TRUE, "  let rec double : Nat → Nat := fun n => (toString n).length + n\n  rfl"),
    (TRUE, "  exact helper\nwhere\n  helper : (2 : Nat) + 2 = 4 := rfl"),
    (TRUE, "  open Nat in\n  simp (maxSteps := 1000)"),
    (problem("theorem uni.{u} (α : Type u) (a : α) : a = a"), "  rfl"),
    (
        problem(
            "theorem dbl (n : Nat) : dbl' n = n + n", "def dbl' (n : Nat) := n + n"
        ),
        "  rfl",
    ),
    (problem("theorem inner : True", "namespace Outer\nopen Nat"), "  trivial"),
    (problem("theorem two\n    (p : Prop)\n    (h : p) : p"), "  exact h"),
]

FAILURES = [
    (SWAP, "  exact h"),
    (SWAP, "  constructor"),
    (SWAP, ""),
    (SWAP, "  exact ⟨h.2, h.1"),
    (SWAP, "  exact ⟨h.2, h.1⟩)"),
    (SWAP, "  frobnicate"),
    (FALSE, "  rfl"),
    (FALSE, "  omega"),
    (FALSE, "  decide +kernel"),
    (problem("theorem loop (n : Nat) : n = n + 1"), "  exact loop n"),
]

GIVING_UP = ["  sorry", "  admit", "  stop\n  rfl", "  exact sorryAx _ false"]
"""For `FALSE`: REJECTED, because the axioms show it."""

UNSAFE = [
    "  set_option debug.skipKernelTC true in decide +kernel",
    "  set_option «debug».skipKernelTC true in decide +kernel",
    "  set_option/- -/debug.skipKernelTC true in decide +kernel",
    "  exact set_option debug.byAsSorry true in by decide",
    "  set_option warn.sorry false in sorry",
    "  native_decide",
    "  decide +native",
    "  decide (config := { native := true })",
    "  exact Lean.ofReduceBool (decide (2 + 2 = 5)) true rfl",
    "  run_tac pure ()",
    "  exact by_elab return default",
    "  exact unsafe rfl",
    "  exact unsafeCast ()",
    "  exact «unsafeCast» ()",
    "  exact _root_.unsafeCast ()",
    '  have := include_str "/etc/passwd"\n  rfl',
    '  dbg_trace "x"; rfl',
    "  let rec @[implemented_by Nat.succ] f : Nat → Nat := id\n  rfl",
    "  rfl\n\n#eval IO.Process.exit 0",
    "  rfl\naxiom cheat : False\ntheorem other : False := cheat",
    "  rfl\nend",
    '  rfl\nmacro "omega" : tactic => `(tactic| sorry)',
    "  rfl\nset_option autoImplicit true\n#print axioms target",
    '  have := s!"{ "a" ++ (unsafeCast 1) ++ "b" }"\n  rfl',
    "  have α' := 1; have := α'\"'\" unsafe \"",
    '  have := 0x1\'"\'" unsafe "',
    '  have αr := 1; have := αr#"x" unsafe "#',
    '  have «a\n" » := 1; exact unsafe rfl; have := " »',
    "  exact rfl -- \n#eval 1",
    "  rfl /- -/ #eval 1",
    "  rfl\x00",
    "  rfl \ud800",
    "  " + "x" * 300_000,
]
"""For `FALSE`: refused by the textual scan."""

BEHIND_THE_SCAN = [
    ("  set_option debug.skipKernelTC true in decide +kernel", "refused"),
    ("  exact set_option debug.byAsSorry true in by decide", "refused"),
    ("  native_decide", "refused"),
    ("  run_tac pure ()", "refused"),
    ("  exact by_elab return default", "refused"),
    ("  exact unsafe rfl", "refused"),
    ("  exact @unsafeCast Unit _ ()", "refused"),
    ('  have := include_str "/etc/passwd"\n  rfl', "refused"),
    ("  let rec @[reducible] f : Nat → Nat := id\n  rfl", "refused"),
    ("  simp (maxSteps := (#[1])[9]'(by as_aux_lemma => sorry))", "refused"),
    ("  simp (maxSteps := (#[1])[9]'(sorryAx _ true))", "refused"),
    ("  sorry\n#eval 1", "left_proof"),
    ("  sorry\ntheorem other : True := trivial", "left_proof"),
    ("  sorry\naxiom cheat : False", "left_proof"),
]
"""Proofs of `FALSE` and the report's field that stops them without any scan."""
