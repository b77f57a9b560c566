  exact f 3
where
  nm (s : String) : Lean.Name := .str (.str (.str (.str .anonymous "Lean") "Parser") "Tactic") s
  at' (s : String) : Lean.Syntax := .atom .none s
  nl (a : Array Lean.Syntax) : Lean.Syntax := .node .none (.str .anonymous "null") a
  tn (s : String) (a : Array Lean.Syntax) : Lean.Syntax := .node .none (nm s) a
  ti (s : Lean.Name) : Lean.Syntax := .ident .none ⟨"x", ⟨0⟩, ⟨0⟩⟩ s []
  tg (s : String) : Lean.Syntax := ti (.str (.str .anonymous "target") s)
  app (f : Lean.Syntax) (xs : Array Lean.Syntax) : Lean.Syntax := .node .none (.str (.str (.str (.str .anonymous "Lean") "Parser") "Term") "app") #[f, nl xs]
  big : Nat := 5000000000
  own2 : IO.Ref Nat → BaseIO Nat := fun r w => match ST.Prim.Ref.set r 128 w with | .mk _ w => .mk 1000 w
  call (f : Nat → Nat → Nat) (p : USize) : Nat := f ((p.toNat + 2) / 2) 0
  evil : Lean.Syntax := tn "tacticSeq" #[tn "tacticSeq1Indented" #[nl #[tn "simp" #[at' "simp", tn "optConfig" #[nl #[tn "configItem" #[tn "valConfigItem" #[at' "(", ti (.str .anonymous "maxSteps"), at' ":=", app (tg "call") #[app (ti (.str .anonymous ("unsafe" ++ "Cast"))) #[tg "own2"], app (ti (.str .anonymous "ptrAddrUnsafe")) #[tg "big"]], at' ")"]]]], nl #[], nl #[], nl #[], nl #[]]]]]
  f (n : Nat) : (2 : Nat) + 2 = 5 := have _h := evil; have _h := own2; have _h := call; have _h := big; f (n + 1)
  termination_by n
  decreasing_by
    have g : (x : autoParam (2 + 2 = 4) target.evil) → 2 + 2 = 4 := fun x => x
    have k : 2 + 2 = 4 := g
    have a : 705032705 ≤ target.big := by decide +kernel
    have b : target.big - 705032704 = 0 := by decide +kernel
    generalize target.big = x at a b
    omega