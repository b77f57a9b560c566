"""Rows of samples.jsonl for tests of the report."""

HOSTILE = "</script><img src=x onerror=alert(1)><!-- <script>"


def sample(**changes):
    row = {
        "arm": "fd",
        "step": 1,
        "problem": "swap",
        "statement": "theorem swap (p q : Prop) (h : p ∧ q) : q ∧ p",
        "proof": "  constructor\n  exact h.1",
        "status": "rejected",
        "messages": [
            {
                "severity": "error",
                "line": 2,
                "column": 8,
                "end_line": 2,
                "end_column": 11,
                "text": "type mismatch",
            }
        ],
        "feedback": "h.1 proves p",
        "reward": 0.0,
        "tokens": ["  constructor", "\n  ", "exact", " h.1", ""],
        "kl": [0.25, None, 0.5, 2.0, None],
        "log_ratio": [3.0, None, -1.5, -4.0, None],
    }
    return {**row, **changes}
