structure «Lean».Meta.SolveByElim.SolveByElimConfig where
  toApplyRulesConfig : Nat := 1099511627776
  backtracking : Nat := 3
  intro : Bool := true
theorem go : (2 : Nat) + 2 = 4 := by solve_by_elim +intro
theorem target : (2 : Nat) + 2 = 5 := by sorry
