import Init.Data.List.Basic

/-! Theorems in every shape that a trace can hold. -/

set_option autoImplicit false

namespace Shapes

variable {α : Type} (n : Nat)

/-- Its proof starts on a line of its own. -/
@[simp] theorem add_zero_twice : n + 0 + 0 = n := by
  -- a comment
  show n + 0 = n
  exact Nat.add_zero n

theorem one_line (p q : Prop) (h : p ∧ q) : q ∧ p := by exact ⟨h.2, h.1⟩

theorem term : 0 + n = n := Nat.zero_add n

theorem long_term (p q r : Prop) (f : p → q) (g : q → r) : p → r := fun x =>
  g (f x)

private theorem hidden (a b : Nat) (h : a ≤ b) :
    a ≤ b + 1 := by
  have step : b ≤ b + 1 := Nat.le_succ b
  cases h with
  | refl => exact step
  | step _ => exact Nat.le_trans ‹_› (by
      omega)

protected theorem uses_hidden (a : Nat) : a ≤ a + 1 := hidden a a (Nat.le_refl a)

open List in
set_option maxRecDepth 2000 in
theorem in_command (l : List α) : (l ++ nil).length = l.length := by
  simp only [append_nil]

nonrec theorem Nat.succ_pos (k : Nat) : 0 < k.succ := Nat.succ_pos k

theorem by_cases_of : (k : Nat) → k = k
  | 0 => rfl
  | _ + 1 => rfl

theorem iff_self_of (p : Prop) : p ↔ p where
  mp h := h
  mpr h := h

theorem with_where : 2 = 1 + 1 := helper
where
  helper : 2 = 1 + 1 := rfl

mutual
theorem first : (1 : Nat) = 1 := rfl
end

theorem «two words» : (1 : Nat) = 1 := rfl

theorem _root_.outside : (1 : Nat) = 1 := rfl

end Shapes

theorem Shapes.after (x y : Nat) : x + y = y + x := by
  simp [Nat.add_comm,
    Shapes.term]
