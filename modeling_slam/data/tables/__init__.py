"""Tables of clips in files: a reader for each format, and the table that names them.

A reader gives the columns and the rows; a row that cannot be read is a `BadRow` and its neighbours are as
they were. To add a format: write a reader and put it in `READERS`. What columns mean stands in `columns.py`.
"""

from collections.abc import Callable
from pathlib import Path

from modeling_slam.data.tables.json_rows import read_json
from modeling_slam.data.tables.kaldi import read_kaldi
from modeling_slam.data.tables.parquet import read_parquet
from modeling_slam.data.tables.rows import BadRow, Row, Table
from modeling_slam.data.tables.separated import read_separated

__all__ = ["READERS", "BadRow", "Row", "Table", "read_table"]

READERS: dict[str, Callable[[Path], Table]] = {
    ".csv": read_separated,
    ".tsv": read_separated,
    ".jsonl": read_json,
    ".json": read_json,
    ".parquet": read_parquet,
    ".scp": read_kaldi,
}


def read_table(path: Path) -> Table:
    """The table in a file, by the format that its name states."""
    return READERS[path.suffix.lower()](path)
