"""Common Voice as Mozilla ships it: a release folder or its archive.

    cv-corpus-22.0-2025-06-20/nl/clips/*.mp3, train.tsv, dev.tsv, test.tsv, validated.tsv, clip_durations.tsv

The TSVs are unquoted: a quotation mark is a character of the sentence, and a reader that believes in quotes
merges rows. Stated durations find clips that lost their end in a way the mp3 itself does not show.

Source: https://commonvoice.mozilla.org, https://github.com/common-voice/cv-dataset
"""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

from modeling_slam.data.archives import SUFFIXES, unpack_once
from modeling_slam.data.arguments import DataArguments
from modeling_slam.data.clips import Clip, DataError, Source, pick_split, read_path, require_columns

DESCRIPTION = "a Common Voice folder (clips/ and train.tsv, or its parent with --language) or .tar.gz"
KIND = "Common Voice"
SPLITS = ("train", "dev", "test", "validated", "other", "invalidated")


def recognises(dataset: str) -> bool:
    path = Path(dataset).expanduser()
    return (path.is_file() and path.name.endswith(SUFFIXES)) or bool(_language_folders(path))


def open_source(dataset: str, arguments: DataArguments, split: str) -> Source:
    return open_release(Path(dataset).expanduser(), arguments.language, split)


def open_release(path: Path, language: str | None, split: str) -> Source:
    """The clips of a release folder, of its parent, or of an archive of either."""
    if path.is_file():
        path = unpack_once(path)
    folder = _pick_folder(path, language)
    splits = [name for name in SPLITS if (folder / f"{name}.tsv").is_file()]
    if split == "validation" and split not in splits:
        split = "dev"  # Common Voice's own name for it.
    table = folder / f"{pick_split(split, splits, folder)}.tsv"
    durations = _read_durations(folder / "clip_durations.tsv")
    clips, locales = [], set()
    for row in _read_tsv(table, ("path", "sentence", "client_id")):
        locales.add(row.get("locale"))
        clips.append(
            Clip(
                id=row["path"],
                text=row["sentence"],
                speaker=sys.intern(row["client_id"]) or None,  # 128 letters each, a thousand times over.
                locator=row["path"],
                stated_seconds=durations.get(row["path"]),
            )
        )
    language = _checked_language(language, locales - {None, ""}, folder)
    return Source(KIND, split, language, clips, lambda clip: read_path(folder / "clips" / clip.locator))


def _language_folders(path: Path) -> list[Path]:
    """The release folders at `path` or up to two levels below it (archives hold <release>/<language>)."""
    if not path.is_dir():
        return []
    for pattern in ("clips", "*/clips", "*/*/clips"):
        folders = [clips.parent for clips in sorted(path.glob(pattern)) if clips.is_dir()]
        folders = [
            folder for folder in folders if any((folder / f"{split}.tsv").is_file() for split in SPLITS)
        ]
        if folders:
            return folders
    return []


def _pick_folder(path: Path, language: str | None) -> Path:
    folders = _language_folders(path)
    if not folders:
        raise DataError(f"{path} holds no Common Voice release: expected clips/ beside train.tsv.")
    if len(folders) == 1:
        return folders[0]
    named = [folder for folder in folders if folder.name == language]
    if len(named) != 1:
        there = ", ".join(sorted(folder.name for folder in folders))
        raise DataError(
            f"{path} holds several languages ({there}); --language must be one of them, got {language}."
        )
    return named[0]


def _read_tsv(table: Path, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        require_columns({f"column {column}": column for column in columns}, reader.fieldnames or (), table)
        for row in reader:
            # A row cut short has None for its last columns; what matters is whether ours are there.
            if any(row[column] is None for column in columns):
                raise DataError(f"{table}, line {reader.line_num}: expected columns {', '.join(columns)}.")
            yield row


def _read_durations(table: Path) -> dict[str, float]:
    """Clip name -> stated seconds; older releases have no such table."""
    if not table.is_file():
        return {}
    return {
        row["clip"]: float(row["duration[ms]"]) / 1000 for row in _read_tsv(table, ("clip", "duration[ms]"))
    }


def _checked_language(language: str | None, locales: set[str], folder: Path) -> str | None:
    """The language asked for, which must be the one the table states; or the one it states."""
    stated = ", ".join(sorted(locales)) or None
    if language and stated and stated.partition("-")[0] != language.partition("-")[0]:
        raise DataError(f"{folder} holds the language {stated!r}, but --language is {language!r}.")
    return language or stated
