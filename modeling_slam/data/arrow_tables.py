"""Clips of a table that the `datasets` library opened; their sound is in the table, or named by it.

Audio stays undecoded (`Audio(decode=False)`), so no torchcodec is needed. With `streaming` the table is read
row by row and only as far as the limits of the run need.
"""

import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
from datasets.exceptions import DatasetGenerationError

from modeling_slam.data.arguments import OneDataset
from modeling_slam.data.clips import Clip, DataError, Source, read_place
from modeling_slam.data.columns import BadValueError, Columns, find_columns, plain_text, usual_columns
from modeling_slam.data.report import Drop
from modeling_slam.data.splits import pick_split, stated_split
from modeling_slam.data.tables.parquet import features_of, label_name, values_of

KIND = "datasets"
Opened = datasets.Dataset | datasets.IterableDataset


def hold_sound(files: Sequence[Path], arguments: OneDataset) -> bool:
    """Whether the files are parquet whose rows hold the bytes of recordings, not only their names.

    Raises:
        DataError: the column of the audio holds neither.
    """
    if any(file.suffix.lower() != ".parquet" for file in files):
        return False
    features = features_of(files[0])
    audio = find_columns(arguments, features, files[0], _own_names(features)).audio
    _require_audio(features[audio], audio, str(files[0]))
    return _is_audio(features[audio])


def open_parquet(files: Sequence[Path], arguments: OneDataset, split: str | None, wanted: str) -> Source:
    """The clips of local parquet files with their sound inside; as by `source_of`."""
    try:
        table = datasets.load_dataset(
            "parquet", data_files=[str(file) for file in files], split="train", streaming=arguments.streaming
        )
    except (ValueError, OSError, DatasetGenerationError) as error:
        raise DataError(
            f"{files[0].parent}: not readable as parquet ({error.__cause__ or error})."
        ) from error
    return source_of(table, arguments, split, str(files[0].parent), wanted, files[0].parent)


def source_of(
    table: Opened,
    arguments: OneDataset,
    split: str | None,
    where: str,
    wanted: str,
    folder: Path | None = None,
) -> Source:
    """The clips of an opened table; those `wanted` where it is of no `split` and a column states splits.

    Names of files are relative to `folder`.

    Raises:
        DataError: a column is not there, or not of a kind that can be used.
    """
    features = table.features or datasets.Features()
    if split is None:
        table, split = _rows_of_split(table, features, wanted, where)
    columns = find_columns(arguments, features, where, _own_names(features))
    _require_audio(features[columns.audio], columns.audio, where)
    for column, flag in ((columns.text, "text"), (columns.speaker, "speaker"), (columns.id, "id")):
        if column and not isinstance(features[column], (datasets.Value, datasets.ClassLabel)):
            raise DataError(
                f"{where}: column {column!r} is {features[column]}, which is no text. Name another with "
                f"--{flag}_column."
            )
    columns = Columns(columns.audio, columns.text, columns.id, columns.speaker)
    table = table.select_columns(list({name for name in vars(columns).values() if name}))
    if (
        isinstance(features[columns.audio], datasets.Value)
        and features[columns.audio].dtype == "large_string"
    ):
        table = table.cast_column(
            columns.audio, datasets.Value("string")
        )  # Arrow casts only this to a struct.
    table = table.cast_column(columns.audio, datasets.Audio(decode=False))
    if isinstance(table, datasets.IterableDataset):
        rows = _stream(table, columns, features, folder)
        return Source(KIND, split, arguments.language, rows, lambda clip: clip.locator(), streaming=True)
    audio = table.select_columns([columns.audio])
    return Source(
        KIND,
        split,
        arguments.language,
        list(_table(table, columns, features)),
        lambda clip: _fetched(audio[clip.locator][columns.audio], folder),
    )


def _rows_of_split(
    table: Opened, features: datasets.Features, wanted: str, where: str
) -> tuple[Opened, str | None]:
    """The rows of a split and its name, where a column tells of splits; else all of them."""
    column = next(iter(usual_columns("split", features)), None)
    if column is None or not isinstance(features[column], (datasets.Value, datasets.ClassLabel)):
        return table, None
    if isinstance(table, datasets.IterableDataset):
        raise DataError(
            f"{where} has a column {column!r}, which says too late what to stream: no --streaming."
        )
    stated = [stated_split(column, _by_name(features[column], value)) for value in table[column]]
    if not any(stated):
        return table, None
    name = pick_split(wanted, {value for value in stated if value}, where)
    return table.select([row for row, value in enumerate(stated) if value == name]), name


def _own_names(features: datasets.Features) -> dict[str, str]:
    """The only column that holds audio as such. Bytes may be a text as well, as Spark writes it."""
    texts = {column for kind in ("text", "speaker", "split") for column in usual_columns(kind, features)}
    marked = [name for name, feature in features.items() if _is_audio(feature) and name not in texts]
    return {"audio": marked[0]} if len(marked) == 1 else {}


def _is_audio(feature: Any) -> bool:
    is_struct = isinstance(feature, dict) and bool(feature) and feature.keys() <= {"bytes", "path"}
    is_bytes = isinstance(feature, datasets.Value) and feature.dtype in ("binary", "large_binary")
    return isinstance(feature, datasets.Audio) or is_struct or is_bytes


def _require_audio(feature: Any, column: str, where: str) -> None:
    """Raise unless the column holds files, their bytes, or paths of files."""
    is_path = isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string")
    if not (_is_audio(feature) or is_path):
        raise DataError(
            f"{where}: column {column!r} is {feature}, which is not audio. Expected `Audio`, a path, file "
            "bytes, or a struct of bytes and path; name another with --audio_column."
        )


def _table(table: datasets.Dataset, columns: Columns, features: datasets.Features) -> Iterator[Clip | Drop]:
    """One pass over the Arrow columns; the audio bytes themselves stay on disk."""
    named = [name for name in (columns.text, columns.id, columns.speaker) if name]
    values: dict[str, list] = {name: [] for name in named}
    paths: list[str | None] = []
    for batch in table.with_format("arrow").iter(batch_size=1000):
        for name, column in values.items():
            column += [_by_name(features[name], value) for value in values_of(batch[name])]
        for chunk in batch[columns.audio].chunks:
            paths += chunk.field("path").to_pylist()
    ids = values[columns.id] if columns.id else _ids_from(paths)
    for row, clip_id in enumerate(ids):
        yield _clip({name: column[row] for name, column in values.items()}, columns, clip_id, row, row)


def _ids_from(paths: list[str | None]) -> list[str]:
    """File names below the folder all share, if each row has its own; row numbers otherwise."""
    named = [path for path in paths if path]
    if len(set(named)) < len(paths):
        return [_row_id(row) for row in range(len(paths))]
    shared = os.path.commonprefix(named).rfind("/") + 1  # noqa: RUF071 (cut back to a folder; URLs too)
    return [path[shared:] for path in named]


def _stream(
    table: datasets.IterableDataset, columns: Columns, features: datasets.Features, folder: Path | None
) -> Iterator[Clip | Drop]:
    for number, row in enumerate(table):
        values = {name: _by_name(features[name], value) for name, value in row.items()}
        # Read once, and not before the clip is wanted; what is not kept goes with its clip.
        read = functools.cache(functools.partial(_fetched, row[columns.audio], folder))
        clip_id = values[columns.id] if columns.id else _row_id(number)
        yield _clip(values, columns, clip_id, number, read)


def _clip(values: dict[str, Any], columns: Columns, clip_id: Any, row: int, locator: Any) -> Clip | Drop:
    try:
        return Clip(
            id=plain_text(clip_id, columns.id),
            text=plain_text(values[columns.text], columns.text),
            speaker=(plain_text(values[columns.speaker], columns.speaker) or None)
            if columns.speaker
            else None,
            locator=locator,
        )
    except BadValueError as error:
        return Drop(_row_id(row), "bad row", f"row {row + 1} {error}.")


def _by_name(feature: Any, value: Any) -> Any:
    return label_name(feature, value) if isinstance(feature, datasets.ClassLabel) else value


def _row_id(row: int) -> str:
    return f"{row:08d}"  # Sorts as it counts.


def _fetched(audio: dict[str, Any] | None, folder: Path | None) -> dict[str, Any]:
    """The audio with its bytes where it lies on a remote file system; streams of audio files are such."""
    audio = audio or {"bytes": None, "path": None}
    if audio["bytes"] is not None or not audio["path"]:
        return audio
    if "://" in audio["path"]:
        return read_place(audio["path"])
    return audio | {"path": str(folder / audio["path"])} if folder else audio
