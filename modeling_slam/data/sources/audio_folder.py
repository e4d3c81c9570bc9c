"""AudioFolder: a directory a user can make by hand, one sub-directory per split.

    speech/train/metadata.csv     file_name,text,speaker      (or metadata.jsonl with the same keys)
    speech/train/clip1.flac

`file_name` is relative to the split and serves as clip id; further columns are ignored.

Source: https://huggingface.co/docs/datasets/audio_dataset
"""

import csv
import json
from pathlib import Path

from modeling_slam.data.arguments import DataArguments
from modeling_slam.data.clips import Clip, DataError, Source, pick_split, read_path, require_columns

DESCRIPTION = "a directory with <split>/metadata.csv (or .jsonl) of file_name,text"
METADATA_NAMES = ("metadata.csv", "metadata.jsonl")


def recognises(dataset: str) -> bool:
    return bool(_metadata_files(Path(dataset).expanduser()))


def open_source(dataset: str, arguments: DataArguments, split: str) -> Source:
    root = Path(dataset).expanduser()
    metadata_files = _metadata_files(root)
    metadata = metadata_files[pick_split(split, metadata_files, root)]
    columns, rows = _read_rows(metadata)
    speaker_column = arguments.speaker_column or ("speaker" if "speaker" in columns else None)
    require_columns(
        {
            "audio_column": "file_name",
            "text_column": arguments.text_column,
            "id_column": arguments.id_column,
            "speaker_column": speaker_column,
        },
        columns,
        metadata,
    )
    clips = [
        Clip(
            id=str(row[arguments.id_column or "file_name"]),
            text=row[arguments.text_column] or "",
            speaker=row[speaker_column] or None if speaker_column else None,
            locator=row["file_name"],
        )
        for row in rows
    ]
    return Source(
        "AudioFolder",
        split,
        arguments.language,
        clips,
        lambda clip: read_path(metadata.parent / clip.locator),
    )


def _metadata_files(root: Path) -> dict[str, Path]:
    """Split name -> its metadata file."""
    if not root.is_dir():
        return {}
    files = (folder / name for folder in sorted(root.iterdir()) for name in METADATA_NAMES)
    return {file.parent.name: file for file in files if file.is_file()}


def _read_rows(metadata: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Column names and rows; a row that does not fit the columns is an error with its line number."""
    with metadata.open(encoding="utf-8-sig", newline="") as file:
        if metadata.suffix == ".jsonl":
            rows = [json.loads(line) for line in file if line.strip()]
            columns = list(dict.fromkeys(key for row in rows for key in row))
            return columns, [{column: row.get(column) for column in columns} for row in rows]
        reader = csv.DictReader(file)
        columns, rows = list(reader.fieldnames or []), []
        for row in reader:
            if None in row or None in row.values():
                raise DataError(
                    f"{metadata}, line {reader.line_num}: expected one value for each of "
                    f"{', '.join(columns)}. Put texts that hold commas in double quotes."
                )
            rows.append(row)
        return columns, rows
