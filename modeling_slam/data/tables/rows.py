"""What a reader of tables hands over, and the lines of a text file in the encoding that it has."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modeling_slam.data.clips import DataError

HEAD_CHARACTERS = 1 << 16  # Enough to see how lines end.
# Bytes that are not UTF-8 are read as these, one each (PEP 383), so that the lines around them are read.
UNDECODABLE = re.compile("[\udc80-\udcff]")
PACKED = {"gzip": b"\x1f\x8b\x08", "zip, as spreadsheets are too": b"PK\3\4", "zstd": b"(\xb5/\xfd"}
DAMAGE = re.compile("[\ud800-\udfff\ufffd\0]")


@dataclass(slots=True)
class Row:
    """One row: where it begins (from 1, or a name), and its values by column.

    `is_cut` marks a line that ended before its last columns.
    """

    line: int | str
    values: dict[str, Any]
    is_cut: bool = False


@dataclass(slots=True)
class BadRow:
    """A row that cannot be used, with what is wrong and what to do."""

    line: int | str
    problem: str


@dataclass
class Table:
    """Columns and rows of a file. `unit` is what the numbers of rows count.

    `id_column` is set where the format itself names its clips.
    """

    path: Path
    columns: list[str]
    rows: Iterable[Row | BadRow]
    unit: str = "line"
    id_column: str | None = None


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number, text) of the lines of a file in UTF-8, UTF-16 or UTF-32, with a byte order mark or without.

    Lines end where an editor ends them (LF, CR LF, or CR where a file has no other); all else that Python
    takes for a line's end is part of the text.

    Raises:
        DataError: it is packed, and no text.
    """
    with path.open("rb") as file:
        start = file.read(4)
    for name, sign in PACKED.items():
        if start.startswith(sign):
            raise DataError(f"{path} is packed ({name}); unpack it, or save it as text, and name that file.")
    encoding = json.detect_encoding(start)
    errors = "surrogateescape" if encoding.startswith("utf-8") else "replace"
    with path.open(encoding=encoding, errors=errors, newline="") as file:
        head = file.read(HEAD_CHARACTERS)
    newline = "\r" if "\r" in head and "\n" not in head else "\n"
    with path.open(encoding=encoding, errors=errors, newline=newline) as file:
        for number, line in enumerate(file, start=1):
            yield number, line.rstrip("\r\n")


def damage_in(text: str) -> str | None:
    """What shows that a value is not what its writer meant; None for sound text."""
    found = DAMAGE.search(text)
    if found is None:
        return None
    sign = found.group()
    if UNDECODABLE.match(sign):
        meant = text.encode("utf-8", errors="surrogateescape").decode("cp1252", errors="replace")
        return (
            f"is not UTF-8: it has byte 0x{ord(sign) - 0xDC00:02X}. Were it Windows-1252, it would read "
            f"{shown(meant)}: then save the table as UTF-8, with `iconv -f WINDOWS-1252 -t UTF-8` for example"
        )
    names = {"\0": "a NUL character", "\ufffd": "a replacement character, which a wrong conversion left"}
    return f"holds {names.get(sign, 'half of a character (a lone surrogate)')}, in {shown(text)}"


def shown(text: str, length: int = 60) -> str:
    """The beginning of a text in quotes, as any terminal and file can hold it."""
    return repr(text if len(text) <= length else text[:length] + "…")
