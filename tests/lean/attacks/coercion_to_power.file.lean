instance : CoeDep Bool true Nat := ⟨2 ^ 99999999999⟩
theorem target : (2 : Nat) + 2 = 4 := by simp (maxSteps := true)
