"""Recordings without a table: a text file of the same name beside each, or folders named after the words."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from modeling_slam.common.files import files_below
from modeling_slam.data.clips import DataError
from modeling_slam.data.columns import AUDIO_SUFFIXES
from modeling_slam.data.tables.rows import Row, Table, read_lines

KIND = "audio beside text"
LABEL = "label"  # as the `datasets` library calls the name of the folder


def recordings(root: Path) -> Iterator[Path]:
    """The audio files below `root`, in order."""
    return (file for file in files_below(root) if file.suffix.lower() in AUDIO_SUFFIXES)


def table_of(root: Path, files: Sequence[Path], text_column: str) -> Table:
    """What the folders say, as a table of file, text and label.

    Raises:
        DataError: no recording has a text, and labels are not asked for.
    """
    texts = {} if text_column == LABEL else {file: _text_of(file) for file in files}
    if text_column != LABEL and not any(text is not None for text in texts.values()):
        folders = sorted({file.parent.name for file in files})
        raise DataError(
            f"{root} has {len(files):,} recordings and no transcripts: expected a table such as metadata.csv "
            f"(file_name,text), or a .txt beside each. If the folders ({', '.join(folders[:5])}) are named "
            f"after what is said in them, add --text_column {LABEL}."
        )
    rows = []
    for file in files:
        name = file.relative_to(root).as_posix()
        rows.append(Row(name, {"audio": name, "text": texts.get(file), LABEL: file.parent.name}))
    return Table(root, ["audio", "text", LABEL], rows, unit="recording")


def _text_of(file: Path) -> str | None:
    """The lines of the text beside a recording; None if there is none."""
    for text in (file.with_suffix(".txt"), file.with_suffix(".TXT")):
        if text.is_file():
            return "\n".join(line for _, line in read_lines(text))
    return None
