"""Where forward() leaves torch for Python because of the values or the number of the rows.

The ONNX model is recorded once: a Python `if` on values becomes the side that the recording took, `len(x)` and
`item()` become constants. Recording warns of the same, and of much that is harmless (sizes of a picture, values of
weights); here only what stems from the rows counts, so that each finding is an error.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from boatyard.errors import RecipeError
from boatyard.training.checks.trial import Trial

TORCH = str(Path(torch.__file__).parent)
PASSED_ON = ("_tensor.py", "overrides.py", "functional.py")  # of torch: hand a call of the author's on
SIZES = (11, 13)  # rows, two primes: what is a multiple of the first by chance is none of the second
READS = {
    "__bool__": "an if on values",
    "__contains__": "an if on values",
    "is_nonzero": "an if on values",
    "equal": "an if on values",
    "allclose": "an if on values",
    "item": "item()",
    "tolist": "tolist()",
    "numpy": "numpy()",
    "__array__": "numpy",
    "__int__": "int()",
    "__float__": "float()",
    "__complex__": "complex()",
    "__index__": "a value as an index",
}
COUNT = "the number of rows"


def check_branches(trial: Trial) -> None:
    """Refuse a model that takes values of rows, or their number, into Python; names each line."""
    found = [_findings(trial, rows) for rows in SIZES]
    lasting = [place for place in found[0] if place in found[1]]
    if not lasting:
        return
    (file, line), what = next(iter(lasting)), found[0][lasting[0]]
    more = f" (and line {', '.join(str(number) for _, number in lasting[1:4])})" if lasting[1:] else ""
    raise RecipeError(
        f"{file}, line {line}: forward() depends in Python on its rows: {what}{more}",
        fix="the ONNX model would keep what one batch gave: write torch.where, tensor operations and x.shape[0] as a "
        "size alone",
    )


def _findings(trial: Trial, rows: int) -> dict[tuple[str, int], str]:
    """Return what one batch brought up by file and line."""
    inputs = trial.take(torch.arange(rows))
    recorder = _Recorder(rows, list(inputs.values()))
    with torch.no_grad(), recorder:
        trial.head.answer(trial.model.eval()(trial.features.eval()(inputs)))
    return recorder.found


class _Recorder(TorchFunctionMode):
    """Follows what is made of the rows through torch's functions, and notes where Python reads it."""

    def __init__(self, rows: int, inputs: list[Tensor]) -> None:
        super().__init__()
        self.rows = rows
        self.made = {id(value): value for value in inputs}  # held, so that no other gets their number
        self.found: dict[tuple[str, int], str] = {}

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        values = [value for value in _tensors((args, kwargs)) if id(value) in self.made]
        if not values:
            return function(*args, **(kwargs or {}))
        name = getattr(function, "__name__", "")
        self._note(name, values[0])
        made = function(*args, **(kwargs or {}))
        if name == "__setitem__" or (name.endswith("_") and not name.endswith("__")):
            self._follow(args[:1])
        self._follow(made)
        return self._sized(made) if name in ("size", "__get__", "numel") else made

    def _note(self, name: str, value: Tensor) -> None:
        batched = value.ndim > 0 and value.shape[0] % self.rows == 0
        if name in READS:
            self.note(READS[name])
        elif name == "__len__" and batched:
            self.note(f"len() is {COUNT}")
        elif name in ("__iter__", "unbind") and batched:
            self.note("a loop over rows")
        elif name == "tensor":
            self.note("torch.tensor() of a tensor is a constant")

    def note(self, what: str) -> None:
        """Keep the line of the author's that is on its way, unless torch itself looks."""
        frame = sys._getframe(1)
        while frame.f_back is not None and _passes_on(frame.f_code.co_filename):
            frame = frame.f_back
        if not frame.f_code.co_filename.startswith(TORCH):
            self.found.setdefault((frame.f_code.co_filename, frame.f_lineno), what)

    def _follow(self, made: Any) -> None:
        self.made.update((id(value), value) for value in _tensors(made))

    def _sized(self, made: Any) -> Any:
        if isinstance(made, torch.Size):
            return torch.Size([self._sized(size) for size in made])
        counts = type(made) is int and made > 0 and made % self.rows == 0
        return _Count.of(made, self) if counts else made


class _Count(int):
    """A size that is a multiple of the number of rows: may be a size again, but nothing may be decided by it."""

    recorder: _Recorder

    @classmethod
    def of(cls, value: int, recorder: _Recorder) -> _Count:
        made = cls(value)
        made.recorder = recorder
        return made

    __hash__ = int.__hash__


def _compared(operation: Callable[[int, Any], Any]) -> Callable[[_Count, Any], Any]:
    def method(self: _Count, other: Any) -> Any:
        if not isinstance(other, _Count):  # sizes of two tensors are equal or not, however many rows there are
            self.recorder.note(f"an if on {COUNT}")
        return operation(self, other)

    return method


def _read(operation: Callable[[int], Any]) -> Callable[[_Count], Any]:
    def method(self: _Count) -> Any:
        self.recorder.note(f"a value in Python of {COUNT}")
        return operation(self)

    return method


def _computed(operation: Callable[[int, Any], Any]) -> Callable[[_Count, Any], Any]:
    def method(self: _Count, other: Any) -> Any:
        made = operation(self, other)
        return _Count.of(made, self.recorder) if type(made) is int else made

    return method


for _name in ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"):
    setattr(_Count, _name, _compared(getattr(int, _name)))
for _name in ("__bool__", "__int__", "__float__"):
    setattr(_Count, _name, _read(getattr(int, _name)))
for _name in ("__add__", "__radd__", "__sub__", "__mul__", "__rmul__", "__floordiv__", "__mod__"):
    setattr(_Count, _name, _computed(getattr(int, _name)))


def _passes_on(file: str) -> bool:
    return file == __file__ or (file.startswith(TORCH) and Path(file).name in PASSED_ON)


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)
    elif isinstance(values, dict):
        yield from _tensors(list(values.values()))
