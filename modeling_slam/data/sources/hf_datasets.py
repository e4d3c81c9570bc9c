"""Anything the `datasets` library reads: Hub ids, local parquet/csv/json files, `save_to_disk` directories.

Audio stays undecoded (`Audio(decode=False)`), so no torchcodec is needed. With `streaming` the source is
read row by row and only as far as the limits of the run need.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import fsspec
from datasets.exceptions import DatasetGenerationError

from modeling_slam.common.hub_ids import is_hub_id
from modeling_slam.data.arguments import DataArguments
from modeling_slam.data.clips import Clip, DataError, Source, pick_split, require_columns

KIND = "datasets"
DESCRIPTION = (
    "a Hub id such as owner/name, or a local directory of parquet, csv or json files or `save_to_disk`"
)
SAVED_NAMES = ("dataset_dict.json", "state.json")
DATA_PATTERNS = ("*.parquet", "*.arrow", "*.csv", "*.json", "*.jsonl")


def recognises(dataset: str) -> bool:
    path = Path(dataset).expanduser()
    if path.is_dir():
        return any(next(path.rglob(pattern), None) for pattern in (*SAVED_NAMES, *DATA_PATTERNS))
    return not path.exists() and is_hub_id(dataset)


def open_source(dataset: str, arguments: DataArguments, split: str) -> Source:
    table = _open_table(dataset, arguments, split)
    where = f"{dataset}, split {split}"
    wanted = {
        name: getattr(arguments, name)
        for name in ("audio_column", "text_column", "id_column", "speaker_column")
    }
    features = table.features or {}
    require_columns(wanted, features, where)
    _require_audio(features[arguments.audio_column], arguments.audio_column, where)
    table = table.select_columns(list({column for column in wanted.values() if column}))
    table = table.cast_column(arguments.audio_column, datasets.Audio(decode=False))
    if isinstance(table, datasets.IterableDataset):
        clips = _stream_clips(table, arguments)
        return Source(KIND, split, arguments.language, clips, lambda clip: clip.locator, streaming=True)
    audio = table.select_columns([arguments.audio_column])
    return Source(
        KIND,
        split,
        arguments.language,
        _table_clips(table, arguments),
        lambda clip: _fetched(audio[clip.locator][arguments.audio_column]),
    )


def _open_table(
    dataset: str, arguments: DataArguments, split: str
) -> datasets.Dataset | datasets.IterableDataset:
    path = Path(dataset).expanduser()
    if any((path / name).is_file() for name in SAVED_NAMES):
        saved = datasets.load_from_disk(path)
        # A dataset saved without splits is taken for training data, so it cannot also be the test set.
        tables = saved if isinstance(saved, datasets.DatasetDict) else {str(saved.split or "train"): saved}
        table = tables[pick_split(split, map(str, tables), path)]
        return table.to_iterable_dataset() if arguments.streaming else table
    if path.exists():
        name, kind = str(path), "a local directory"
    else:
        name, kind = dataset, "no local path, so taken for a Hub id"
    try:
        return datasets.load_dataset(
            name, arguments.dataset_config, split=split, streaming=arguments.streaming
        )
    except (ValueError, OSError, DatasetGenerationError) as error:
        raise DataError(
            f"`datasets` could not open {name!r} ({kind}), configuration {arguments.dataset_config}, "
            f"split {split!r}: {error.__cause__ or error}. Check the name, --dataset_config, and "
            "--train_split, --validation_split or --test_split."
        ) from error


def _require_audio(feature: Any, column: str, where: str) -> None:
    """Raise unless the column holds files, their bytes, or paths of files."""
    is_file = isinstance(feature, datasets.Audio)
    is_struct = isinstance(feature, dict) and feature.keys() <= {"bytes", "path"}
    is_plain = isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string", "binary")
    if not (is_file or is_struct or is_plain):
        raise DataError(
            f"{where}: column {column!r} is {feature}, which is not audio. Expected `Audio`, a path, file "
            "bytes, or a struct of bytes and path; name another with --audio_column."
        )


def _table_clips(table: datasets.Dataset, arguments: DataArguments) -> list[Clip]:
    """One pass over the Arrow columns; the audio bytes themselves stay on disk."""
    texts, speakers, ids, paths = [], [], [], []
    for batch in table.with_format("arrow").iter(batch_size=1000):
        texts += batch[arguments.text_column].to_pylist()
        for chunk in batch[arguments.audio_column].chunks:
            paths += chunk.field("path").to_pylist()
        if arguments.speaker_column:
            speakers += batch[arguments.speaker_column].to_pylist()
        if arguments.id_column:
            ids += batch[arguments.id_column].to_pylist()
    if not arguments.id_column:
        ids = _ids_from(paths)
    if not arguments.speaker_column:
        speakers = [None] * len(texts)
    return [
        Clip(str(clip_id), _as_text(text), _as_speaker(speaker), locator=row)
        for row, (clip_id, text, speaker) in enumerate(zip(ids, texts, speakers, strict=True))
    ]


def _ids_from(paths: list[str | None]) -> list[str]:
    """File names below the folder all share, if each row has its own; row numbers otherwise."""
    named = [path for path in paths if path]
    if len(set(named)) < len(paths):
        return [_row_id(row) for row in range(len(paths))]
    shared = os.path.commonprefix(named).rfind("/") + 1  # noqa: RUF071 (cut back to a folder; URLs too)
    return [path[shared:] for path in named]


def _stream_clips(table: datasets.IterableDataset, arguments: DataArguments) -> Iterator[Clip]:
    for number, row in enumerate(table):
        yield Clip(
            id=str(row[arguments.id_column]) if arguments.id_column else _row_id(number),
            text=_as_text(row[arguments.text_column]),
            speaker=_as_speaker(row[arguments.speaker_column]) if arguments.speaker_column else None,
            locator=_fetched(row[arguments.audio_column]),
        )


def _row_id(row: int) -> str:
    return f"{row:08d}"  # Sorts as it counts.


def _as_text(value: Any) -> str:
    return "" if value is None else str(value)


def _as_speaker(value: Any) -> str | None:
    return None if value is None else str(value)


def _fetched(audio: dict[str, Any] | None) -> dict[str, Any]:
    """The audio with its bytes where it lies on a remote file system; streams of audio files are such."""
    audio = audio or {"bytes": None, "path": None}
    if audio["bytes"] is None and "://" in (audio["path"] or ""):
        with fsspec.open(audio["path"], "rb") as file:
            return {"bytes": file.read(), "path": audio["path"]}
    return audio
