"""Tables as Parquet files, one for each: for DuckDB, pandas, Polars, and whatever else reads them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..capture.schemas import SCHEMAS, arrow, schema
from ..capture.tables import batches
from ..errors import OutputError, require
from .directory import create_directory
from .objects import loss_object

if TYPE_CHECKING:
    from ..capture.filters import FilterOptions
    from ..capture.reader import Capture

_OURS = re.compile("|".join(rf"{table}\.parquet" for table in SCHEMAS))
#: Written to each file, so that no analysis of one forgets what is missing.
_ABOUT = b"memory_tracer"


def export_parquet(
    capture: Capture, filters: FilterOptions, directory: Path, *, content: bool, force: bool
) -> Iterator[tuple[str, int]]:
    """Write the tables into ``directory``; yield name and rows after each batch.

    Without ``content`` the pages' bytes are left out. Raises ``OutputError``.
    """
    arrow()
    create_directory(directory, _OURS, force=force)
    about = json.dumps(
        {
            "metadata": dict(capture.metadata),
            "complete": capture.complete,
            "losses": [loss_object(loss) for loss in capture.losses],
        }
    )
    for table in SCHEMAS:
        if table == "contents" and not content:
            continue
        try:
            for rows in _write(capture, table, filters, directory / f"{table}.parquet", about.encode()):
                yield table, rows
        except OSError as error:
            raise OutputError(f"{table}.parquet cannot be written: {error.strerror or error}") from error


def _write(capture: Capture, table: str, filters: FilterOptions, path: Path, about: bytes) -> Iterator[int]:
    parquet: Any = require("pyarrow.parquet", "Parquet files", "parquet")
    columns = schema(table).with_metadata({_ABOUT: about})
    with path.open("xb") as stream:
        path.chmod(0o600)
        with parquet.ParquetWriter(stream, columns, compression="zstd") as writer:
            yield 0
            for batch in batches(capture, table, filters):
                writer.write_batch(batch.replace_schema_metadata(columns.metadata))
                yield len(batch)
