"""The column that is predicted: a label of a few, or a number."""

from __future__ import annotations


class Target:
    """How the column that is predicted is read, kept and told."""


class LabelTarget(Target):
    """One of two labels or more, kept as its index in the order of the schema's labels."""


class NumberTarget(Target):
    """A finite number, kept as float32."""
