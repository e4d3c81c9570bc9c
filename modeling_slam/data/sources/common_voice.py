"""Common Voice as Mozilla ships it: a release folder or its archive.

    cv-corpus-22.0-2025-06-20/nl/clips/*.mp3, train.tsv, dev.tsv, test.tsv, validated.tsv, clip_durations.tsv

The TSVs are unquoted: a quotation mark is a character of the sentence, and a line break or a tab inside one
makes bad rows. Stated durations find clips that lost their end in a way the mp3 itself does not show.

Source: https://commonvoice.mozilla.org, https://github.com/common-voice/cv-dataset
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from modeling_slam.data.archives import SUFFIXES, unpack_once
from modeling_slam.data.arguments import OneDataset
from modeling_slam.data.clips import Clip, DataError, Source, read_place
from modeling_slam.data.columns import clips_of, find_columns, positive_number
from modeling_slam.data.splits import pick_split
from modeling_slam.data.tables import BadRow, Row, read_table

DESCRIPTION = "a Common Voice folder (clips/ and train.tsv, or its parent with --language) or .tar.gz"
KIND = "Common Voice"
OWN_NAMES = {"audio": "path", "text": "sentence", "speaker": "client_id"}
SPLITS = ("train", "dev", "test", "validated", "other", "invalidated")


def recognises(dataset: str) -> bool:
    path = Path(dataset).expanduser()
    return (path.is_file() and path.name.endswith(SUFFIXES)) or bool(_language_folders(path))


def open_source(dataset: str, arguments: OneDataset, split: str) -> Source:
    return open_release(Path(dataset).expanduser(), arguments, split)


def open_release(path: Path, arguments: OneDataset, split: str) -> Source:
    """The clips of a release folder, of its parent, or of an archive of either."""
    if path.is_file():
        path = unpack_once(path)
    folder = _pick_folder(path, arguments.language)
    split = pick_split(split, [name for name in SPLITS if (folder / f"{name}.tsv").is_file()], folder)
    table = read_table(folder / f"{split}.tsv")
    columns = find_columns(arguments, table.columns, table.path, OWN_NAMES)
    durations = _read_durations(folder / "clip_durations.tsv")
    locales = set()
    table.rows = _noting(locales, table.rows)
    clips = list(clips_of(table, columns, table.path.name))
    for clip in clips:
        if isinstance(clip, Clip):
            clip.stated_seconds = durations.get(clip.locator)
    language = _checked_language(arguments.language, locales - {None, ""}, folder)
    return Source(KIND, split, language, clips, lambda clip: read_place(str(folder / "clips" / clip.locator)))


def _noting(locales: set[str | None], rows: Iterable[Row | BadRow]) -> Iterator[Row | BadRow]:
    for row in rows:
        if isinstance(row, Row) and not row.is_cut:
            locales.add(row.values.get("locale"))
        yield row


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
    if language and stated and stated.partition("-")[0] != language.partition("-")[0]:
        raise DataError(f"{folder} holds the language {stated!r}, but --language is {language!r}.")
    return language or stated
