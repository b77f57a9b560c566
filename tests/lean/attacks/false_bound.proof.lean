  exact f 3
where
  bad (a b : Nat) : a < b := sorry
  f (n : Nat) : (2 : Nat) + 2 = 4 := if hn : n = 0 then rfl else f (n - 1)
  termination_by n
  decreasing_by
    have : True := by simp (maxSteps := (if 1 = 2 then #[1, 2] else .set #[1] 300000000 5 (show _ by exact?))[0]'(show _ by exact?))
    omega