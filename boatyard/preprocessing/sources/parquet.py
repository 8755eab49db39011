"""Parquet: columns of numbers, text, booleans and dates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from boatyard.errors import DataError
from boatyard.preprocessing import block
from boatyard.preprocessing.block import Place, TableBlock
from boatyard.preprocessing.sources.base import TableSource

if TYPE_CHECKING:
    from boatyard.preprocessing.tables import Header, Table


class ParquetSource(TableSource):
    """Files of columns with their types."""

    name = "parquet"
    files = "a file, or a folder of parts"
    endings = (".parquet", ".pq")
    precedence = 20

    def header(self, path: Path) -> Header:
        """Read a file's column names."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        from boatyard.preprocessing.tables import Header, reason

        try:
            return Header(tuple(pq.read_schema(path).names))
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} is not a whole Parquet file: {reason(error)}") from error

    def read(self, path: Path, table: Table) -> Iterator[TableBlock]:
        """Read a file's columns."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        from boatyard.preprocessing.tables import reason

        start = 0
        try:
            with pq.ParquetFile(path, buffer_size=1 << 18, pre_buffer=False, page_checksum_verification=True) as file:
                count = max(block.BLOCK_BYTES // (16 * len(table.needed)), 256)
                for batch in file.iter_batches(batch_size=count, columns=list(table.needed), use_threads=False):
                    numbers = np.arange(start, start + batch.num_rows, dtype=np.int64)
                    yield TableBlock(pa.Table.from_batches([batch]), Place(path.name, numbers))
                    start += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} cannot be read after row {start}: {reason(error)}") from error

    def check(self, table: Table) -> None:
        """Raise DataError for a column that is read and is neither numbers nor text, or differs between files."""
        import pyarrow.parquet as pq

        from boatyard.data import columns

        for path in table.paths:
            schema = pq.read_schema(path)
            for name in table.needed:
                dtype = schema.field(name).type
                if not columns.is_usable(dtype):
                    raise DataError(
                        f"{path}: column {name!r} is of type {dtype}",
                        fix=(
                            "expected numbers, text, booleans or dates: flatten it, or exclude it by listing the "
                            "other columns in data.features"
                        ),
                    )


SOURCE = ParquetSource()
