"""Ways to reach a Lean that is not embedded."""
