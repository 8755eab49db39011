"""What an author's code raises, said with the file and line of that code; the error itself stays as the cause."""

from __future__ import annotations

import contextlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boatyard
from boatyard.errors import BoatyardError, RecipeError

LIBRARY = Path(boatyard.__file__).parent
INSTALLED = ("site-packages", "dist-packages")
MAX_REASON_CHARS = 300
FIXES = {  # by what torch and Python say
    "Expected more than 1 value per channel": (
        "batch norm has one row to normalise by: in training give a greater train.batch_size, in eval mode let it use "
        "its running statistics"
    ),
    "positional argument": "forward() takes one tensor beside self: what features() gives",
    "can't convert cuda": "keep everything in forward() on the device of its input",
    "Expected all tensors to be on the same device": "make tensors on the device of forward()'s input, or as buffers",
    "Numpy is not": "stay with torch's functions in forward()",
    "Can't call numpy()": "stay with torch's functions in forward()",
    "through the graph a second time": "compute in forward() what depends on weights, not once in __init__()",
    "deterministic": "that operation gives other bits each time: use another, so that a run can be made again",
    "inplace operation": "write it without changing a tensor that the gradient needs",
    "weight tensor": "a loss needs one class weight for each label",
    "mat1 and mat2 shapes": "self.shape is the shape of a row as the model sees it",
}


@contextlib.contextmanager
def authored(kind: type[Any], doing: str, method: str = "model") -> Iterator[None]:
    """Within the block, whatever the author's code raises becomes a RecipeError that names the line; ours stay.

    `doing` says what was tried, such as "model()"; without a line of the author's own the recipe's `method` is named.
    """
    try:
        yield
    except (BoatyardError, MemoryError):
        raise
    except Exception as error:  # an author's code may raise anything
        if type(error).__name__ == "OutOfMemoryError":  # torch's: the loop says what to do
            raise
        raise failure(kind, doing, method, error) from error


@contextlib.contextmanager
def located(kind: type[Any], doing: str) -> Iterator[None]:
    """Within the block, where ours runs around the author's, what comes from a line of theirs becomes a RecipeError.

    A full disk is nobody's line.
    """
    try:
        yield
    except (BoatyardError, MemoryError, OSError):
        raise
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError" or not raised_at(kind, error):
            raise
        raise failure(kind, doing, "model", error) from error


def failure(kind: type[Any], doing: str, method: str, error: BaseException) -> RecipeError:
    """Return what is said of an error in a recipe."""
    place = raised_at(kind, error) or defined_at(kind, getattr(kind, method, None))
    reason = " ".join(str(error).split())[:MAX_REASON_CHARS]
    fix = next((fix for words, fix in FIXES.items() if words in reason), "")
    said = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
    return RecipeError(f"{place}: {doing} raises {said}", fix=fix)


def is_own(kind: type[Any], file: str) -> bool:
    """Say whether a file is the recipe's: below the folder that its module lies in, and no installed library."""
    base, path = _folder(kind), Path(file)
    if base is None or not path.is_absolute() or not path.is_relative_to(base) or file == __file__:
        return False
    library = path.is_relative_to(LIBRARY) and not base.is_relative_to(LIBRARY)
    return not library and not set(INSTALLED) & set(path.relative_to(base).parts)


def defined_at(kind: type[Any], function: Callable[..., Any] | None) -> str:
    """Say where a function of the author's is written, or else the recipe's class, or else its name."""
    for thing in (function, kind):
        try:
            file, line = inspect.getsourcefile(thing), inspect.getsourcelines(thing)[1]  # type: ignore[arg-type]
        except (OSError, TypeError):
            continue
        if file and is_own(kind, file):
            return f"{file}, line {line}"
    return f"recipe {kind.__name__}"


def place_of(kind: type[Any], function: Callable[..., Any], method: str) -> str:
    """Say where a function is written if it is the author's, or else a method of the recipe."""
    place = defined_at(kind, function)
    return defined_at(kind, getattr(kind, method)) if place == defined_at(kind, None) else place


def raised_at(kind: type[Any], error: BaseException) -> str:
    """Return the author's line that an error comes from, innermost first; empty where none is its way."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return f"{error.filename}, line {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_own(kind, frame.filename)]
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else ""


def _folder(kind: type[Any]) -> Path | None:
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return Path(file).absolute().parent if file else None
