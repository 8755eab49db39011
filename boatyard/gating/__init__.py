"""Gate: hold a report against the rules that were written down before training, and against production."""

from boatyard.gating.gate import Rule, Verdict, error_growth, gate, not_worse_errors, not_worse_rows

__all__ = ["Rule", "Verdict", "error_growth", "gate", "not_worse_errors", "not_worse_rows"]
