"""New project files: every setting with its comment, made from the types, so that none is missing or out of date."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from copy import copy
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic.fields import FieldInfo

from boatyard import plugins
from boatyard.errors import ConfigError
from boatyard.project import FILE, Project, ResourcesConfig, Section

SCHEMA = "boatyard.schema.json"
SAMPLE = "digits.npz"
MISSING: Any = object()
HEAD = """\
# yaml-language-server: $schema=./{schema}
# A Boatyard project. Lines that begin with # are settings at their defaults: take the # away to set one.
# `boatyard check` says what is wrong, `boatyard run` goes from the data to a package.
"""


def write(folder: Path, data: Path | None = None) -> Path:
    """Write a new project file into a folder, for the data given or for a small sample that is copied beside it.

    Raises ConfigError when there is a project file already, or when the data is of no known kind.
    """
    file = folder / FILE
    if file.exists():
        raise ConfigError(f"{file} is there already", fix="edit it, or choose another folder")
    values = guess(data, folder) if data else sample()
    folder.mkdir(parents=True, exist_ok=True)
    if data is None:
        with resources.as_file(resources.files("boatyard.project") / "samples" / SAMPLE) as source:
            shutil.copyfile(source, folder / SAMPLE)
    with resources.as_file(resources.files("boatyard.project") / SCHEMA) as source:
        shutil.copyfile(source, folder / SCHEMA)
    file.write_text(render(values), encoding="utf-8")
    return file


def sample() -> dict[str, Any]:
    """Return the project of the sample: 1797 small images of digits, learnt in seconds."""
    return {
        "name": "digits",
        "description": "Which digit is on an 8×8 image?",
        "task": "classification",
        "data": {"source": "npz", "path": SAMPLE, "features": ["image"], "target": "label"},
        "preprocess": {"split": {"train": 0.6, "validation": 0.2, "test": 0.2}},
        "train": {"recipe": "cnn", "model": {"blocks": [16, 32]}, "epochs": 20, "learning_rate": 0.003},
        "gate": {"minimum": {"accuracy": 0.9}},
    }


def guess(data: Path, folder: Path) -> dict[str, Any]:
    """Return a project for data of one's own: the source is seen, the rest is for the author to fill in."""
    source = source_of(data)
    inside = data.absolute().is_relative_to(folder.absolute())  # a project that is moved takes its data with it
    path = str(data.absolute().relative_to(folder.absolute()) if inside else data.absolute())
    return {
        "name": "model",
        "description": "",
        "task": "classification",
        "data": {"source": source.name, "path": path, "target": "label"},
        "preprocess": dict(source.suggested),
        "train": {"recipe": "cnn" if source.pictures else "mlp", "epochs": 10},
        "gate": {"minimum": {"accuracy": 0.8}},
    }


def source_of(data: Path) -> Any:
    """Return the source that a file or folder is of, by the names of its files; raises ConfigError."""
    if not data.exists():
        raise ConfigError(f"no data at {data}")
    files = [data] if data.is_file() else sorted(p for p in data.rglob("*") if p.is_file())
    names = [file.name.lower().removesuffix(".gz") for file in files]
    sources = sorted((plugins.load("sources", name) for name in plugins.names("sources")), key=lambda s: s.precedence)
    for source in sources:
        if source.recognises(names):
            return source
    listed = ", ".join(source.name for source in sources)
    raise ConfigError(f"{data}: expected files of a source: {listed}", fix=f"found {names[:3] or 'nothing'}")


def render(values: Mapping[str, Any]) -> str:
    """Return a project file's text: what is given as it is, every other setting as a comment with its default."""
    lines = [HEAD.format(schema=SCHEMA)]
    for key, field in Project.model_fields.items():
        lines += [f"# {field.description}"] if field.description else []
        lines += [*_entry(key, field, values.get(key, MISSING), "", note=False), ""]
    return "\n".join(lines)


def _entry(key: str, field: FieldInfo, value: Any, pad: str, *, note: bool = True) -> Iterator[str]:
    """Write one key: a section with its keys below it, a setting with its default and what it is."""
    default = None if field.is_required() else field.get_default()
    section = type(default) if isinstance(default, Section) else _required_section(field)
    given = value is not MISSING
    if section is None:
        shown = value if given else list(default) if isinstance(default, tuple) else default
        yield f"{pad}{'' if given else '# '}{key}: {_yaml(shown)}" + (f"  # {field.description}" if note else "")
        return
    below = [*_below(section, default, value if given else {}, f"{pad}  ")]
    yield f"{pad}{key}:" if given else f"{pad}# {key}:"
    yield from below if given else (f"{pad}# {line.replace('# ', '', 1)[len(pad) :]}" for line in below)


def _below(section: type[Section], default: Any, values: Mapping[str, Any], pad: str) -> Iterator[str]:
    """Write a section's keys, their defaults as this place has them; of steps that are alike, train stands for all."""
    for key, field in section.model_fields.items():
        if section is ResourcesConfig and key != "train" and key not in values:
            continue
        here = copy(field)
        if isinstance(default, Section):
            here.default = getattr(default, key)
        yield from _entry(key, here, values.get(key, MISSING), pad)


def _required_section(field: FieldInfo) -> type[Section] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1000).strip().removesuffix("\n...")
