"""The embedded Lean: installed, hosted by JavaScript of ours, asked."""
