"""Write the sources of the site to build/docs-source: the pages as they lie here, and one made from docstrings.

`make docs` calls it and then MkDocs. README.md is the site's first page; links between the pages, written for the
repository, are written anew for where the pages are in the site. A link to what is not in the site is an error.
"""

from __future__ import annotations

import inspect
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boatyard
import boatyard.project
import boatyard.recipes
from boatyard import errors
from boatyard.recipes import conformance

ROOT = Path(__file__).parents[1]
BUILT = ROOT / "build" / "docs-source"
API = "python-api.md"
LINE_CHARS = 88  # of code that the site shows without a scroll bar
LINK = re.compile(r"(\]\()([^)#\s]+)")
HEAD = """\
# Python, by name

Made from the docstrings by `make docs`. [Python](python.md) shows how the names are used together; each is imported
when it is first asked for.
"""
GROUPS = {  # heading → what it lists; `boatyard` itself has no heading of its own
    "boatyard": (boatyard, boatyard.__all__),
    "boatyard.recipes": (boatyard.recipes, ("Recipe",)),
    "boatyard.recipes.conformance": (conformance, ("check",)),
    "boatyard.project": (boatyard.project, ("Section",)),
}


def sources() -> dict[Path, str]:
    """Return each page of the repository that is in the site, and what it is called there."""
    pages = {path: path.name for path in sorted((ROOT / "docs").glob("*.md"))}
    pages |= {path: f"pictures/{path.name}" for path in sorted((ROOT / "docs" / "pictures").iterdir())}
    pages[ROOT / "docs" / "site.css"] = "site.css"
    others = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "examples/README.md": "examples.md"}
    others["examples/cluster/README.md"] = "example-on-a-cluster.md"
    return pages | {ROOT / name: target for name, target in others.items()} | {ROOT / "LICENSE": "LICENSE.txt"}


def page(path: Path, names: dict[Path, str]) -> str:
    """Return a page with its links as the site has them; ends the program for a link that leads out of it."""

    def rewritten(link: re.Match[str]) -> str:
        target = Path(os.path.normpath(path.parent / link[2]))
        if "://" in link[2]:
            return link[0]
        if target not in names:
            raise SystemExit(f"{path.relative_to(ROOT)} links to {link[2]}, which is not in the site")
        return link[1] + names[target]

    return LINK.sub(rewritten, path.read_text(encoding="utf-8"))


def api() -> str:
    """Return the page of the names that a user imports: signatures and docstrings."""
    text = [HEAD]
    for module, (owner, names) in GROUPS.items():
        text.append(f"\n## {module}\n\n{_prose(owner)}")
        text += [part for name in names for part in _entry(module, name, getattr(owner, name))]
    text.append(f"\n## boatyard.errors\n\n{_prose(errors)}")
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]
    text += [part for kind in kinds for part in _entry("boatyard.errors", kind.__name__, kind)]
    return "".join(text)


def _entry(module: str, name: str, value: Any) -> Iterator[str]:
    """Give a name's heading, how it is called and its docstring, and of a class its methods."""
    yield f"\n### {name}\n\n{_signature(f'{module}.{name}', value)}{_prose(value)}"
    if not inspect.isclass(value):
        return
    for method, member in vars(value).items():
        function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        if method.startswith(("_", "model_")) or not (inspect.isfunction(function) or isinstance(member, property)):
            continue
        shown = "" if isinstance(member, property) else _signature(method, function)
        yield f"\n#### {name}.{method}\n\n{shown}{_prose(member)}"


class _Annotation(str):
    """A type as the source has it: without quotes and without where it is from."""

    def __repr__(self) -> str:
        return re.sub(r"\b(?:\w+\.)+(?=\w)", "", self)


def _signature(name: str, value: Any) -> str:
    """Return how a name is called, one parameter a line where one line is not enough; the project file has a page."""
    if inspect.isclass(value) and issubclass(value, boatyard.project.Section):
        return ""
    found = inspect.signature(value)
    parameters = [
        one.replace(annotation=_annotation(one.annotation))
        for one in found.parameters.values()
        if one.name not in ("self", "cls")
    ]
    signature = found.replace(parameters=parameters, return_annotation=_annotation(found.return_annotation))
    text = f"{name}{signature}"
    if len(text) > LINE_CHARS:
        text = text.replace(str(signature), _lines(signature))
    text = re.sub(r"<function (?:\w+\.)*(\w+|<lambda>) at 0x[0-9a-f]+>", lambda found: found[1].strip("<>"), text)
    return f"```python\n{text}\n```\n\n"


def _lines(signature: inspect.Signature) -> str:
    lines, starred = [], False
    for one in signature.parameters.values():
        if one.kind is one.KEYWORD_ONLY and not starred:
            lines.append("*")
        starred = starred or one.kind in (one.KEYWORD_ONLY, one.VAR_POSITIONAL)
        lines.append(str(one))
    end = str(signature).rpartition(")")[2] if signature.return_annotation is not signature.empty else ""
    return "(\n" + "".join(f"    {line},\n" for line in lines) + f"){end}"


def _annotation(value: Any) -> Any:
    if value is inspect.Parameter.empty:
        return value
    return _Annotation(value if isinstance(value, str) else inspect.formatannotation(value))


def _prose(value: Any) -> str:
    """Return a docstring's text, of its own and not of a type that it is an instance of; its examples stay code."""
    told = isinstance(value, property) or inspect.ismodule(value) or inspect.isroutine(value) or inspect.isclass(value)
    found = getattr(value, "__func__", value)
    text = inspect.cleandoc(found.__doc__ or "") if told else ""
    return f"{text}\n" if text else ""


def main(built: Path = BUILT) -> None:
    """Write the folder anew."""
    shutil.rmtree(built, ignore_errors=True)
    names = sources()
    for path, name in names.items():
        target = built / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".md":
            target.write_text(page(path, names), encoding="utf-8")
        else:
            shutil.copyfile(path, target)
    (built / API).write_text(api(), encoding="utf-8")


if __name__ == "__main__":
    main()
