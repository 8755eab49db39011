"""Gate: hold a report against the rules that were written down before training, and against production."""

from boatyard.gating.gate import gate
from boatyard.gating.noninferiority import error_growth, not_worse_errors, not_worse_rows
from boatyard.gating.verdicts import Rule, Verdict

__all__ = ["Rule", "Verdict", "error_growth", "gate", "not_worse_errors", "not_worse_rows"]
