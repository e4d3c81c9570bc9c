"""Readers of tables: whatever bytes a file holds, its good rows are read and the others named."""

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeling_slam.data import DataArguments, DataError
from modeling_slam.data.clips import Clip
from modeling_slam.data.columns import clips_of, find_columns
from modeling_slam.data.tables import READERS, read_table
from modeling_slam.data.tables.rows import PACKED

GOOD = {f"{number}.wav": f"text number {number}" for number in range(6)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


def read(path: Path, content: str | bytes) -> tuple[dict[str, str], list]:
    """Audio -> text of the good rows, and the drops."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    table = read_table(path)
    rows = list(clips_of(table, find_columns(DataArguments("x"), table.columns, path), path.name))
    drops = [row for row in rows if not isinstance(row, Clip)]
    return {row.locator: row.text for row in rows if isinstance(row, Clip)}, drops


def csv_lines() -> list[str]:
    return ["audio,text", *(f"{name},{text}" for name, text in GOOD.items())]


# One line among good ones; each kind was seen in somebody's table.
BAD_LINES = [
    'x.wav,"he said', 'x.wav,"he ""said', 'x.wav,one, two', "x.wav", "x.wav,thr\0ee", "\0\0\0\0", ",no name",
    "x.wav,\ud83d", "x.wav,caf\ufffd", '"x.wav,y', '"', "x.wav,a,b,c,d", "garbage",
]  # fmt: skip


@pytest.mark.parametrize("place", [1, 3, 7])
@pytest.mark.parametrize("bad", BAD_LINES)
def test_a_bad_line_of_a_csv_takes_nothing_with_it_wherever_it_stands(folder, bad, place):
    lines = csv_lines()
    lines.insert(place, bad)
    found, drops = read(folder / "t.csv", "\n".join(lines) + "\n")
    assert found == GOOD
    assert [drop.id for drop in drops] == [f"t.csv line {place + 1}"]
    assert f"t.csv, line {place + 1}: " in drops[0].detail
    drops[0].detail.encode("utf-8")  # whatever the file holds, a terminal can show it


@pytest.mark.fuzz
@given(st.text(alphabet=st.characters(exclude_characters="\r\n"), max_size=40), st.integers(1, 7))
def test_any_line_among_good_ones_takes_nothing_with_it(folder, line, place):
    lines = csv_lines()
    lines.insert(place, line)
    found, drops = read(folder / "any.csv", "\n".join(lines) + "\n")
    assert len(drops) <= 1
    # A few words may be the rest of the text above, which cannot be known: then both go, and are named.
    kept = GOOD.items() - found.items()
    assert not kept or (len(kept) == 1 and "line break inside its text" in drops[0].detail)


@pytest.mark.fuzz
@given(st.binary(max_size=300), st.sampled_from(sorted(set(READERS) - {".scp"})))
def test_any_bytes_are_a_table_or_a_clear_error(folder, content, suffix):
    with contextlib.suppress(DataError):
        found, drops = read(folder / f"bytes{suffix}", content)
        json.dumps([found, [drop.detail for drop in drops]], ensure_ascii=False).encode("utf-8")


@pytest.mark.fuzz
@given(st.lists(st.text(alphabet='ab",\n ', max_size=12), min_size=1, max_size=6))
def test_what_a_csv_writer_writes_is_read_as_it_was(folder, texts):
    quoted = ['"' + text.replace('"', '""') + '"' for text in texts]
    content = "\n".join(["audio,text,speaker", *(f"{n}.wav,{text},me" for n, text in enumerate(quoted))])
    found, drops = read(folder / "written.csv", content)
    for number, text in enumerate(texts):
        # A line inside a text that looks like a row of its own ends the text: then the row is named.
        assert found.get(f"{number}.wav") == text or drops


@pytest.mark.fuzz
@given(st.binary(max_size=60), st.integers(0, 6))
def test_any_line_of_jsonl_takes_nothing_with_it(folder, line, place):
    lines = [json.dumps({"audio": name, "text": text}).encode() for name, text in GOOD.items()]
    lines.insert(place, line.replace(b"\n", b"").replace(b"\r", b""))
    if lines[0][:4].startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in lines[0][:4]:
        return  # says that the file is in another encoding
    if lines[0].startswith(tuple(PACKED.values())):
        return  # says that it is no text
    found, _ = read(folder / "t.jsonl", b"\n".join(lines))
    assert found == GOOD


@pytest.mark.parametrize("first", ["0]", "{}]", "]", '{"audio": "x.wav"', "{} x"])
def test_a_first_line_that_is_no_row_takes_none_with_it(folder, first):
    lines = [first, *(json.dumps({"audio": name, "text": text}) for name, text in GOOD.items())]
    found, _ = read(folder / "first.jsonl", "\n".join(lines))
    assert GOOD.items() <= found.items()


def test_numbers_are_texts_as_they_are_written_and_lists_are_named(folder):
    rows = [
        '{"audio": "a.wav", "text": 5, "speaker": 0}', '{"audio": "b.wav", "text": 1.50, "speaker": 1e3}',
        '{"audio": "c.wav", "text": true}', '{"audio": "d.wav", "text": NaN}',
        '{"audio": "e.wav", "text": ["a", "b"]}', '{"audio": "f.wav", "text": {"nl": "a"}}', "[1]", "7",
    ]  # fmt: skip
    found, drops = read(folder / "numbers.jsonl", "\n".join(rows))
    assert found == {"a.wav": "5", "b.wav": "1.50", "c.wav": "true", "d.wav": ""}
    assert ["'text'" in drop.detail for drop in drops] == [True, True, False, False]


def test_a_line_break_inside_a_text_gives_no_half_of_it_wherever_the_text_stands(folder):
    for header, row in (
        ("audio\ttext", "x.wav\tfirst half\nsecond half"),
        ("text\taudio", "first half\nsecond half\tx.wav"),
        ("audio\ttext\tspeaker", "x.wav\tfirst half\nsecond half\tme"),
    ):
        cells = [{"audio": "a.wav", "text": "whole", "speaker": "me"}[name] for name in header.split("\t")]
        good = "\t".join(cells)
        found, drops = read(folder / "t.tsv", f"{header}\n{good}\n{row}\n{good.replace('a.wav', 'b.wav')}\n")
        assert found == {"a.wav": "whole", "b.wav": "whole"}
        assert len(drops) == 1
        assert "'x.wav' goes on in line 4" in drops[0].detail


def test_rows_that_lost_their_empty_last_cells_are_read(folder):
    content = "audio\ttext\tlocale\tsegment\na.wav\tone\tnl\nb.wav\ttwo\tnl\n"
    assert read(folder / "trimmed.tsv", content) == ({"a.wav": "one", "b.wav": "two"}, [])


def test_a_table_in_another_encoding_is_told_by_file_line_and_encoding(folder):
    rows = "".join(f"{number}.wav,så {number}\n" for number in range(5))
    with pytest.raises(
        DataError, match=r"5 of 5 rows.*latin\.csv, line 2.*0xE5.*Windows-1252.*'så 0'.*iconv"
    ):
        read(folder / "latin.csv", ("audio,text\n" + rows).encode("latin-1"))
    sound = "".join(f"{number}.wav,sund\n" for number in range(30))
    found, drops = read(folder / "few.csv", ("audio,text\n" + sound + rows).encode("latin-1"))
    assert len(found) == 30
    assert [drop.reason for drop in drops] == ["not UTF-8"] * 5


def test_columns_are_found_by_usual_names_and_a_choice_is_asked_for():
    def find(*available, **flags):
        return find_columns(DataArguments("x", **flags), available, "t.csv")

    for audio, text, speaker in (
        ("audio_filepath", "text", "speaker"), ("path", "sentence", "client_id"),
        ("Audio Path", "Transcript", "Speaker-ID"), ("wav", "words", "spk_id"),
    ):  # fmt: skip
        columns = find("note", audio, text, speaker)
        assert (columns.audio, columns.text, columns.speaker) == (audio, text, speaker)
    assert find("audio", "path", "text", "sentence").text == "text"
    assert find("audio", "sentence", "transcript", text_column="transcript").text == "transcript"
    with pytest.raises(DataError, match=r"sentence and transcript.*may be the text.*--text_column"):
        find("audio", "sentence", "transcript")
    with pytest.raises(DataError, match=r"no column 'who' \(--speaker_column\); it has audio, text"):
        find("audio", "text", speaker_column="who")
