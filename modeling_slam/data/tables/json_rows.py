"""JSON: an object per line, or one document: a list of objects, objects by the id of their clip, or columns.

Numbers stay as they are written: a transcript `1.50` or a speaker `1e3` is no quantity.
A row that is torn or no object is a bad row; reading goes on at the next line that begins an object.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modeling_slam.data.clips import DataError
from modeling_slam.data.tables.rows import BadRow, Row, Table, read_lines, shown

# NaN is what Python writes for a value that is missing.
DECODER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=lambda _: None)
END = " \t\r,"  # of a line
BLANK = tuple(" \t\r\n,")  # between the values of a list
TORN = "is the end of the file, but the list is not closed: the end may be lost"
NEXT_OBJECT = re.compile(r"\n\s*,?\s*(?=\{)|\}\s*,\s*(?=\{)")
EXPECTED = "Expected a list of objects, an object per line, one object of objects by id, or lists by column"


def read_json(path: Path) -> Table:
    """Whatever a file holds: NeMo writes lines, others a list, SpeechBrain objects by id, pandas columns."""
    text = "\n".join(line for _, line in read_lines(path))
    start = _after_blank(text, 0)
    if (end := text.find("\n", start)) >= 0 and text[end:].strip() and _is_whole(text[start:end]):
        return _lines(path, text)
    if text[start : start + 1] == "[":
        return _table(path, list(_items(text, start + 1, TORN)))
    try:
        whole, end = DECODER.raw_decode(text, start)
    except (json.JSONDecodeError, RecursionError):
        return _lines(path, text)
    if not isinstance(whole, dict):
        return _lines(path, text)
    if text[end:].strip():  # objects that take several lines each, or share one
        return _table(path, list(_items(text, start)))
    return _of_one(path, whole, is_row="\n" not in text[start:end])


def _is_whole(line: str) -> bool:
    """Whether a line is a JSON value by itself."""
    try:
        DECODER.decode(line.rstrip(END))
    except (json.JSONDecodeError, RecursionError):
        return False
    return True


def _lines(path: Path, text: str) -> Table:
    """An object per line; blank lines are no rows."""
    return _table(
        path, [_line_row(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    )


def _of_one(path: Path, whole: dict[str, Any], is_row: bool) -> Table:
    """The table that a single object is; it may be a row itself."""
    values = list(whole.values())
    tables = [
        value for value in values if isinstance(value, list) and any(isinstance(item, dict) for item in value)
    ]
    if len(tables) == 1:
        return _table(path, [_as_row(number, item) for number, item in enumerate(tables[0], 1)], unit="item")
    if whole and all(isinstance(value, dict) for value in values):
        if all(list(value) == [str(number) for number in range(len(values[0]))] for value in values):
            values = [list(value.values()) for value in values]  # as pandas writes columns
        else:
            named = enumerate(whole.items(), start=1)
            rows: list[Row | BadRow] = [Row(number, {"id": key} | value) for number, (key, value) in named]
            return _table(path, rows, unit="item", id_column="id")
    if (
        whole
        and all(isinstance(value, list) and len(value) == len(values[0]) for value in values)
        and not tables
    ):
        cells = enumerate(zip(*values, strict=True), start=1)
        return _table(
            path, [Row(number, dict(zip(whole, row, strict=True))) for number, row in cells], unit="item"
        )
    if is_row and sum(isinstance(value, list) for value in values) < 2:
        return _table(path, [Row(1, whole)])
    raise DataError(
        f"{path}: an object with {', '.join(map(repr, list(whole)[:5]))} is no table. {EXPECTED}."
    )


def _table(path: Path, rows: list[Row | BadRow], **more: Any) -> Table:
    if not any(isinstance(row, Row) for row in rows):
        first = next(
            (f": the first, line {row.line}, {row.problem}" for row in rows if isinstance(row, BadRow)), ""
        )
        raise DataError(f"{path} has no rows{first}. {EXPECTED}.")
    columns = dict.fromkeys(key for row in rows if isinstance(row, Row) for key in row.values)
    return Table(path, list(columns), rows, **more)


def _line_row(number: int, line: str) -> Row | BadRow:
    try:
        return _as_row(number, DECODER.decode(line.rstrip(END)))
    except (json.JSONDecodeError, RecursionError) as error:
        return _torn(number, line, error)


def _as_row(number: int, item: Any) -> Row | BadRow:
    if isinstance(item, dict):
        return Row(number, item)
    return BadRow(number, f"is {shown(json.dumps(item))}, which is no object of columns and values")


def _torn(number: int, text: str, error: Exception) -> BadRow:
    return BadRow(number, f"is no whole JSON object ({getattr(error, 'msg', error)}: {shown(text)})")


def _after_blank(text: str, position: int) -> int:
    while text[position : position + 1] in BLANK:
        position += 1
    return position


def _items(text: str, position: int, torn: str | None = None) -> Iterator[Row | BadRow]:
    """The objects from `position` on, in a list or one after the other; numbered by the line they begin in.

    `torn` is the problem of a list that is not closed.
    """
    line, counted = 1, 0
    while True:
        position = _after_blank(text, position)
        line, counted = line + text.count("\n", counted, position), position
        if position >= len(text):
            if torn:
                yield BadRow(line, torn)
            return
        if torn and text[position] == "]":
            if text[position + 1 :].strip():
                yield BadRow(line, "ends the list, but more stands after it. Put all objects into the list")
            return
        try:
            item, position = DECODER.raw_decode(text, position)
            yield _as_row(line, item)
        except (json.JSONDecodeError, RecursionError) as error:
            yield _torn(line, text[position : position + 200].partition("\n")[0], error)
            following = NEXT_OBJECT.search(text, position)
            if following is None:
                return
            position = following.end()
