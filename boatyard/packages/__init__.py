"""A package: graph, weights, schema, golden examples, report and lineage; `package.json` binds every byte by sha256.

Immutable, and without a time in it: when it was pushed is the registry's to say. Nothing loads before it verifies.
"""

from boatyard.packages.describing import describe, picture, question, text
from boatyard.packages.fetching import fetch
from boatyard.packages.packing import pack
from boatyard.packages.verifying import NAME, Golden, Package, differences, verify

__all__ = [
    "NAME",
    "Golden",
    "Package",
    "describe",
    "differences",
    "fetch",
    "pack",
    "picture",
    "question",
    "text",
    "verify",
]
