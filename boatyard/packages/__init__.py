"""A package: ONNX model, weights, schema, reference outputs, report and lineage; `package.json` binds every byte by
sha256.

Immutable, and without a time in it: when it was pushed is the registry's to say. Nothing loads before it verifies.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from boatyard.packages.manifest import MANIFEST, Needs

if TYPE_CHECKING:
    from boatyard.packages.describing import describe, picture, question, text
    from boatyard.packages.fetching import fetch
    from boatyard.packages.packing import pack
    from boatyard.packages.trust import PackageClaims, Trust
    from boatyard.packages.verifying import Golden, Package, differences, verify

_MODULES = {  # imported when they are asked for: the initializer needs none of them
    "describing": ("describe", "picture", "question", "text"),
    "fetching": ("fetch",),
    "packing": ("pack",),
    "trust": ("PackageClaims", "Trust"),
    "verifying": ("Golden", "Package", "differences", "verify"),
}

__all__ = [
    "MANIFEST",
    "Golden",
    "Needs",
    "Package",
    "PackageClaims",
    "Trust",
    "describe",
    "differences",
    "fetch",
    "pack",
    "picture",
    "question",
    "text",
    "verify",
]


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"boatyard.packages.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
