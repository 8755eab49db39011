"""What a verified package is, for people and for programs."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from boatyard.errors import ConfigError
from boatyard.packages.verifying import Package

SHADES = " .:-=+*#%@"


def describe(package: Package) -> dict[str, Any]:
    """Return what a package is as JSON values: inputs, labels, metrics, verdict, lineage, files."""
    return {
        "name": package.name,
        "digest": package.digest,
        "path": str(package.path),
        "task": package.task,
        "inputs": [{"name": t.name, "dtype": t.dtype, "shape": [-1, *t.shape]} for t in package.schema.tensors()],
        "labels": list(package.labels),
        "golden": len(package.golden),
        "metrics": _metrics(package),
        "verdict": package.verdict.get("sentence", ""),
        "lineage": package.lineage,
        "bytes": sum(file.bytes for file in package.files),
        "needs": package.needs.to_dict(),
        "files": {file.path: file.sha256 for file in package.files},
        "roles": {file.path: file.role for file in package.files},
    }


def text(package: Package) -> str:
    """Return what a package is in a few lines."""
    about = describe(package)
    shown = ", ".join(package.labels[:12]) + (f" … {len(package.labels)} in all" if len(package.labels) > 12 else "")
    inputs = ", ".join(f"{i['name']} {i['dtype']} {i['shape']}" for i in about["inputs"][:6])
    more = f", … {len(about['inputs'])} in all" if len(about["inputs"]) > 6 else ""
    lines = {
        "package": f"{package.name}, {package.task}",
        "digest": package.digest,
        "input": inputs + more,
        "labels": shown,
        **{name: value for name, value in about["metrics"].items()},
        "verdict": about["verdict"],
        "needs": "; ".join(f"{key} {_listed(value)}" for key, value in about["needs"].items()),
        "dataset": package.lineage.get("dataset", ""),
        "files": f"{len(package.files)}, {about['bytes'] / 1e6:.2f} MB in {package.path}",
    }
    return "\n".join(f"{key:<10} {value}" for key, value in lines.items() if value)


def question(package: Package, number: int) -> Any:
    """Return golden example `number` as a V1 instance, an image as nested lists; raises ConfigError."""
    if not 0 <= number < len(package.golden):
        raise ConfigError(f"no reference row {number}", fix=f"{package.name} has {len(package.golden)}, counted from 0")
    if package.schema.alone and package.schema.pictured:
        return package.golden.inputs[package.schema.alone.name][number].tolist()
    return package.golden.instances[number]


def picture(package: Package, number: int) -> str:
    """Show golden example `number` as a person would look at it: an image drawn in characters, a row as JSON."""
    asked = question(package, number)
    if not package.schema.pictured:
        return json.dumps(asked)
    image = np.asarray(package.golden.inputs[package.schema.pictured.name][number], np.float64)
    grey = image.mean(2) if image.ndim == 3 else image
    step = max(1, -(-grey.shape[1] // 56))
    grey = grey[:: 2 * step, ::step] if grey.shape[0] > 10 else grey
    low, span = grey.min(), max(float(np.ptp(grey)), 1e-9)
    rows = ((grey - low) / span * (len(SHADES) - 1)).round().astype(int)
    return "\n" + "\n".join("    " + "".join(SHADES[shade] for shade in row) for row in rows)


def _metrics(package: Package) -> dict[str, str]:
    """Return the report's main numbers with their intervals, as it words them."""
    found = {
        name: value for name, value in package.report.get("metrics", {}).items() if name in ("accuracy", "rmse", "r2")
    }
    return {name: _worded(value) for name, value in found.items()}


def _listed(value: Any) -> str:
    return value if isinstance(value, str) else ", ".join(value)


def _worded(metric: dict[str, Any]) -> str:
    value, low, high = (metric.get(key) for key in ("value", "low", "high"))
    interval = f" [{low:.4f}, {high:.4f}] {metric.get('method', '')}" if low is not None and high is not None else ""
    return f"{value:.4f}{interval}" if value is not None else "not a number"
