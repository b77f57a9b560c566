axiom bad (a b : Type) : a = b
noncomputable instance : CoeDep Bool true Nat := ⟨match (IO.Process.exit 0 : IO Nat) (cast (bad Unit (Void IO.RealWorld)) ()) with | .ok _ _ => 1000 | .error _ _ => 2000⟩
theorem target : (2 : Nat) + 2 = 4 := by
  have : True := by simp (maxSteps := true)
  rfl
