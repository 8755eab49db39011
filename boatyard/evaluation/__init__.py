"""Evaluate: the exported graph, under the engine that serves, on the test rows that nothing else has seen.

`measures` and `metrics` are read by the project file and the tasks too, where there is neither Arrow nor Pillow:
what needs them is imported when it is first named.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boatyard.evaluation.evaluating import (
        BATCH_ROWS,
        THUMBNAIL,
        Answered,
        batch_size,
        evaluate,
        measure,
        picture,
    )

__all__ = ["BATCH_ROWS", "THUMBNAIL", "Answered", "batch_size", "evaluate", "measure", "picture"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from boatyard.evaluation import evaluating

    return getattr(evaluating, name)
