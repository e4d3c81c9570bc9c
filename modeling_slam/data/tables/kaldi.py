"""Kaldi's data directory: wav.scp (clip and file), text (clip and words) and, if there, utt2spk.

Source: https://kaldi-asr.org/doc/data_prep.html
"""

from collections.abc import Iterator
from pathlib import Path

from modeling_slam.data.clips import DataError
from modeling_slam.data.tables.rows import BadRow, Row, Table, read_lines, shown

COLUMNS = ["id", "audio", "text", "speaker"]


def read_kaldi(path: Path) -> Table:
    """The clips of a wav.scp, with the texts and speakers of the files beside it.

    Raises:
        DataError: there is no `text`, or `segments` says that recordings hold several clips.
    """
    if (path.parent / "segments").is_file():
        raise DataError(
            f"{path.parent} has `segments`: its recordings hold several clips each, and those are not cut "
            "out here. Write one file per clip first, for example with Kaldi's extract-segments."
        )
    if not (path.parent / "text").is_file():
        raise DataError(f"{path} has no file `text` beside it, so its clips have no transcripts.")
    return Table(path, COLUMNS, _rows(path), id_column="id")


def _rows(path: Path) -> Iterator[Row | BadRow]:
    texts = dict(_pairs(path.parent / "text"))
    speakers = dict(_pairs(path.parent / "utt2spk")) if (path.parent / "utt2spk").is_file() else {}
    heard = set()
    for number, line in read_lines(path):
        if not line.strip():
            continue
        clip, place = _key_and_rest(line)
        heard.add(clip)
        if place.endswith("|"):
            yield BadRow(number, f"is a command ({shown(line)}), not a file. Run it and name what it writes")
        else:
            values = {"id": clip, "audio": place, "text": texts.get(clip), "speaker": speakers.get(clip)}
            yield Row(number, values)
    for number, clip in enumerate(texts, start=1):
        if clip not in heard:
            yield BadRow(number, f"of `text` is of {shown(clip)}, which wav.scp does not name")


def _pairs(path: Path) -> Iterator[tuple[str, str]]:
    return (_key_and_rest(line) for _, line in read_lines(path) if line.strip())


def _key_and_rest(line: str) -> tuple[str, str]:
    key, *rest = line.split(maxsplit=1)
    return key, rest[0].rstrip() if rest else ""
