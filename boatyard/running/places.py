"""Where a project's files are, written so that its folder can be moved and copied: as seen from a folder in it.

A copy then finds its own files, never those of the folder that it was copied from.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

SCHEME = "file:"  # before a relative URI, which has no //
PROJECT = "<project>"  # stands for the project's folder in a sentence
ABSOLUTE = re.compile(r"(?P<root>/.*)/runs/[0-9]{8}-[0-9]{6}-[0-9a-f]{4}/artifacts/")  # as earlier versions wrote it


def relative(value: object, root: Path, start: Path) -> str | None:
    """Return a path or file:// URI of something in `root` as seen from `start`; None for any other value."""
    if not isinstance(value, str):
        return None
    is_uri = value.startswith(f"{SCHEME}///")
    path = unquote(urlsplit(value).path) if is_uri else value
    if not os.path.isabs(path):
        return None
    for folder in _names(root):
        if Path(os.path.normpath(path)).is_relative_to(folder):
            below = os.path.relpath(os.path.join(root.absolute(), os.path.relpath(path, folder)), start.absolute())
            return SCHEME + quote(below) if is_uri else below
    return None


def all_relative(value: Any, root: Path, start: Path) -> Any:
    """Return JSON values with every path and file:// URI of something in `root` as seen from `start`."""
    if isinstance(value, dict):
        return {key: all_relative(item, root, start) for key, item in value.items()}
    if isinstance(value, list):
        return [all_relative(item, root, start) for item in value]
    below = relative(value, root, start)
    return value if below is None else below


def absolute(value: str, start: Path) -> str:
    """Return what `relative` was given, for where `start` is now."""
    is_uri = value.startswith(SCHEME)
    below = unquote(value.removeprefix(SCHEME)) if is_uri else value
    path = os.path.normpath(start.absolute() / below)
    return Path(path).as_uri() if is_uri else path


def former_root(values: Iterable[object]) -> Path | None:
    """Return the project's folder at the time when absolute paths of a run's artifacts were written, if one says it."""
    for value in values:
        if isinstance(value, str) and (match := ABSOLUTE.match(value)):
            return Path(match["root"])
    return None


def moved(value: object, former: Path | None, root: Path) -> object:
    """Return an absolute path or URI as earlier versions wrote it, for where the project's folder is now."""
    below = relative(value, former, former) if former else None
    return value if below is None else absolute(below, root)


def without_root(sentence: str, root: Path) -> str:
    """Return a sentence that says PROJECT for the project's folder."""
    for folder in _names(root):
        if folder != os.sep:
            sentence = re.sub(rf"(?<![\w.-]){re.escape(folder)}(?![\w.-])", PROJECT, sentence)
    return sentence


def with_root(sentence: str, root: Path) -> str:
    """Return the sentence that `without_root` was given, for where the project's folder is now."""
    return sentence.replace(PROJECT, str(root.absolute()))


def _names(root: Path) -> tuple[str, ...]:
    """Return what a folder is called: as it was given, and where it lies when a link led to it."""
    return tuple(dict.fromkeys((os.path.normpath(root.absolute()), os.path.realpath(root))))
