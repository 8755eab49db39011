"""Lineage: what a package was made of, as digests of data, code and project and the versions that ran."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from boatyard.data import artifacts
from boatyard.machine import vector_instructions
from boatyard.project import (
    DataConfig,
    EvaluateConfig,
    GateConfig,
    PreprocessConfig,
    PushConfig,
    Section,
    TrainConfig,
    section,
)
from boatyard.provenance import Code
from boatyard.provenance.code import project_files

LIBRARIES = ("torch", "numpy", "onnx", "onnxruntime", "pyarrow", "pillow", "safetensors")
BESIDE = ("components", "pipelines", "serving")  # beside the library in a tree, within it where it is installed
SECTIONS: dict[str, type[Section]] = {
    "data": DataConfig,
    "preprocess": PreprocessConfig,
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "gate": GateConfig,
    "push": PushConfig,
}


def made(code: Code | None = None, **sections: Any) -> dict[str, Any]:
    """Say how an artifact is being made: by which sections of the project, which code, on what machine.

    Nothing of the time or of the machine's paths is in it. `code` is what the project or plug-ins bring.
    """
    own = code or Code()
    library = code_digest()
    return {
        "sections": {key: value.values() if isinstance(value, Section) else value for key, value in sections.items()},
        "code": {
            "digest": artifacts.digest_json([library, own.files, own.distributions]),
            "boatyard": library,
            "files": own.files,
            "distributions": own.distributions,
        },
        "environment": {**environment(), **machine()},
    }


def lineage(
    project: Mapping[str, Any], dataset: str, source: Mapping[str, Any], made: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Say what a package was made of, from what its artifacts say of themselves: `made` has what each of them says.

    Environment and code are those that trained. `project` says what artifacts of earlier versions leave out.
    """
    said = {name: value for name, value in (made or {}).items() if value}
    sections = {key: section for value in said.values() for key, section in value.get("sections", {}).items()}
    trained = said.get("checkpoint", {})
    return {
        "project": _canonical({**project, **sections}),
        "dataset": dataset,
        "source": dict(source),
        "code": trained.get("code", {}).get("digest", ""),
        "environment": trained.get("environment", {}),
        "made": {name: {key: about[key] for key in about if key != "sections"} for name, about in said.items()},
    }


def _canonical(project: Mapping[str, Any]) -> dict[str, Any]:
    """Return a project's values in the project file's order and types: a pipeline's parameters keep neither."""
    return {
        key: section(SECTIONS[key], project[key]).values() if key in SECTIONS else project[key]
        for key in ("name", "task", *SECTIONS)
        if key in project
    }


def machine() -> dict[str, Any]:
    """Return what bits of a result may depend on beside versions: image, vector instructions, number of threads."""
    from boatyard.settings import Settings  # takes a tenth of a second to import

    settings = Settings()
    image = settings.image if "image" in settings.model_fields_set else ""
    return {"image": image, "cpu": list(vector_instructions()), "threads": settings.threads}


def environment() -> dict[str, str]:
    """Return the versions of Python, the machine's kind and the libraries that results depend on."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for library in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[library] = metadata.version(library)
    return found


def code_digest(*folders: Path) -> str:
    """Return one digest of the library's Python sources, and of those in further folders and the packages below.

    It is the same of a tree and of what is installed of it.
    """
    library = Path(__file__).parents[1]
    files = (file for file in library.rglob("*.py") if file.relative_to(library).parts[0] not in BESIDE)
    sources = {f"boatyard/{file.relative_to(library).as_posix()}": file for file in files}
    digests = {name: artifacts.digest_file(file) for name, file in sorted(sources.items())}
    for number, folder in enumerate(folders):
        digests |= {f"{number}/{name}": digest for name, digest in source_digests(folder).items()}
    return artifacts.digest_json(digests)


def source_digests(folder: Path) -> dict[str, str]:
    """Return the digests of the Python sources in a project's folder and the packages below, by path."""
    sources = (Path(file) for file in project_files(folder) if file.endswith(".py"))
    return {file.relative_to(folder).as_posix(): artifacts.digest_file(file) for file in sorted(sources)}
