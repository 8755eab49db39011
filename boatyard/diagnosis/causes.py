"""What a cause is: a name, what it looks at, what cures it, and the function that finds it in a snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from boatyard.diagnosis.snapshot import Snapshot


@dataclass(frozen=True)
class Evidence:
    """Something that was read, and where."""

    where: str
    text: str


@dataclass(frozen=True)
class Diagnosis:
    """A cause that was found: one sentence, what it rests on, and what cures it (a command or a field)."""

    cause: str
    sentence: str
    evidence: tuple[Evidence, ...]
    fix: str


@dataclass(frozen=True)
class Cause:
    """A kind of fault; `reads` is what is looked at. Its row in docs/why.md is made of this."""

    name: str
    reads: str
    find: Callable[[Snapshot], Iterator[Diagnosis]]

    @property
    def what(self) -> str:
        """What is wrong, in a sentence."""
        return " ".join((self.find.__doc__ or "").split())


def one_line(text: str, most: int = 400) -> str:
    """Return a message as one line, cut where it is endless."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"
