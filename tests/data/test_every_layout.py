"""Every layout, format and encoding in the table of docs/data.md is really read, and comes out as stated."""

import gzip
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from modeling_slam.data import DataArguments, DataError, load_speech

DOCS = Path(__file__).parents[2] / "docs" / "data.md"
TEXTS = {"a.wav": "één", "b.wav": "two"}  # what is read of every corpus below; `één` tells encodings apart
ROWS = [{"audio": name, "text": text} for name, text in TEXTS.items()]
FILE_ROWS = [{"file_name": name, "text": text} for name, text in TEXTS.items()]
CSV = "file_name,text\na.wav,één\nb.wav,two\n"
CV_HEADER = "client_id\tpath\tsentence\tup_votes\tlocale\tsegment\n"
CV = CV_HEADER + "me\ta.wav\téén\t2\tnl\t\nyou\tb.wav\ttwo\t2\tnl\t\n"


def lines(rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def parquet(path: Path, rows: list[dict]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path)


class Corpus:
    """A directory to be filled: `sound` writes recordings, `write` any other file."""

    def __init__(self, root: Path, tone):
        self.root, self.tone = root, tone

    def sound(self, folder: str = "", names=("a.wav", "b.wav", "c.wav")) -> Path:
        (self.root / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            soundfile.write(self.root / folder / name, self.tone, 16_000)
        return self.root / folder

    def write(self, name: str, content: str | bytes, encoding: str = "utf-8") -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        return self.root


Made = Path | dict  # where the corpus is, or the arguments to read it with
LAYOUTS: dict[str, Callable[[Corpus], Made]] = {}


def layout(name: str):
    def add(make: Callable[[Corpus], Made]) -> Callable[[Corpus], Made]:
        LAYOUTS[name] = make
        return make

    return add


def audio_folder(name: str, content: str | bytes, encoding: str = "utf-8", table: str = "metadata.csv"):
    """A row of the table about what stands in a metadata file."""

    @layout(name)
    def make(corpus: Corpus) -> Path:
        corpus.sound("test")
        return corpus.write(f"test/{table}", content, encoding)


def manifest(name: str, table: str, content: str | bytes) -> None:
    """A row about a table beside its recordings, for a split."""

    @layout(name)
    def make(corpus: Corpus) -> Path:
        corpus.sound()
        return corpus.write(table, content)


audio_folder("AudioFolder, `test/metadata.csv`", CSV)
audio_folder("AudioFolder, `test/metadata.jsonl`", lines(FILE_ROWS), table="metadata.jsonl")


@layout("AudioFolder, `test/metadata.parquet`")
def _(corpus):
    parquet(corpus.sound("test") / "metadata.parquet", FILE_ROWS)
    return corpus.root


@layout("AudioFolder, one `metadata.csv` at the root that names `test/a.wav`")
def _(corpus):
    corpus.sound("test")
    corpus.sound("train")
    content = CSV.replace("a.wav", "test/a.wav").replace("b.wav", "test/b.wav") + "train/a.wav,other\n"
    return corpus.write("metadata.csv", content)


@layout("AudioFolder, `test/metadata.csv` and one at the root that tells of no split")
def _(corpus):
    corpus.sound("test")
    corpus.sound(names=["d.wav"])
    corpus.write("metadata.csv", "file_name,text\nd.wav,other\n")
    return corpus.write("test/metadata.csv", CSV)


@layout("AudioFolder, a `metadata.csv` in each folder of `test/`")
def _(corpus):
    for name, text in TEXTS.items():
        corpus.sound(f"test/{text}", [name])
        corpus.write(f"test/{text}/metadata.csv", f"file_name,text\n{name},{text}\n")
    return corpus.root


@layout("AudioFolder without splits, `metadata.csv` beside its recordings")
def _(corpus):
    corpus.sound()
    return corpus.write("metadata.csv", CSV)


@layout("folders named after the words in them")
def _(corpus):
    for name, text in TEXTS.items():
        corpus.sound(f"test/{text}", [name])
    return corpus.root


@layout("folders named after the words in them, `--text_column label`")
def _(corpus):
    for name, text in TEXTS.items():
        corpus.sound(f"test/{text}", [name])
    return {"dataset": corpus.root, "text_column": "label"}


@layout("`test/a.wav` and `test/a.txt`")
def _(corpus):
    corpus.sound("test", TEXTS)
    for name, text in TEXTS.items():
        corpus.write(f"test/{Path(name).stem}.txt", text + "\n")
    return corpus.root


@layout("`test/a.wav` and `test/a.txt`, one recording without a text")
def _(corpus):
    corpus.sound("test")
    for name, text in TEXTS.items():
        corpus.write(f"test/{Path(name).stem}.txt", text + "\n", "utf-16")
    return corpus.root


def kaldi(corpus, scp: str = "") -> Path:
    corpus.sound("test")
    corpus.write("test/wav.scp", "a.wav a.wav\nb.wav b.wav\n" + scp)
    corpus.write("test/utt2spk", "a.wav me\nb.wav you\n")
    return corpus.write("test/text", "a.wav één\nb.wav two\n")


layout("Kaldi, `test/wav.scp` and `test/text`")(kaldi)
layout("Kaldi, a command in `wav.scp`")(lambda corpus: kaldi(corpus, "c sph2pipe c.sph |\n"))


@layout("Kaldi with `segments`")
def _(corpus):
    kaldi(corpus)
    return corpus.write("test/segments", "a rec 0.0 1.0\n")


manifest("`test.csv`", "test.csv", CSV)
manifest("`test.tsv`", "test.tsv", CSV.replace(",", "\t"))
manifest("`test.jsonl`", "test.jsonl", lines(ROWS))
manifest("`test.json`, a list", "test.json", json.dumps(ROWS, indent=1))
manifest("`test.json`, a list inside an object", "test.json", json.dumps({"version": 1, "data": ROWS}))
manifest("`test.json`, objects by id (SpeechBrain)", "test.json",
         json.dumps({k: {"wav": k, "words": v, "length": 1.0} for k, v in TEXTS.items()}))  # fmt: skip
manifest("`test_manifest.json`, an object per line (NeMo)", "test_manifest.json",
         lines({"audio_filepath": k, "text": v, "duration": 1.0} for k, v in TEXTS.items()))  # fmt: skip
manifest("NeMo, a row with an `offset` into a recording", "test.json",
         lines([*ROWS, {"audio": "c.wav", "text": "part", "offset": 3.5}]))  # fmt: skip
manifest("NeMo, a row of the first `duration` of a longer recording, `offset` 0", "test.json",
         lines([*ROWS, {"audio": "c.wav", "text": "part", "offset": 0, "duration": 0.5}]))  # fmt: skip
manifest("columns `start`, `end` of clips in a recording", "test.csv",
         "audio,text,start,end\na.wav,één,0,1\nb.wav,two,7,8\nc.wav,part,0.0,0.5\n")  # fmt: skip


@layout("`test.parquet` of paths")
def _(corpus):
    corpus.sound()
    parquet(corpus.root / "test.parquet", ROWS)
    return corpus.root


@layout("`test-00000-of-00002.parquet` and on, with the sound inside")
def _(corpus):
    for number, row in enumerate(ROWS):
        sound = {"bytes": (corpus.sound() / row["audio"]).read_bytes(), "path": row["audio"]}
        parquet(corpus.root / f"test-0000{number}-of-00002.parquet", [row | {"audio": sound}])
    return corpus.root


@layout("a directory that `save_to_disk` wrote")
def _(corpus):
    corpus.sound()
    rows = [row | {"audio": {"bytes": None, "path": str(corpus.root / row["audio"])}} for row in ROWS]
    datasets.DatasetDict({"test": datasets.Dataset.from_list(rows)}).save_to_disk(corpus.root / "saved")
    return corpus.root / "saved"


@layout("a single file, without splits")
def _(corpus):
    corpus.sound("sounds")
    content = CSV.replace("a.wav", "sounds/a.wav").replace("b.wav", "sounds/b.wav")
    return corpus.write("mine.csv", content) / "mine.csv"


@layout("a single file with a column `split`")
def _(corpus):
    corpus.sound()
    content = "path,sentence,split\na.wav,één,test\nb.wav,two,test\nc.wav,three,train\n"
    return corpus.write("mine.csv", content) / "mine.csv"


@layout("a single file with a column `Subset` or `partition`")
def _(corpus):
    corpus.sound()
    content = "Path,Sentence,Subset\na.wav,één,Test\nb.wav,two,Test\nc.wav,three,Train\n"
    return corpus.write("mine.csv", content) / "mine.csv"


@layout("`train_dev_test.csv` with a column `split`")
def _(corpus):
    corpus.sound()
    content = "path,sentence,split\na.wav,één,test\nb.wav,two,test\nc.wav,three,train\n"
    return corpus.write("train_dev_test.csv", content)


@layout("parquet with the sound inside and a column `split`")
def _(corpus):
    sound = corpus.sound()
    rows = [*ROWS, {"audio": "c.wav", "text": "three"}]
    rows = [row | {"split": "train" if row["text"] == "three" else "test",
                   "audio": {"bytes": (sound / row["audio"]).read_bytes(), "path": row["audio"]}}
            for row in rows]  # fmt: skip
    parquet(corpus.root / "mine.parquet", rows)
    return corpus.root / "mine.parquet"


@layout("parquet with maps in a column, and a text that is not UTF-8")
def _(corpus):
    corpus.sound()
    texts = [*(text.encode() for text in TEXTS.values()), b"tr\xe9"]
    table = {"audio": [*TEXTS, "c.wav"], "text": pa.array(texts).view(pa.string())}
    table["more"] = pa.array([[("k", 1)]] * 3, pa.map_(pa.string(), pa.int64()))
    pq.write_table(pa.table(table), corpus.root / "test.parquet")
    return corpus.root


@layout("parquet, texts as bytes, as Spark writes them")
def _(corpus):
    corpus.sound()
    parquet(corpus.root / "test.parquet", [row | {"text": row["text"].encode()} for row in ROWS])
    return corpus.root


@layout("an archive (.tar, .tar.gz) of any of these")
def _(corpus):
    corpus.sound("test")
    shutil.make_archive(str(corpus.root.parent / "mine"), "gztar", corpus.write("test/metadata.csv", CSV))
    return corpus.root.parent / "mine.tar.gz"


manifest("a table that is packed (.gz, .xlsx)", "test.csv", gzip.compress(CSV.encode()))


@layout("files without splits, validated on without `--validation_share`")
def _(corpus):
    corpus.sound()
    return {"dataset": corpus.write("mine.csv", CSV), "test_split": "validation"}


@layout("Common Voice, with a byte order mark and empty durations")
def _(corpus):
    corpus.sound("nl/clips")
    corpus.write("nl/clip_durations.tsv", "clip\tduration[ms]\na.wav\t\nb.wav\t1000\n")
    return corpus.write("nl/test.tsv", CV, "utf-8-sig")


def broken_voice(corpus, row: str) -> Path:
    corpus.sound("nl/clips")
    return corpus.write("nl/test.tsv", CV + row)


layout("Common Voice, a line break inside a sentence")(
    lambda corpus: broken_voice(corpus, "me\tc.wav\tfirst half\nsecond half\t2\tnl\t\n")
)
layout("Common Voice, a tab inside a sentence")(
    lambda corpus: broken_voice(corpus, "me\tc.wav\tfirst half\tsecond half\t2\tnl\t\n")
)

layout("Common Voice, a tab inside a sentence and the last empty cell lost")(
    lambda corpus: broken_voice(corpus, "me\tc.wav\tfirst half\tsecond half\t2\tnl\n")
)

audio_folder("columns `path`, `sentence`", CSV.replace("file_name,text", "path,sentence"))
audio_folder(
    "columns `Audio File`, `Transcription`", CSV.replace("file_name,text", "Audio File,Transcription")
)
audio_folder("columns `wav_filename`, `transcript` (DeepSpeech)",
             CSV.replace("file_name,text", "wav_filename,transcript"))  # fmt: skip
audio_folder("columns `file_name`, `transcript`, `sentence`: either may be the text",
             "file_name,transcript,sentence\na.wav,één,één\n")  # fmt: skip
audio_folder("no column of a usual name", "name;remark\na.wav;één\n")

audio_folder("CSV with semicolons", CSV.replace(",", ";"))
audio_folder("CSV with tabs or bars", CSV.replace(",", "|"))
audio_folder("CSV, `sep=;` in front", "sep=;\n" + CSV.replace(",", ";"))
audio_folder("CSV, a blank before a quote", CSV.replace(",two", ', "two,"'))
audio_folder("CSV, a text with a comma in quotes", CSV.replace("two", '"two,"'))
audio_folder("CSV, doubled quotes in quotes", CSV.replace("two", '"""two"""'))
audio_folder("CSV, a line break in quotes", CSV.replace("two", '"two\n"'))
audio_folder("CSV, quotes in a text without quotes around it", CSV.replace("two", '"two" "'))
audio_folder("CSV, a quote that is never closed", CSV + 'c.wav,"three\n')
audio_folder("CSV, a comma without quotes", CSV + "c.wav,three, four\n")
audio_folder("CSV, a line cut short", CSV + "c.wav")
audio_folder("CSV, a line break in a text without quotes", CSV + "c.wav,the first half\nand the second\n")
audio_folder("CSV, a row that names no audio", CSV + ",three\n")
audio_folder("CSV, blank lines", CSV.replace("\n", "\n\n"))
audio_folder("CSV without a row", "file_name,text\n")
manifest("TSV, all in quotes, as R writes it", "test.tsv",
         '"file_name"\t"text"\n"a.wav"\t"één"\n"b.wav"\t"two"\n')  # fmt: skip
manifest("TSV, a line break in quotes, as pandas writes it", "test.tsv",
         'file_name\ttext\na.wav\téén\nb.wav\t"two\n"\n')  # fmt: skip
audio_folder("paths of Windows, `sub\\a.wav`", CSV.replace("a.wav", "..\\test\\a.wav"))


@layout("a name that table and disk spell in two ways (`é`, NFC and NFD)")
def _(corpus):
    corpus.sound("test/e\u0301", ["a.wav"])
    corpus.sound("test", ["b.wav"])
    return corpus.write("test/metadata.csv", CSV.replace("a.wav", "\xe9/a.wav"))


@layout("an address `file://…`, with `%20` for a blank, and a name that begins with `~`")
def _(corpus):
    corpus.sound("my sounds", ["a.wav"])
    corpus.sound("~sounds", ["b.wav"])
    place = (corpus.root / "my sounds").as_uri()
    return corpus.write("test.csv", CSV.replace("a.wav", f"{place}/a.wav").replace("b.wav", "~sounds/b.wav"))


audio_folder("an address that does not answer", CSV + "http://127.0.0.1:9/gone.wav,three\n")
audio_folder("a file that is not there", CSV + "gone.wav,three\n")

manifest("`test.jsonl` that is a list", "test.jsonl", json.dumps(ROWS, indent=1))
manifest("JSON, commas at the ends of lines", "test.jsonl", lines(ROWS).replace("\n", ",\n"))
manifest(
    "JSON, objects of several lines each", "test.jsonl", "\n".join(json.dumps(row, indent=1) for row in ROWS)
)
manifest(
    "JSON, a list for each column", "test.json", json.dumps({"audio": [*TEXTS], "text": [*TEXTS.values()]})
)
manifest("JSON, columns by numbers of rows, as pandas writes them", "test.json",
         json.dumps({key: {str(n): row[key] for n, row in enumerate(ROWS)} for key in ROWS[0]}))  # fmt: skip
manifest("JSON, a torn line", "test.jsonl", lines(ROWS) + '{"audio": "c.wav", "te')
manifest("JSON, a torn object in a list", "test.json",
         json.dumps(ROWS)[:-1] + ',\n{"audio": "c.wav", "te\n]')  # fmt: skip
manifest("JSON, a row that is a list or a number", "test.jsonl", lines([*ROWS, [1, 2]]))
manifest("JSON, a text that is a list", "test.jsonl", lines([*ROWS, {"audio": "c.wav", "text": ["a", "b"]}]))
manifest("JSON, half of a character (`\\ud83d`)", "test.jsonl",
         lines(ROWS) + '{"audio": "c.wav", "text": "\\ud83d"}\n')  # fmt: skip

audio_folder("UTF-8 with a byte order mark", CSV, "utf-8-sig")
audio_folder("UTF-16 with a byte order mark, as Excel writes it", CSV, "utf-16")
audio_folder("UTF-16 without a mark", CSV, "utf-16-le")
audio_folder("Latin-1 or Windows-1252", CSV.replace("two", "twé"), "latin-1")
audio_folder("UTF-8, a row that is not", CSV.encode() + "c.wav,drié\n".encode("latin-1"))
audio_folder("a NUL character in a row", CSV + "c.wav,thr\0ee\n")
audio_folder("a replacement character in a text", CSV + "c.wav,caf\ufffd\n")
audio_folder("lines that end in CR LF", CSV.replace("\n", "\r\n"))
audio_folder("lines that end in CR", CSV.replace("\n", "\r"))


def stated() -> dict[str, str]:
    """What a corpus is -> what comes of it, as the docs have it."""
    table = DOCS.read_text(encoding="utf-8").partition("<!-- layouts -->")[2].partition("<!-- end -->")[0]
    rows = re.findall(r"^\| (.+) \| (.+) \|$", table, flags=re.MULTILINE)
    return {what: outcome for what, outcome in rows if what != "what you have"}


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    return stated()


def test_the_docs_list_exactly_what_is_tried_here(outcomes):
    assert list(outcomes) == list(LAYOUTS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_layout_has_the_outcome_that_the_docs_state(name, outcomes, tmp_path, make_sound):
    made = LAYOUTS[name](Corpus(tmp_path / "corpus", make_sound(1.0)))
    settings = made if isinstance(made, dict) else {"dataset": made}
    settings = {key: str(value) for key, value in settings.items()}
    split = "validation" if settings.pop("test_split", "") else "test"
    outcome = outcomes.get(name, "not in the docs")
    if outcome.startswith("refused: "):
        said = outcome.removeprefix("refused: ").strip("`")
        with pytest.raises(DataError, match=re.escape(said)):
            load_speech(DataArguments(**settings), split)
        return
    clips, report = load_speech(DataArguments(**settings), split)
    found = {Path(clip["audio"]["path"].replace("\\", "/")).name: clip["raw_text"] for clip in clips}
    assert {name: re.sub(r'[",\s]', "", text) for name, text in found.items()} == TEXTS
    dropped = "".join(f", {count} dropped: {reason}" for reason, count in report.reasons.items())
    left_out = re.match(r"not read: [^,]+", report.note or "")
    said = f"; the report says `{left_out[0]}`" if left_out else ""
    assert outcome == f"read{dropped}{said}"
