"""Theorems, failures and attacks; the core library is all they need."""

from pathlib import Path

from fdjax.lean import Status, WholeFile
from fdjax.records import Problem


def problem(statement: str, header: str = "") -> Problem:
    name = statement.split()[1].split(".{")[0]
    return Problem(name=name, statement=statement, header=header)


SWAP = problem("theorem swap (p q : Prop) (h : p ∧ q) : q ∧ p")
FALSE_TYPE = "(2 : Nat) + 2 = 5"
FALSE = problem(f"theorem target : {FALSE_TYPE}")
TRUE = problem("theorem target : (2 : Nat) + 2 = 4")

POWER = problem("theorem power : 1997 ^ 1800 % 7 = 1")
"""The exponent is beyond Lean's own threshold."""

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
    (TRUE, "  open Nat in\n  simp (maxSteps := (1000))"),
    (TRUE, "  simp -zeta +arith (config := { maxSteps := 100, decide := true })"),
    (TRUE, "  grind (splits := 3) -splitIte"),
    (TRUE, "  grind (config := { splits := 3 }) +lookahead (exp := 16)"),
    (TRUE, "  simp (config := {})-- nothing\n"),
    (TRUE, "  simp (maxSteps := .succ 500)/- more -/ (config := { decide := true })"),
    (
        TRUE,
        '  have := \'\\x41\'\n  have := r"a\\"\n  have := "a\\\n    \\u0041"\n  rfl',
    ),
    (TRUE, "  have : ['(', ')', ' '] = ['(', ')', ' '] := rfl\n  rfl"),
    (TRUE, "  have : #[1][0]'(by simp) = 1 := rfl\n  rfl"),
    (TRUE, "  have : { x // x = 3 } := ⟨3, rfl⟩\n  rfl"),
    (TRUE, "  omega (config := { splitNatAbs := false })"),
    (
        TRUE,
        "  have : 1 = 1 :=-- one\n    rfl\n  have := fun x : Nat =>-- it\n    x\n  rfl",
    ),
    (TRUE, "  have : 1 = 1 :=/- one -/rfl\n  have f := fun c => c=='('\n  rfl--'"),
    (TRUE, '  have := r"\\d"--c\n  have : "a"--\'\n    = "a" := rfl\n  rfl'),
    (SWAP, "  have h₁' := h.1--'\r\n  exact ⟨h.2,h₁'⟩-- \"\r\n"),
    (TRUE, "  have h0x1' : 1 = 1 := rfl\n  have hσ₂x' := h0x1'\n  rfl"),
    (SWAP, "  rw (occs := .pos [1]) [and_comm]\n  exact h"),
    (SWAP, "  rw (occs := Lean.Meta.Occurrences.pos [1]) [and_comm]\n  exact h"),
    (problem("theorem uni.{u} (α : Type u) (a : α) : a = a"), "  rfl"),
    (
        problem(
            "theorem dbl (n : Nat) : dbl' n = n + n", "def dbl' (n : Nat) := n + n"
        ),
        "  rfl",
    ),
    (problem("theorem inner : True", "namespace Outer\nopen Nat"), "  trivial"),
    (problem("theorem two\n    (p : Prop)\n    (h : p) : p"), "  exact h"),
    (TRUE, "  have : 1 = 1 := rfl\n" * 300 + "  rfl"),
    (TRUE, "  exact " + "(by exact " * 30 + "rfl" + ")" * 30),
    (TRUE, "  exact " + "(" * 200 + "rfl" + ")" * 200),
    (problem("theorem many : (True ∧ True) ∧ True"), "  constructor <;> simp"),
    (POWER, "  decide +kernel"),
    (POWER, "  set_option exponentiation.threshold 2000 in\n  decide"),
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
    (POWER, "  decide"),
    (SWAP, "  constructor\n  exact\u00a0h.2\n  exact h.1"),
    (SWAP, "  constructor\u2028  exact h.2\n  exact h.1"),
    (SWAP, "\ufeff  exact ⟨h.2, h.1⟩"),
    (SWAP, "constructor\n  exact h.2\n  exact h.1"),
]

COMMENTED = [
    "theorem target : (2 : Nat) + 2 = 4 -- easy",
    "theorem target : (2 : Nat) + 2 = 4\n-- := by sorry /-",
    "theorem target : (2 : Nat) + 2 = 4\r\n  -- ∀ «\r\n",
    "/-- This lemma is theorem 1. -/\ntheorem target : (2 : Nat) + 2 = 4 /- -- -/",
]
"""`TRUE`, with comments that would swallow text behind them."""

EMPTY = ["", "\n", "  ", "  -- rfl", "/- rfl -/ -- /-\n", "\r\n-- rfl\r\n"]
"""No proofs of anything."""

_CARRIED = "theorem target (a : Nat) : a = a"
CARRYING = [
    *(
        _CARRIED + value
        for value in (
            " := by sorry",
            " := sorry",
            " := rfl",
            " := by\n  rfl",
            "\n:= by\n  rfl\n\n-- the end",
            " := rfl := foo",
            " := by",
            " :=",
            " := by -- TODO",
            " := by sorry -- TODO",
            " := rfl -- by definition",
            " := by\n  exact rfl\n#exit",
            " := by { rfl",
            # Our own `:=` would be read as a part of these proofs.
            " := by first | rfl | have h : False",
            " := helper where helper : a = a",
            " where",
            " where\n  proof := rfl",
        )
    ),
    "theorem target : (a : Nat) → a = a\n  | 0 => rfl\n  | a + 1 => rfl",
    "theorem target : (a : Nat) → a = a\n  | a => by",
    "instance target : Inhabited Nat where\n  default",
]
"""Texts that hold more than a statement."""

_ONES = "(1 : Nat) = 1"
TRUSTED_SYNTAX = [
    (f"@[simp] theorem t : {_ONES}", ""),
    (f"open Nat in\n@[simp, grind] theorem t : {_ONES}", ""),
    (f"set_option warn.sorry false in open Nat in /-- d -/ theorem t : {_ONES}", ""),
    (f"nonrec theorem t : {_ONES}", ""),
    (f"protected theorem t : {_ONES}", "namespace Outer"),
    (f"theorem t (h : {_ONES} := by native_decide) : {_ONES}", ""),
    ("theorem t : ‹1› = 1", 'notation "‹1›" => (1 : Nat)'),
    ("theorem t : one = 1", 'macro "one" : term => `((1 : Nat))'),
    ("theorem t : polyrith 1 = 1", "def polyrith (n : Nat) := n"),
    (
        f"claim t : {_ONES}",
        'macro "claim " n:ident ":" t:term ":=" v:term : command =>\n'
        "  `(theorem $n : $t := $v)",
    ),
]
"""Statements and headers whose syntax no submission may use; `rfl` proves them."""

NAMES = [
    ("theorem «a b» : True", "", "«a b»"),
    ("theorem «a b» : True", "", "a b"),
    ("theorem «a.b» : True", "", "«a.b»"),
    ("theorem «a b».c : True", "", "«a b».c"),
    ("theorem a.b : True", "", "a.b"),
    ("theorem «theorem» : True", "", "«theorem»"),
    ("theorem t.{u} (α : Type u) : True", "", "t"),
    ("theorem _root_.t : True", "namespace Outer", "_root_.t"),
    ("theorem _root_.t : True", "", "t"),
    ("theorem t : True", "namespace «x.y»", "t"),
]
"""Statements, headers, and names that find the theorem."""

OTHER_NAMES = [
    ("theorem «a.b» : True", "", "a.b"),
    ("theorem a.b : True", "", "«a.b»"),
    ("theorem _root_.t : True", "namespace Outer", "t"),
    ("private theorem t : True", "", "t"),
    # Theorems, but not this statement's.
    ("theorem t : True", "theorem other : True := trivial", "other"),
    ("theorem t : True", "", "Nat.add_comm"),
]
"""Names that find none."""

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
    "  simp (maxSteps := (ptrAddrUnsafe [1]).toNat)",
    "  exact target._auto_1 rfl",
    "  exact «_tmp» rfl",
    '  dbg_trace "x"; rfl',
    "  set_option maxRecDepth 0 in\n  exact?",
    "  set_option maxRecDepth /- deep -/ 999 in\n  exact?",
    "  set_option maxRecDepth\n0001000 in\n  exact?",
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
    '  have α!r := 1; have := α!r"\\" " unsafe "-- "',
    '  have := x.r"\\" " unsafe "-- "',
    '  have := #[1][0]\'"\' " unsafe " -- "',
    '  have := f \'\'"\' " unsafe " -- "',
    "  have : {x : Int //-x = 0} := ⟨0, rfl⟩; exact unsafe rfl",
    "  exact do let x <--1; unsafe rfl",
    '/--/ " -/ exact unsafe rfl -- "',
    '  have «a\n" » := 1; exact unsafe rfl; have := " »',
    "  exact rfl -- \n#eval 1",
    "  rfl /- -/ #eval 1",
    "  rfl\x00",
    "  rfl \ud800",
    "  " + "x" * 300_000,
]
"""For `FALSE`: refused by the textual scan."""

OWN_CODE = """  exact f 3
where
  own : Nat := (Task.spawn fun _ => 1000).get
  f (n : Nat) : (2 : Nat) + 2 = 4 :=
    have _h := own; if hn : n = 0 then rfl else f (n - 1)
  termination_by n
  decreasing_by
    have : True := by simp (maxSteps := target.own)
    omega
"""
"""Definitions beside a recursive one are constants while it is elaborated."""

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
    ("  simp (maxSteps := (ptrAddrUnsafe [1]).toNat)", "refused"),
    ("  simp (maxSteps := (fun x => x + 1) 5)", "refused"),
    (OWN_CODE, "refused"),
    ("  simp (maxSteps := 2 ^ 99999999999)", "refused"),
    ('  simp (maxSteps := "x")', "refused"),
    ("  simp (maxSteps := #[1][500000000])", "refused"),
    ("  attempt_all_par | rfl", "refused"),
    ("  set_option maxRecDepth 0 in\n  exact?", "refused"),
    ("  exact set_option maxRecDepth 0x3e8 in by exact?", "refused"),
    ("  have _auto_1 := 1\n  rfl", "refused"),
    ("  exact f 1\nwhere\n  f._tmp.x (n : Nat) : Nat := n\n", "refused"),
    ("  exact «_autoParam» 1\nwhere\n  «_autoParam» (n : Nat) : Nat := n\n", "refused"),
    ("  sorry\n#eval 1", "left_proof"),
    ("  sorry\ntheorem other : True := trivial", "left_proof"),
    ("  sorry\naxiom cheat : False", "left_proof"),
    ("  sorry\n#exit", "left_proof"),
    ("  sorry\nimport Init", "left_proof"),
]
"""Proofs of `FALSE` and the report's field that stops them without any scan."""


COMM = problem("theorem target (a b : Nat) : a + b = b + a")
DOUBLE = problem("theorem dbl (n : Nat) : dd n = n + n", "def dd (n : Nat) := n + n")
PROOF = "theorem target (a b : Nat) : a + b = b + a := by\n  omega\n"

CASE = "1 ≤ (match n with | 0 => 1 | k + 1 => k + 1)"
CASES = problem(f"theorem t (n : Nat) : {CASE}")
CASES_PROOF = f"theorem t (n : Nat) : {CASE} :="
AT = "xs[0]'(by omega)"

FILES = [
    (COMM, PROOF),
    (COMM, "import Init\n\n" + PROOF),
    (COMM, "theorem target : ∀ x y : Nat, x + y = y + x := Nat.add_comm"),
    (COMM, "theorem target {x y : Nat} : x + y = y + x := Nat.add_comm x y"),
    (COMM, "set_option maxHeartbeats 400000 in\n" + PROOF + "#print axioms target\n"),
    (COMM, "attribute [local simp] Nat.add_comm in\n" + PROOF + "section\n"),
    (COMM, "/-- Says it. -/\n@[simp] theorem help : 1 = 1 := rfl\n" + PROOF),
    (COMM, "#print axioms Nat.add_comm\n#check Nat\n" + PROOF),
    (COMM, "open Nat in\n" + PROOF),
    (COMM, "section\nvariable (x : Nat)\ntheorem id' : x = x := rfl\nend\n" + PROOF),
    (COMM, "set_option maxHeartbeats 400000\nset_option autoImplicit true\n" + PROOF),
    (
        COMM,
        "inductive Tree | leaf | node (l r : Tree)\n"
        "def Tree.size : Tree → Nat | leaf => 1 | node l r => l.size + r.size\n"
        "theorem Tree.pos (t : Tree) : 0 < t.size := by\n"
        "  induction t with\n"
        "  | leaf => simp [size]\n"
        "  | node l r hl hr => simp [size]; omega\n"
        "theorem target (a b : Nat) : a + b = b + a := by\n"
        "  have := Tree.pos .leaf\n  omega\n",
    ),
    (
        COMM,
        "mutual\ndef even : Nat → Bool | 0 => true | n + 1 => odd n\n"
        "def odd : Nat → Bool | 0 => false | n + 1 => even n\nend\n" + PROOF,
    ),
    (
        COMM,
        "structure P where\n  x : Nat\n  h : x = x := by rfl\nderiving DecidableEq\n"
        "instance : Inhabited P := ⟨{ x := 1 }⟩\n" + PROOF,
    ),
    (COMM, "theorem target (a b : Nat) : a + b = b + a := Nat.add_comm a b"),
    (
        COMM,
        "theorem same (n : Nat) (h : n = n := by rfl) : n = n := h\n"
        "theorem target (a b : Nat) : a + b = b + a := by\n"
        "  have := same 3\n  omega\n",
    ),
    (
        COMM,
        "theorem target (a b : Nat) : a + b = b + a := by\n"
        "  simp (config := { decide := true }) +arith (maxSteps := 1000)\n",
    ),
    (DOUBLE, "def dd (n : Nat) := n + n\ntheorem dbl (n : Nat) : dd n = n + n := rfl"),
    (DOUBLE, "theorem dbl (n : Nat) : dd n = n + n := by\n  rfl"),
    (DOUBLE, f"{DOUBLE.header}\r\n\r\n{DOUBLE.statement} := by\r\n  rfl\r\n"),
    (
        problem("theorem inner : True", "namespace Outer"),
        "theorem inner : True := trivial",
    ),
    (
        problem("theorem t : (match 1 with | 0 => 1 | _ => 2) = 2"),
        "theorem t : (match 1 with | 0 => 1 | _ => 2) = 2 := by rfl",
    ),
    (
        CASES,
        f"theorem help (n : Nat) : {CASE} := by cases n <;> simp\n{CASES_PROOF} help n",
    ),
    (
        CASES,
        f"def f (n : Nat) : Nat := {CASE[4:]}\n"
        "theorem help (n : Nat) : 1 ≤ f n := by cases n <;> simp [f]\n"
        f"{CASES_PROOF} help n",
    ),
    (
        problem(f"theorem t (xs : Array Nat) (h : xs.size = 3) : {AT} = {AT}"),
        f"theorem help (xs : Array Nat) (h : xs.size = 3) : {AT} = {AT} := rfl\n"
        f"theorem t (xs : Array Nat) (h : xs.size = 3) : {AT} = {AT} := rfl",
    ),
    (
        problem("theorem u.{v} (α : Type v) (a : α) : a = a"),
        "theorem u.{v} (α : Type v) (a : α) : a = a := rfl",
    ),
]
"""Problems with texts of whole files that prove them."""

HIDDEN_CODE = {
    path.name: (FALSE, WholeFile(text) if ".file." in path.name else text)
    for path in sorted(Path(__file__).with_name("attacks").iterdir())
    for text in [path.read_text()]
}
"""Attempts to have Lean run code of the submission while it elaborates: syntax trees
made by hand as the tactic block of an automatic parameter, terms that a coercion brings
into a configuration, an index out of bounds there, a configuration's type of its own.
Each of them worked once."""

_FOUR_TIMES = "(fun f x => f (f (f (f x))))"
VALUES = {
    Status.VERIFIED: [
        "5000",
        "20 ^ 3",
        "(5000, true).1",
        "Nat.succ 5000",
        "USize.size",
    ],
    Status.REJECTED: [
        "own",
        "(Own.mk 5000).x",
        "2 ^ 99999999999",
        "9 ^ 9 ^ 9 ^ 9",
        "2 ^ USize.size",
        "let n := 99999999999; 2 ^ n",
        "2 ^ (99999999999, true).1",
        "Pow.pow 2 99999999999",
        "@OfNat.ofNat Nat 5 (OfNat.mk (2 ^ 99999999999))",
        "2 ^ (@OfNat.ofNat Nat 5 (OfNat.mk 99999999999))",
        "@OfNat.ofNat (Nat → Nat) 5 ⟨HPow.hPow 2⟩ 99999999999",
        "(Array.mkEmpty (α := Nat) 99999999999, 5).2",
        "(HPow.mk (α := Nat) (β := Nat) (γ := Nat) fun x _ => x).1 3 4",
        "(show (((Nat → Nat) → Nat → Nat) → (Nat → Nat) → Nat → Nat) from "
        f"{_FOUR_TIMES})"
        f" {_FOUR_TIMES} Nat.succ 5000",
        "(Thunk.mk fun _ => 5000).fn ()",
        "@Thunk.fn Nat (@Task.get (Thunk Nat) (Task.pure (Thunk.mk fun _ => 5000))) ()",
        "(Task.pure 5000).get",
        "(@Prod.mk Float Nat (Float.mk floatSpec.val) 5000).2",
        "(floatSpec.decLt floatSpec.val floatSpec.val, 5000).2",
    ],
}
"""Terms that a coercion brings into a configuration, and what becomes of the proof:
those that are plain data are compiled."""


def with_value(term: str) -> WholeFile:
    """A file that proves `TRUE` with this number in a configuration."""
    return WholeFile(
        "structure Own where\n  x : Nat := 5000\n"
        "def own : Nat := 5000\n"
        f"instance : CoeDep Bool true Nat := ⟨{term}⟩\n"
        "theorem target : (2 : Nat) + 2 = 4 := by simp (maxSteps := true)\n"
    )


MATCH = problem("theorem t : (match 0 with | 0 => 1 | _ => 2) = 2")
OWN_MATCH = """
def t.match_1.{u} (motive : Nat → Sort u) (x : Nat) (one : Unit → motive 0)
    (two : (n : Nat) → motive n) : motive x := two x
theorem t : (let_mvar% ?m := (0 : Nat); (by
    exact t.match_1 (fun (_ : Nat) => Nat)
      (0 : Nat) (fun (_ : Unit) => (1 : Nat)) (fun (_ : Nat) => (2 : Nat)))) =
    (2 : Nat) := rfl
"""
"""The type reads like the false statement's, but its `match` is another one."""

FALSE_FILES = {
    Status.REJECTED: [
        "",
        "theorem other : True := trivial",
        "theorem target : True := trivial",
        "def target : (2 : Nat) + 2 = 5 := sorry",
        "theorem target : (2 : Nat) + 2 = 5 := by\n  sorry",
        "theorem target : (2 : Nat) + 2 = 5 := by\n  rfl",
        "axiom cheat : False\ntheorem target : (2 : Nat) + 2 = 5 := cheat.elim",
        "axiom target : (2 : Nat) + 2 = 5",
        "namespace X\naxiom target : (2 : Nat) + 2 = 5\nend X\nexport X (target)",
        "import Mathlib\ntheorem target : (2 : Nat) + 2 = 5 := by\n  norm_num",
        "def Nat.add := 1\ntheorem target : (2 : Nat) + 2 = 5 := rfl",
        "theorem help : 1 = 2 := by rfl\ntheorem target : (2 : Nat) + 2 = 4 := rfl",
        "instance (priority := 9999) : OfNat Nat 5 := ⟨4⟩\n"
        "theorem target : (2 : Nat) + 2 = 5 := rfl",
        "namespace Nat\ninductive False : Prop | intro\nend Nat\nopen Nat\n"
        "theorem target : (2 : Nat) + 2 = 5 := (False.intro).elim",
        "variable (h : False)\ninclude h\ntheorem target : (2 : Nat) + 2 = 5 := h.elim",
        "theorem target {h : False} : (2 : Nat) + 2 = 5 := h.elim",
        "theorem target.{u} : (2 : Nat) + 2 = 5 := by\n  sorry",
        "opaque h : False\ntheorem target : (2 : Nat) + 2 = 5 := h.elim",
        "partial def loop (n : Nat) : False := loop n\n"
        "theorem target : (2 : Nat) + 2 = 5 := (loop 0).elim",
        "theorem target : (2 : Nat) + 2 = 5 := target",
        "private theorem target : (2 : Nat) + 2 = 4 := rfl",
    ],
    Status.UNSAFE: [
        'macro "cheat" : tactic => `(tactic| sorry)\n'
        "theorem target : (2 : Nat) + 2 = 5 := by cheat",
        'notation "five" => 4\ntheorem target : (2 : Nat) + 2 = 5 := rfl',
        'local infixl:65 " + " => fun _ _ => 5\n'
        "theorem target : (2 : Nat) + 2 = 5 := rfl",
        "prelude\ninductive Nat | z\ntheorem target : True := trivial",
        'import Lean\nopen Lean\nrun_cmd logInfo m!"x"',
        "#eval 1",
        "#exit\ntheorem target : (2 : Nat) + 2 = 5 := sorry",
        "mutual\n#eval 1\nend",
        "open Nat in #eval 1",
        '@[extern "exit"] opaque quit : Unit → Unit',
        "def f : Nat := 1\n@[implemented_by f] def g : Nat := 2",
        "attribute [implemented_by Nat.succ] Nat.pred",
        "@[csimp] theorem x : @Nat.add = @Nat.add := rfl",
        "unsafe def f : False := f",
        "set_option debug.skipKernelTC true\n"
        "theorem target : (2 : Nat) + 2 = 5 := by decide +kernel",
        "#guard_msgs (drop error) in\ntheorem target : (2 : Nat) + 2 = 5 := rfl",
        "initialize x : Nat ← pure 1",
        "simproc s (_ + _) := fun _ => return .continue",
        'elab "x" : term => return .const ``Nat []',
        "theorem target : (2 : Nat) + 2 = 5 := by native_decide",
        "open Lean Elab Tactic\ntheorem target : (2 : Nat) + 2 = 5 := rfl",
        "namespace A.import\nend A.import\nopen A.import Lean",
        # Lean reports an error and reads on inside.
        "theorem a : True := trivial\n/- #eval 1",
        'theorem a : True := trivial\n#check "\n#eval 1',
        'theorem a : True := trivial\n#check "\\q\n#eval 1\n"',
        'theorem a : True := trivial\n#check r#"\n#eval 1',
        "theorem a : True := trivial\n#check «\n#eval 1",
        'theorem a : True := trivial\n#check \'\\x4"\' "\n#eval 1\n"',
    ],
}
"""Files for `FALSE`, refused by the scan or rejected by Lean."""

FILES_BEHIND_THE_SCAN = [
    "def c : Nat := 3\ntheorem target : (2 : Nat) + 2 = 5 := by simp (maxSteps := c)",
    "def c : Lean.Meta.Simp.Config := {}\n"
    "theorem target : (2 : Nat) + 2 = 5 := by simp (config := c)",
]
"""Files for `FALSE` that only the checker refuses."""
