"""Write docs/project-file.md and docs/environment.md, made from the types; `make schema` calls it."""

from __future__ import annotations

from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

from boatyard import plugins
from boatyard.project import PluginName, Project, Section
from boatyard.settings import Settings

HEAD = """\
# The project file, `boatyard.yaml`

Made from the types by `make schema`; do not edit. Defaults < file < `--set train.epochs=3`. A key that is not in this
list is an error that names its path. `boatyard init` writes a file with all of them as comments, and a JSON schema for
editors beside it.
"""


ENVIRONMENT = """\
# Environment variables

Made from the types by `make schema`; do not edit. The [project file](project-file.md) says what to do, these say where
things are. A variable with a wrong value, or one of `BOATYARD_…` that is set to nothing, ends a command, a step or a
server with one line that names it.

| variable | default | what it is |
|---|---|---|
"""


def environment() -> str:
    """Return the table of the environment variables that are read, in the order of the settings."""
    rows = []
    for field in Settings.model_fields.values():
        names = " or ".join(f"`{name}`" for name in field.validation_alias.choices)
        value = "" if field.default in (None, "", Path()) else f"`{field.default}`"
        rows.append(f"| {names} | {value} | {field.description} |\n")
    return (
        ENVIRONMENT
        + "".join(rows)
        + ("\nThe keys of an S3 store, and how its own tools name them, are in [storage](storage.md).\n")
    )


def page() -> str:
    """Return the reference: a table for each section, in the order of the work."""
    return HEAD + "".join(section("", Project, Project.__doc__ or ""))


def section(path: str, kind: type[Section], text: str) -> list[str]:
    """Return a section's heading and table, followed by those of the sections in it."""
    title = f"`{path}`" if path else "top level"
    rows, inner = [], []
    for key, field in kind.model_fields.items():
        below = nested(field)
        rows.append(f"| `{key}` | {kind_of(field, below)} | {default(field, below)} | {field.description or ''} |\n")
        if below and not seen(path, below):
            inner += section(f"{path}.{key}".lstrip("."), below, below.__doc__ or "")
    table = ["\n| key | value | default | what it is |\n|---|---|---|---|\n", *rows]
    return [f"\n## {title}\n\n{' '.join(text.split())}\n", *table, *inner]


SHOWN: set[tuple[str, str]] = set()


def seen(path: str, below: type[Section]) -> bool:
    """Say whether the steps of `resources`, which are alike, were shown already."""
    key = (path.split(".")[0], below.__name__)
    known = path == "resources" and key in SHOWN
    SHOWN.add(key)
    return known


def nested(field: FieldInfo) -> type[Section] | None:
    """Return the section that a key holds, None for a setting."""
    annotation: Any = field.annotation
    options = [annotation, *(get_args(annotation) if getattr(annotation, "__origin__", None) not in (dict,) else ())]
    return next((o for o in options if isinstance(o, type) and issubclass(o, Section)), None)


def kind_of(field: FieldInfo, below: type[Section] | None) -> str:
    """Say what a key's value is, in words."""
    if below and get_origin(field.annotation) is tuple:
        return f"list of {', '.join(below.model_fields)}"
    if below:
        return "section"
    for mark in field.metadata:
        if isinstance(mark, PluginName):
            return offered(mark)
    return words(field.annotation)


def offered(mark: PluginName) -> str:
    """Say which names of plug-ins are built in."""
    return " or ".join([*(f"`{name}`" for name in plugins.builtin(mark.group)), "a plug-in's name"])


def words(kind: Any) -> str:
    """Say a type in words, such as `csv` or `parquet`, list of text, mapping of text to number."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        mark = next((part for part in parts[1:] if isinstance(part, PluginName)), None)
        return offered(mark) if mark else words(parts[0])
    if origin is Literal:
        return " or ".join(f"`{part}`" for part in parts)
    if origin in (Union, UnionType):
        return " or ".join(words(part) for part in parts)
    if origin is tuple:
        return f"list of {words(parts[0])}" if parts[-1] is Ellipsis else f"[{', '.join(map(words, parts))}]"
    if origin is dict:
        return f"mapping of {words(parts[0])} to {words(parts[1])}"
    return {str: "text", int: "integer", float: "number", bool: "true or false", type(None): "null", Any: "value"}[kind]


def default(field: FieldInfo, below: type[Section] | None) -> str:
    """Return a key's default as YAML."""
    if field.is_required():
        return "**needed**"
    value = field.get_default()
    if below and isinstance(value, Section):
        return ""
    value = list(value) if isinstance(value, tuple) else value
    return f"`{yaml.safe_dump(value, default_flow_style=True).strip().removesuffix('...').strip()}`"


if __name__ == "__main__":
    Path(__file__).with_name("project-file.md").write_text(page(), encoding="utf-8")
    Path(__file__).with_name("environment.md").write_text(environment(), encoding="utf-8")
