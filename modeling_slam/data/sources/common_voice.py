"""Common Voice as Mozilla ships it: a release folder or its archive.

    cv-corpus-22.0-2025-06-20/nl/clips/*.mp3, train.tsv, dev.tsv, test.tsv, validated.tsv, clip_durations.tsv

The TSVs are unquoted: a quotation mark is a character of the sentence, and a line break or a tab inside one
makes bad rows. Stated durations find clips that lost their end in a way the mp3 itself does not show.

Source: https://commonvoice.mozilla.org, https://github.com/common-voice/cv-dataset
"""

import re
from pathlib import Path

from modeling_slam.data.archives import SUFFIXES, unpack_once
from modeling_slam.data.arguments import OneDataset
from modeling_slam.data.clips import Clip, DataError, Source, read_place
from modeling_slam.data.columns import clips_of, find_columns, positive_number
from modeling_slam.data.sources import local_tables
from modeling_slam.data.splits import pick_split
from modeling_slam.data.tables import BadRow, Row, read_table
from modeling_slam.data.tables.rows import shown

DESCRIPTION = "a Common Voice folder (clips/ and train.tsv, or its parent with --language) or .tar.gz"
KIND = "Common Voice"
OWN_NAMES = {"audio": "path", "text": "sentence", "speaker": "client_id"}
LOCALE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9-]+)?")
SPLITS = ("train", "dev", "test", "validated", "other", "invalidated")


def recognises(dataset: str) -> bool:
    path = Path(dataset).expanduser()
    return (path.is_file() and path.name.endswith(SUFFIXES)) or bool(_language_folders(path))


def open_source(dataset: str, arguments: OneDataset, split: str) -> Source:
    path = Path(dataset).expanduser()
    path = unpack_once(path) if path.is_file() else path
    if not _language_folders(path) and local_tables.recognises(str(path)):  # an archive of another layout
        return local_tables.open_source(str(path), arguments, split)
    return open_release(path, arguments, split)


def open_release(path: Path, arguments: OneDataset, split: str) -> Source:
    """The clips of a release folder, of its parent, or of an archive of either."""
    if path.is_file():
        path = unpack_once(path)
    folder = _pick_folder(path, arguments.language)
    split = pick_split(split, [name for name in SPLITS if (folder / f"{name}.tsv").is_file()], folder)
    table = read_table(folder / f"{split}.tsv")
    columns = find_columns(arguments, table.columns, table.path, OWN_NAMES)
    durations = _read_durations(folder / "clip_durations.tsv")
    table.rows = list(table.rows)
    locales = {row.values.get("locale") for row in table.rows if isinstance(row, Row) and not row.is_cut}
    locales = {locale for locale in locales if locale and LOCALE.fullmatch(locale)}
    if locales:
        table.rows = [_in_place(row) for row in table.rows]
    clips = list(clips_of(table, columns, table.path.name))
    for clip in clips:
        if isinstance(clip, Clip):
            clip.stated_seconds = durations.get(clip.locator)
    language = _checked_language(arguments.language, locales, folder)
    return Source(KIND, split, language, clips, lambda clip: read_place(str(folder / "clips" / clip.locator)))


def _in_place(row: Row | BadRow) -> Row | BadRow:
    """The row; a bad one if its values are not in their columns, as a tab inside the sentence moves them."""
    if isinstance(row, Row) and not row.is_cut and not LOCALE.fullmatch(locale := row.values["locale"] or ""):
        name = shown(row.values.get("path") or "")
        return BadRow(
            row.line, f"of {name} has {shown(locale)} for its locale: take the tab out of its sentence"
        )
    return row


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


def _read_durations(table: Path) -> dict[str, float]:
    """Clip name -> stated seconds; older releases have no such table, and a row may have no number."""
    durations = {}
    if table.is_file():
        for row in read_table(table).rows:
            if isinstance(row, Row):
                clip, milliseconds = row.values.get("clip"), positive_number(row.values.get("duration[ms]"))
                if clip and milliseconds:
                    durations[clip] = milliseconds / 1000
    return durations


def _checked_language(language: str | None, locales: set[str], folder: Path) -> str | None:
    """The language asked for, which must be the one the table states; or the one it states."""
    stated = ", ".join(sorted(locales)) or None
    if len(locales) > 1:
        raise DataError(f"{folder} holds rows in several languages ({stated}); keep a table for each.")
    if language and stated and stated.partition("-")[0] != language.partition("-")[0]:
        raise DataError(f"{folder} holds the language {stated!r}, but --language is {language!r}.")
    return language or stated
