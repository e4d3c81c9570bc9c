"""Tables of clips on disk, and folders that say the same without a table.

    speech/train/metadata.csv      AudioFolder: file_name,text beside the recordings, in one place or in many
    speech/train.jsonl             manifests: csv, tsv, json, jsonl or parquet, a file for each split
    speech.csv                     a single file, with a column `split` or without any splits
    data/train/wav.scp, text       Kaldi
    speech/train/a.wav, a.txt      a text beside each recording

Here the tables of a split are found; formats stand in `data/tables/`, names of columns in `data/columns.py`.
Paths are relative to the table that names them. Further columns are ignored.

Source: https://huggingface.co/docs/datasets/audio_dataset
"""

import os
import re
import unicodedata
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath

from modeling_slam.common.files import files_below
from modeling_slam.data.arguments import OneDataset
from modeling_slam.data.arrow_tables import hold_sound, open_parquet
from modeling_slam.data.clips import Clip, DataError, MissingSplitError, Source, read_place
from modeling_slam.data.columns import Columns, clips_of, find_columns
from modeling_slam.data.report import Drop
from modeling_slam.data.sources import audio_beside_text
from modeling_slam.data.splits import WORDS, names_in, pick_split, split_of_path, stated_split
from modeling_slam.data.tables import READERS, BadRow, Row, Table, read_table

DESCRIPTION = (
    "a table of clips (.csv, .tsv, .json, .jsonl, .parquet or wav.scp), a directory of them such as "
    "<split>/metadata.csv or <split>.jsonl, or one of recordings with a .txt beside each"
)
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
KALDI = "wav.scp"
NO_TABLES = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json")
SUFFIXES = tuple(suffix for suffix in READERS if suffix != ".scp")  # Kaldi has other lists of that kind.
OWN_NAMES = {"audio": "file_name"}


def recognises(dataset: str) -> bool:
    path = Path(dataset).expanduser()
    if path.is_file():
        return _is_table(path.name)
    return path.is_dir() and (any(_all_tables(path)) or any(audio_beside_text.recordings(path)))


def open_source(dataset: str, arguments: OneDataset, split: str) -> Source:
    root = Path(dataset).expanduser()
    if arguments.dataset_config is not None:
        root = root / arguments.dataset_config
        if not root.is_dir():
            raise DataError(f"{dataset} has no folder for the configuration {arguments.dataset_config}.")
    there = _tables(root)
    if not there:
        return _open_recordings(root, arguments, split)
    name, files = _files_of_split(root, there, split)
    if hold_sound(files, arguments):
        source = open_parquet(files, arguments, name, split)
    else:
        tables = _with_columns(files, arguments)
        if name is None:
            name = _keep_split(tables, split, root)
        kind = "AudioFolder" if files[0].name in METADATA else "Kaldi" if files[0].name == KALDI else "table"
        source = _source(kind, name, arguments, list(_clips(tables, root)))
    source.note = _left_out(root, there, files)
    return source


def _open_recordings(root: Path, arguments: OneDataset, split: str) -> Source:
    recordings = list(audio_beside_text.recordings(root))
    name, recordings = _files_of_split(root, recordings, split, parts_only=True)
    table = audio_beside_text.table_of(root, recordings, arguments.text_column)
    columns = find_columns(arguments, table.columns, root)
    return _source(
        audio_beside_text.KIND, name, arguments, _placed(clips_of(table, columns, root.name), root)
    )


def _source(kind: str, split: str | None, arguments: OneDataset, clips: list[Clip | Drop]) -> Source:
    return Source(
        kind, split, arguments.language, clips, lambda clip: read_place(clip.locator), arguments.streaming
    )


def _with_columns(files: Sequence[Path], arguments: OneDataset) -> list[tuple[Table, Columns]]:
    tables = []
    for file in files:
        table = read_table(file)
        own = OWN_NAMES | ({"id": table.id_column} if table.id_column else {})
        tables.append((table, find_columns(arguments, table.columns, file, own)))
    return tables


def _is_table(name: str) -> bool:
    return name == KALDI or (name.lower().endswith(SUFFIXES) and name not in NO_TABLES)


def _all_tables(root: Path) -> Iterator[Path]:
    return (file for file in files_below(root) if _is_table(file.name))


def _tables(root: Path) -> list[Path]:
    """The tables below `root` that list its clips: those of the layout that it has, or all there are."""
    if root.is_file():
        return [root]
    files = list(_all_tables(root))
    for names in (METADATA, (KALDI,)):
        if own := [file for file in files if file.name in names]:
            return own
    return files


def _files_of_split(
    root: Path, files: Sequence[Path], wanted: str, parts_only: bool = False
) -> tuple[str | None, list[Path]]:
    """The split and those of the files that are its; None where no name tells of splits: all of them.

    `parts_only`: the name of a file says nothing, only those of its folders.

    Raises:
        MissingSplitError: the files are of other splits.
    """
    below = {file: file.relative_to(root) if file != root else PurePath(file.name) for file in files}
    if parts_only:
        below = {file: path.parent / "x" for file, path in below.items()}
    if own := [file for file, path in below.items() if wanted in names_in(path) and file != root]:
        return wanted, own
    named = {file: split_of_path(path) for file, path in below.items() if file != root}
    splits = {name for name in named.values() if name}
    if splits:
        name = pick_split(wanted, splits, root)
        return name, [file for file in files if named[file] == name]
    if wanted.lower() not in WORDS:
        folders = {part for path in below.values() for part in path.parts[:-1]}
        raise MissingSplitError(wanted, sorted(folders), root)
    card = root / "README.md"
    if card.is_file() and "data_files:" in card.read_text(encoding="utf-8", errors="replace"):
        raise DataError(
            f"{card} says which files are which split; read one by its own name, --dataset {files[0]}."
        )
    return None, list(files)


def _left_out(root: Path, there: Sequence[Path], read: Sequence[Path]) -> str | None:
    """A line about tables that tell of no split where others do; `None` if there are none."""
    names = [file.name for file in there if file.parent == root and file not in read]
    names = [name for name in names if split_of_path(PurePath(name)) is None]
    if not names:
        return None
    return (
        f"not read: {', '.join(names)}, of no split where other tables are of one; to read one, name it with "
        "--dataset"
    )


def _keep_split(tables: Sequence[tuple[Table, Columns]], wanted: str, root: Path) -> str | None:
    """Leave the rows of one split in the tables, if their rows tell of splits; returns its name.

    They do in a column such as `split`, or by the folder that their audio lies in, as in `test/clip1.flac`.
    """
    splits, is_stated = set(), False
    for table, columns in tables:
        table.rows = list(table.rows)
        splits |= {_split_of_row(row, columns) for row in table.rows if isinstance(row, Row)}
        is_stated = is_stated or columns.split is not None
    # Who names a single file of one split means its rows, whatever folder they lie in.
    if splits <= {None} or (root.is_file() and len(splits) == 1 and not is_stated):
        return None
    name = pick_split(wanted, splits - {None}, root)
    for table, columns in tables:
        rows = []
        for row in table.rows:
            split = _split_of_row(row, columns) if isinstance(row, Row) else name
            if split is None:
                rows.append(BadRow(row.line, "belongs to no split, and others do"))
            elif split == name:
                rows.append(row)
        table.rows = rows
    return name


def _split_of_row(row: Row, columns: Columns) -> str | None:
    if stated := stated_split(columns.split, row.values.get(columns.split)):
        return stated
    place = row.values.get(columns.audio)
    if not isinstance(place, str):
        return None
    first, *rest = PurePath(place.replace("\\", "/")).parts or ("",)
    return first if rest and first.lower() in WORDS else None


def _clips(tables: Sequence[tuple[Table, Columns]], root: Path) -> Iterator[Clip | Drop]:
    """The clips of all tables, with ids that tell them apart and the places of their audio."""
    shared = os.path.commonpath([table.path.parent for table, _ in tables])
    for table, columns in tables:
        where = os.path.relpath(table.path, root) if root.is_dir() else table.path.name
        below = table.path.parent.relative_to(shared).as_posix()
        for row in _placed(clips_of(table, columns, where), table.path.parent, with_ids=columns.id is None):
            if columns.id is None and below != "." and isinstance(row, Clip):
                row.id = f"{below}/{row.id}"
            yield row


def _placed(rows: Iterable[Clip | Drop], folder: Path, with_ids: bool = True) -> list[Clip | Drop]:
    """The clips with the full place of their audio; its name is their id, without a folder that all share."""
    rows = list(rows)
    far = {row.locator for row in rows if isinstance(row, Clip) and _is_far(row.locator)}
    shared = os.path.commonprefix(list(far)).rfind("/") + 1  # noqa: RUF071 (cut back to a folder; URLs too)
    for row in rows:
        if isinstance(row, Clip):
            if with_ids and row.locator in far:
                row.id = row.locator[shared:]
            row.locator = _place(folder, row.locator, row.locator in far)
    return rows


def _is_far(name: str) -> bool:
    """Whether a name is an address or an absolute path, and not relative to its table."""
    may_be = (
        name.startswith(("/", "\\", "~/")) or ":" in name
    )  # millions are not: a path object takes its time
    return may_be and ("://" in name or name[0] == "~" or Path(name).is_absolute())


def _place(folder: Path, name: str, is_far: bool) -> str:
    """Where the audio is: an address, or a path."""
    if is_far and "://" in name and not name.startswith("file://"):
        return name
    place = f"{folder}{os.sep}{name}"
    if is_far:
        place = str(Path(re.sub("^file://(localhost)?", "", name)).expanduser())
    if (is_far or "\\" in name or not name.isascii()) and not Path(place).exists():
        # A table written on Windows; a disk that spells accents in another way than the table, as macOS does;
        # an address, in which signs are written as %20.
        places = (place, place.replace("\\", "/"), urllib.parse.unquote(place))
        spelt = (unicodedata.normalize(form, other) for other in places for form in ("NFC", "NFD"))
        return next((other for other in (*places, *spelt) if Path(other).exists()), place)
    return place
