"""JSON: an object per line, or one document that holds a list of objects, or objects by the id of their clip.

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
BLANK = tuple(" \t\r\n,")  # between the values of a list
NEXT_OBJECT = re.compile(r"\n\s*,?\s*(?=\{)|\}\s*,\s*(?=\{)")
EXPECTED = "Expected a list of objects, an object per line, or one object of objects by id"


def read_json_lines(path: Path) -> Table:
    """An object per line; blank lines are no rows."""
    rows = [_line_row(number, line) for number, line in read_lines(path) if line.strip()]
    return _table(path, rows)


def read_json_table(path: Path) -> Table:
    """Whatever a .json file holds: NeMo writes lines, others a list, SpeechBrain objects by id."""
    text = "\n".join(line for _, line in read_lines(path))
    start = _after_blank(text, 0)
    if text[start : start + 1] == "[":
        return _table(path, list(_items(text, start + 1)))
    try:
        whole, end = DECODER.raw_decode(text, start)
    except json.JSONDecodeError:
        return read_json_lines(path)
    if text[end:].strip() or not isinstance(whole, dict):
        return read_json_lines(path)
    lists = [value for value in whole.values() if isinstance(value, list)]
    if len(lists) == 1:
        return _table(path, [_as_row(number, item) for number, item in enumerate(lists[0], 1)], unit="item")
    if whole and all(isinstance(value, dict) for value in whole.values()):
        named = enumerate(whole.items(), start=1)
        rows: list[Row | BadRow] = [Row(number, {"id": key} | value) for number, (key, value) in named]
        return _table(path, rows, unit="item", id_column="id")
    if text[start:].count("\n") == 0:  # a single row, written as a line
        return _table(path, [Row(1, whole)])
    raise DataError(
        f"{path}: an object with {', '.join(map(repr, list(whole)[:5]))} is no table. {EXPECTED}."
    )


def _table(path: Path, rows: list[Row | BadRow], **more: Any) -> Table:
    if not rows:
        raise DataError(f"{path} has no rows. {EXPECTED}.")
    columns = dict.fromkeys(key for row in rows if isinstance(row, Row) for key in row.values)
    return Table(path, list(columns), rows, **more)


def _line_row(number: int, line: str) -> Row | BadRow:
    try:
        return _as_row(number, DECODER.decode(line))
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


def _items(text: str, position: int) -> Iterator[Row | BadRow]:
    """The objects of a list, whose `[` stands before `position`; numbered by the line they begin in."""
    line, counted = 1, 0
    while True:
        position = _after_blank(text, position)
        line, counted = line + text.count("\n", counted, position), position
        if position >= len(text):
            yield BadRow(line, "is the end of the file, but the list is not closed: the end may be lost")
            return
        if text[position] == "]":
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
