open «Lean»
def nm (s : String) : Name := .str (.str (.str (.str .anonymous "Lean") "Parser") "Tactic") s
def at' (s : String) : Syntax := .atom .none s
def nl (a : Array Syntax) : Syntax := .node .none (.str .anonymous "null") a
def tn (s : String) (a : Array Syntax) : Syntax := .node .none (nm s) a
def ti (s : String) : Syntax := .ident .none ⟨s, ⟨0⟩, ⟨0⟩⟩ (.str .anonymous s) []
def app (f x : Syntax) : Syntax := .node .none (.str (.str (.str (.str .anonymous "Lean") "Parser") "Term") "app") #[f, nl #[x]]
def seq (t : Syntax) : Syntax := tn "tacticSeq" #[tn "tacticSeq1Indented" #[nl #[t]]]
def simpWith (v : Syntax) : Syntax := tn "simp" #[at' "simp", tn "optConfig" #[nl #[tn "configItem" #[tn "valConfigItem" #[at' "(", ti "maxSteps", at' ":=", v, at' ")"]]]], nl #[], nl #[], nl #[], nl #[]]

def trm (s : String) (a : Array Syntax) : Syntax := .node .none (.str (.str (.str (.str .anonymous "Lean") "Parser") "Term") s) a
namespace «Lean»
inductive Lit | natVal (n : Int) | strVal (s : String)
inductive Expr | c0 (n : Nat) | c1 (n : Nat) | c2 (n : Nat) | c3 (n : Nat) | c4 (n : Nat) | c5 (n : Nat) | c6 (n : Nat) | c7 (n : Nat) | c8 (n : Nat) | lit (l : Lit) (data : UInt64) | c10 (n : Nat) | c11 (n : Nat)
def Elab.Term.TermElabM (α : Type) : Type := Nat → Nat → Nat → Nat → Nat → Nat → IO α
instance : Monad Elab.Term.TermElabM where
  pure a := fun _ _ _ _ _ _ w => .ok a w
  bind x f := fun a b c d e g w => match x a b c d e g w with
    | .ok v w => f v a b c d e g w
    | .error e w => .error e w
end «Lean»
def big : Nat := 1500000000
def own : «Lean».Elab.Term.TermElabM Expr := fun _ _ _ _ _ _ w => .ok (.lit (.natVal (Int.ofNat big)) 77) w
def evil : Syntax := seq (tn "exact" #[at' "exact", (fun a => Syntax.node .none (.str (.str .anonymous "Lean") ("by" ++ "Elab")) a) #[at' ("by" ++ "_elab"), trm "doSeqIndent" #[nl #[trm "doSeqItem" #[trm "doExpr" #[ti "own"], nl #[]]]]]])
def helper (x : autoParam Nat evil) : Nat := x
def n0 : Nat := helper
theorem a : 1500000001 ≤ n0 := by decide +kernel
theorem b : n0 - 1500000000 = 0 := by decide +kernel
theorem target : (2 : Nat) + 2 = 5 := by
  have := a
  have := b
  omega
