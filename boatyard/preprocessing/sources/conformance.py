"""The rules of a source, for a test of who writes one: `check(SOURCE, path, DataConfig(…))` with some rows of yours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from boatyard.errors import DataError, Refused
from boatyard.preprocessing.block import Block
from boatyard.preprocessing.sources.base import OpenSource, Source
from boatyard.project import DataConfig, PreprocessConfig


@dataclass(frozen=True)
class SourceSubject:
    """A source under test, with data of its own."""

    source: Source
    path: Path
    data: DataConfig

    def open(self) -> OpenSource:
        """Open the data."""
        return self.source.open(self.path, self.data, PreprocessConfig(), 2)


def check(source: Source, path: Path, data: DataConfig) -> None:
    """Hold a source to every rule, with rows at `path` that are good; raises Refused with all that it breaks."""
    subject = SourceSubject(source, path, data)
    broken = [found for rule in RULES for found in rule(subject)]
    if broken:
        raise Refused(f"{source.name} breaks {len(broken)} rules of a source: {'; '.join(broken)}")


def _named(subject: SourceSubject) -> Iterator[str]:
    source = subject.source
    if source.name != subject.data.source:
        yield f"its name is {source.name!r}, data.source says {subject.data.source!r}"
    if not source.endings or any(ending != ending.lower() for ending in source.endings):
        yield f"endings are {source.endings}; expected some, in lower case"


def _says_its_files(subject: SourceSubject) -> Iterator[str]:
    missing = [path for path in subject.open().files() if not path.is_file()]
    if missing or not subject.open().files():
        yield f"files() lists {missing[0] if missing else 'none'}; expected every file that is read"


def _reads_alike_again(subject: SourceSubject) -> Iterator[str]:
    source = subject.open()
    one, two = list(source.blocks()), list(source.blocks())
    if not sum(map(len, one)):
        yield "blocks() gives no row; the data of a check has some"
    if [_values(block) for block in one] != [_values(block) for block in two]:
        yield "blocks() gives other blocks when it is called again; rows are read three times"


def _columns_are_of_one_length(subject: SourceSubject) -> Iterator[str]:
    source = subject.open()
    for block in source.blocks():
        rows = len(block.target) if block.images is None else len(block.images)
        if not len(block) == rows == len(block.target):
            yield f"a block of {len(block)} numbered rows has {len(block.target)} targets"
        missing = [name for name in source.features if block.table is None or name not in block.table.column_names]
        if missing:
            yield f"a block lacks the column {missing[0]!r}, which is learnt from"


def _numbers_rows_once(subject: SourceSubject) -> Iterator[str]:
    rows = [int(row) for block in subject.open().blocks() for row in block.rows if block.split is None]
    if len(set(rows)) < len(rows):
        yield "two rows have one number"


def _places_have_words(subject: SourceSubject) -> Iterator[str]:
    for block in subject.open().blocks():
        if len(block) and not str(block.where(len(block) - 1)).strip():
            yield "a row's place is empty; expected its file and line or row"


def _parts_are_the_whole(subject: SourceSubject) -> Iterator[str]:
    if not subject.source.shareable:
        try:
            subject.open().share(0, 2)
        except DataError:
            return
        yield "share() gives a part although shareable is False"
        return
    whole = [row for block in subject.open().blocks() for row in _rows(block)]
    first, rows = 0, []
    for part in range(3):
        blocks = list(subject.open().share(part, 3, first).blocks())
        rows += [row for block in blocks for row in _rows(block)]
        first += sum(map(len, blocks))
    if rows != whole:
        yield f"three parts have {len(rows)} rows, the whole has {len(whole)}, or others"


def _values(block: Block) -> list[Any]:
    images = b"" if block.images is None else np.ascontiguousarray(block.images).tobytes()
    return [block.split, block.rows.tolist(), block.target.to_pylist(), images, block.table and block.table.to_pydict()]


def _rows(block: Block) -> list[tuple[int, Any]]:
    return list(zip(block.rows.tolist(), block.target.to_pylist(), strict=True))


RULES: tuple[Callable[[SourceSubject], Iterator[str]], ...] = (
    _named,
    _says_its_files,
    _reads_alike_again,
    _columns_are_of_one_length,
    _numbers_rows_once,
    _places_have_words,
    _parts_are_the_whole,
)
