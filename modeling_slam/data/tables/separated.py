"""CSV and TSV, line by line, so that no row can swallow its neighbours.

CSV: a value in double quotes may hold separators, doubled quotes and line breaks (RFC 4180). Whether a quote
that a line leaves open is closed later cannot be known for sure, so the rule is: the lines after it belong to
the value as long as none of them is a row by itself (the right number of values, no quotation mark), and the
whole must end as a well-formed row within `MOST_LINES`. Else that line alone is a bad row.
A mark elsewhere (`say "yes"`, `"yes" he said`) is a character of the text.

TSV: unquoted, as Common Voice, Kaldi and most speech corpora write it, unless its header is in quotes. A
value in quotes that holds doubled ones or a line break, which only a writer that quotes makes, is unquoted.
"""

import csv
import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from modeling_slam.data.clips import DataError
from modeling_slam.data.tables.rows import BadRow, Row, Table, read_lines, shown

SEPARATORS = (",", ";", "\t", "|")  # Spreadsheets in half of Europe write semicolons.
MOST_LINES = 100
SAID_SEPARATOR = re.compile(r"sep=.\s*")
QUOTED_WITH_QUOTES = re.compile(r'"(?:[^"]|"")*""(?:[^"]|"")*"')


def read_separated(path: Path) -> Table:
    """The rows below the first line, which names the columns; blank lines are no rows."""
    lines = read_lines(path)
    # Spreadsheets may say in front which separator they use, which is seen anyway.
    header = next((line for _, line in lines if line.strip() and not SAID_SEPARATOR.fullmatch(line)), None)
    if header is None:
        raise DataError(f"{path} is empty; expected a first line that names the columns.")
    is_csv = path.suffix.lower() == ".csv"
    separator = max(SEPARATORS, key=header.count) if is_csv else "\t"
    is_quoted = is_csv or header.startswith('"')
    columns = [name.strip() for name in _well_formed(header, separator) or header.split(separator)]
    if twice := [name for name in columns if name and columns.count(name) > 1]:
        raise DataError(f"{path} names the column {shown(twice[0])} twice; rename one of them.")
    rows = _csv_rows(lines, columns, separator) if is_quoted else _tsv_rows(lines, columns)
    return Table(path, columns, rows)


def _tsv_rows(lines: Iterator[tuple[int, str]], columns: list[str]) -> Iterator[Row | BadRow]:
    ahead: deque[tuple[int, str]] = deque()
    while (numbered := ahead.popleft() if ahead else next(lines, None)) is not None:
        number, line = numbered
        if not line.strip():
            continue
        values = line.split("\t")
        if values[-1].startswith('"') and _is_open(line, "\t"):
            values = _over_lines(line, lines, ahead, len(columns), "\t") or values
        if '""' in line:
            values = [_unquoted(value) for value in values]
        yield _row(number, values, columns, line)


def _csv_rows(lines: Iterator[tuple[int, str]], columns: list[str], separator: str) -> Iterator[Row | BadRow]:
    ahead: deque[tuple[int, str]] = deque()
    while (numbered := ahead.popleft() if ahead else next(lines, None)) is not None:
        number, line = numbered
        if not line.strip():
            continue
        if '"' not in line:
            yield _row(number, line.split(separator), columns, line)
        elif (values := _well_formed(line, separator)) is not None:
            yield _row(number, values, columns, line)
        elif not _is_open(line, separator):
            yield _row(number, line.split(separator), columns, line)
        elif (values := _over_lines(line, lines, ahead, len(columns), separator)) is not None:
            yield _row(number, values, columns, line)
        else:
            yield BadRow(
                number,
                f"opens a quotation mark that is never closed ({shown(line)}). Close it, or double the "
                'marks of a text ("") and put it in quotes',
            )


def _row(number: int, values: list[str], columns: list[str], line: str) -> Row | BadRow:
    """A row with a value for each column, or fewer, which is noted."""
    if len(values) > len(columns):
        return BadRow(
            number,
            f"has {len(values)} values for {len(columns)} columns ({shown(line)}). Put a text that holds "
            "the separator in double quotes (CSV), or take the tab out of it (TSV)",
        )
    return Row(number, dict(zip(columns, values, strict=False)), is_cut=len(values) < len(columns))


def _over_lines(
    line: str, lines: Iterator[tuple[int, str]], ahead: deque[tuple[int, str]], count: int, separator: str
) -> list[str] | None:
    """The values of a row that goes on in the next lines, which are then used up; None if it does not."""
    record, used = line, 0
    while used < MOST_LINES:
        if used == len(ahead):
            following = next(lines, None)
            if following is None:
                return None
            ahead.append(following)
        following_line = ahead[used][1]
        is_row = len(following_line.split(separator)) == count
        if is_row and (separator == "\t" or '"' not in following_line):
            return None
        record, used = f"{record}\n{following_line}", used + 1
        values = _well_formed(record, separator)
        if values is not None:
            if len(values) != count:
                return None
            for _ in range(used):
                ahead.popleft()
            return values
        if not _is_open(record, separator):
            return None
    return None


def _well_formed(record: str, separator: str) -> list[str] | None:
    """The values, if the record follows RFC 4180 from end to end, but for blanks before its quotes."""
    try:
        return next(csv.reader([record], delimiter=separator, strict=True, skipinitialspace=True))
    except csv.Error:
        return None


def _is_open(record: str, separator: str) -> bool:
    """Whether the record breaks off inside quotes: one more mark would make it whole."""
    return _well_formed(record + '"', separator) is not None


def _unquoted(value: str) -> str:
    return value[1:-1].replace('""', '"') if QUOTED_WITH_QUOTES.fullmatch(value) else value
