"""Parquet: a table of paths. One that holds the sound itself is opened by `datasets` (`arrow_tables.py`)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from modeling_slam.data.clips import DataError
from modeling_slam.data.tables.rows import Row, Table

LABELS = datasets.ClassLabel


def features_of(path: Path) -> datasets.Features:
    """The columns of types that `datasets` knows, with what it wrote about them.

    Raises:
        DataError: the file is no whole parquet file.
    """
    try:
        schema = pq.read_schema(path)
        for field in schema:
            try:
                datasets.Features.from_arrow_schema(pa.schema([field]))
            except (ValueError, NotImplementedError):
                schema = schema.remove(schema.get_field_index(field.name))
        return datasets.Features.from_arrow_schema(schema)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not readable as parquet ({error}). Write or fetch it again.") from error


def read_parquet(path: Path) -> Table:
    """The rows of a parquet file; labels are their names."""
    features = features_of(path)
    return Table(path, list(features), _rows(path, features), unit="row")


def _rows(path: Path, features: datasets.Features) -> Iterator[Row]:
    number = 0
    labels = {name: feature for name, feature in features.items() if isinstance(feature, LABELS)}
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=list(features)):
                columns = [values_of(column) for column in batch.columns]
                for values in zip(*columns, strict=True):
                    number += 1
                    row = dict(zip(features, values, strict=True))
                    named = {name: label_name(label, row[name]) for name, label in labels.items()}
                    yield Row(number, row | named)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}, after row {number}: damaged ({error}). Write or fetch it again.") from error


def values_of(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    """The values of a column; as bytes, if not all of its texts are UTF-8."""
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        return column.cast(pa.large_binary()).to_pylist()


def label_name(feature: LABELS, value: int | None) -> str | None:
    """The name of a label; -1 is how `datasets` writes that there is none."""
    return None if value is None or value < 0 else feature.names[value]
