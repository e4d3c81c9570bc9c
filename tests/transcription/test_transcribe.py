"""`slam-asr transcribe` end to end: files in, files out, resumed, with bad ones among them."""

import json
import os
import time
from pathlib import Path

import pytest
import soundfile
from transformers import AutoProcessor

from modeling_slam import SlamAsrForConditionalGeneration, SlamAsrPipeline
from modeling_slam.model.audio_io import load_audio
from modeling_slam.transcription import hearing, recordings
from modeling_slam.transcription.__main__ import main, task_of
from modeling_slam.transcription.arguments import TranscribeArguments
from modeling_slam.transcription.hearing import load
from modeling_slam.transcription.recordings import find_recordings, named

GOOD = {"one", "stereo", "long", "silent", "films/one"}


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def command(checkpoint, folder, out) -> list[str]:
    return [str(checkpoint), str(folder), "--recursive", "--output_dir", str(out), "--batch_size", "3"]


def lines(out: Path) -> dict[str, dict]:
    rows = map(json.loads, (out / "transcripts.jsonl").read_text(encoding="utf-8").splitlines())
    return {row["name"]: row | {"at": 0} for row in rows}


def run(*argv: str) -> int | str | None:
    """The exit code, or the error."""
    try:
        main(list(argv))
    except SystemExit as ended:
        return ended.code
    return 0


def test_a_folder_becomes_texts_and_what_is_bad_is_listed_and_stops_nothing(
    command, folder, out, tiny_model, tiny_processor, capsys
):
    assert run(*command, "--format", "txt,json") == 1
    found = {path.relative_to(out).with_suffix("").as_posix() for path in out.rglob("*.txt")}
    assert found == GOOD
    pipe = SlamAsrPipeline(tiny_model, tiny_processor, device="cpu")
    for name in GOOD:
        (recording,) = (path for path in folder.rglob("*") if path.with_suffix("") == folder / name)
        expected = pipe(recording)["text"]
        assert (out / f"{name}.txt").read_text(encoding="utf-8").strip() == expected
        values = json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
        assert values["text"] == expected
        assert values["seconds"] == pytest.approx(len(load_audio(recording)) / 16_000, abs=1e-3)
    printed = capsys.readouterr().out
    assert "5 recordings, " in printed
    assert "real-time factor 0." in printed or "real-time factor 1" in printed
    assert "2 could not be transcribed:\n" in printed
    assert "cut.wav" in printed
    assert "notes.mp3" in printed
    assert not (out / ".transcripts.lock").exists()


def test_a_model_with_a_head_gives_the_times_that_the_pipeline_gives(checkpoint_with_head, folder, out):
    assert run(str(checkpoint_with_head), str(folder / "long.wav"), "--output_dir", str(out),
               "--format", "srt,vtt,tsv,json") == 0  # fmt: skip
    pipe = SlamAsrPipeline(
        SlamAsrForConditionalGeneration.from_pretrained(checkpoint_with_head),
        AutoProcessor.from_pretrained(checkpoint_with_head),
        device="cpu",
    )
    expected = pipe(folder / "long.wav", return_timestamps="word")
    assert len(expected["chunks"]) > 1
    values = json.loads((out / "long.json").read_text(encoding="utf-8"))
    assert values["text"] == expected["text"]
    words = values["words"]
    assert [word["text"] for word in words] == [chunk["text"].strip() for chunk in expected["chunks"]]
    for word, chunk in zip(words, expected["chunks"], strict=True):
        assert (word["start"], word["end"]) == pytest.approx(chunk["timestamp"], abs=1e-3)
        assert word["confidence"] == pytest.approx(chunk["confidence"], abs=1e-3)
    srt = (out / "long.srt").read_text(encoding="utf-8")
    assert srt.startswith("1\n00:00:")
    shown = [line for line in srt.splitlines() if line and not line.isdigit() and "-->" not in line]
    assert " ".join(shown).split() == expected["text"].split()


def test_what_was_heard_is_heard_again_only_after_a_change(command, out, folder, capsys):
    for bad in ("cut.wav", "notes.mp3"):
        (folder / bad).unlink()
    assert run(*command) == 0
    before = (out / "transcripts.jsonl").read_bytes()
    (out / "one.txt").unlink()
    capsys.readouterr()
    assert run(*command, "--format", "txt,json") == 0
    assert "5 had been transcribed before." in (printed := capsys.readouterr().out)
    assert "real-time factor" not in printed
    assert (out / "one.txt").exists()
    assert (out / "films" / "one.json").exists()
    assert (out / "transcripts.jsonl").read_bytes() == before
    os.utime(folder / "one.wav", (1, 1))
    assert run(*command) == 0
    assert "1 recording, " in (printed := capsys.readouterr().out)
    assert "4 had been transcribed before." in printed
    assert run(*command, "--num_beams", "2") == 0
    assert "5 recordings" in capsys.readouterr().out
    assert {row["settings"]["num_beams"] for row in lines(out).values()} == {2}


def test_a_corrected_transcript_stays_until_its_recording_is_heard_again(checkpoint, folder, out):
    argv = [str(checkpoint), str(folder / "one.wav"), "--output_dir", str(out)]
    text, table = out / "one.txt", out / "one.json"
    assert run(*argv, "--format", "txt,json") == 0
    heard = text.read_text(encoding="utf-8")
    text.write_text("corrected", encoding="utf-8")
    assert run(*argv) == 0
    assert text.read_text(encoding="utf-8") == "corrected"
    assert run(*argv, "--num_beams", "1", "--language", "nl") == 0
    assert text.read_text(encoding="utf-8") == heard
    assert (
        json.loads(table.read_text(encoding="utf-8"))["language"] is None
    )  # another format is older than that
    assert run(*argv, "--num_beams", "1", "--language", "nl", "--format", "txt,json") == 0
    assert json.loads(table.read_text(encoding="utf-8"))["language"] == "nl"


def test_a_line_that_a_killed_run_left_half_written_is_heard_again(command, out, folder, capsys):
    for bad in ("cut.wav", "notes.mp3"):
        (folder / bad).unlink()
    assert run(*command) == 0
    before = lines(out)
    journal = out / "transcripts.jsonl"
    journal.write_bytes(journal.read_bytes()[:-40])
    capsys.readouterr()
    assert run(*command) == 0
    assert "1 recording, " in capsys.readouterr().out
    assert lines(out) == before


def test_the_seconds_of_a_recording_are_counted_piece_by_piece(checkpoint, folder):
    task = task_of(TranscribeArguments(str(checkpoint), [str(folder)]))
    pipe, counted = load(task), []
    pipe.on_seconds = counted.append
    pipe([str(folder / "long.wav"), str(folder / "one.wav")])
    assert len(counted) == 4
    assert sum(counted) == pytest.approx(
        sum(len(load_audio(folder / name)) for name in ("long.wav", "one.wav")) / 16_000, abs=1e-6
    )


def test_the_language_is_that_of_the_models_own_run_unless_it_is_given(checkpoint, folder):
    def language(**given: str) -> str | None:
        return dict(task_of(TranscribeArguments(str(checkpoint), [str(folder)], **given)).settings)[
            "language"
        ]

    assert language() is None
    (checkpoint / "run.json").write_text(json.dumps({"data": {"language": "nl"}}))
    assert language() == "nl"
    assert language(language="da") == "da"
    (checkpoint / "run.json").write_text(json.dumps({"data": {"language": ["nl", "en"]}}))
    assert language() is None


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--format", "srt"], r"`--format srt` needs the times of words, .* `--align_epochs`"),
        (["--files", "missing.wav"], r"There is no file or folder missing\.wav"),
        (["--ctc_weight", "0.3"], r"`--ctc_weight 0\.3` needs a CTC head"),
    ],
)
def test_what_cannot_work_ends_in_one_line_before_the_model_is_loaded(command, out, flags, message):
    with pytest.raises(SystemExit, match=message):
        main([*command, *flags])
    assert not out.exists()


def test_an_unknown_format_is_named_with_the_nearest(command, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--format", "txt,strt"])
    assert "`format` has 'strt'. Did you mean srt?" in capsys.readouterr().err


def test_a_recording_too_short_for_a_word_is_listed(checkpoint, folder, out, capsys):
    soundfile.write(folder / "click.wav", [0.1] * 100, 16_000)
    processor = checkpoint / "processor_config.json"
    settings = json.loads(processor.read_text())
    processor.write_text(json.dumps(settings | {"projector_tail": "drop"}))
    assert run(str(checkpoint), str(folder / "click.wav"), "--output_dir", str(out)) == 1
    assert "click.wav: lasts 0.006 s, too short for a word." in capsys.readouterr().out


def test_any_name_that_a_file_can_have_stops_nothing(checkpoint, folder, out, capsys):
    """Bytes that are no UTF-8, a line separator, and so long that no transcript can be called so."""
    one = (folder / "one.wav").read_bytes()
    names = ("\udce9t\udce9", "a\u2028b", "c" * 245, "d" * 251)
    places = [folder / f"{name}.wav" for name in names]
    for place in places:
        place.write_bytes(one)
    argv = [str(checkpoint), *map(str, places), "--output_dir", str(out), "--format", "txt,json"]
    for said in ("3 recordings, ", "3 had been transcribed before."):
        assert run(*argv) == 1
        printed = capsys.readouterr().out
        assert said in printed
        assert "1 could not be transcribed:" in printed
        assert "d.json cannot be written (File name too long)." in printed
    found = {json.loads(file.read_text(encoding="utf-8"))["file"] for file in out.glob("*.json")}
    assert found == set(map(str, places[:3]))


def test_a_recording_that_changes_while_it_is_heard_is_heard_again(
    checkpoint, folder, out, monkeypatch, capsys
):
    clip = folder / "one.wav"
    argv = [str(checkpoint), str(clip), "--output_dir", str(out)]
    read = hearing.read

    def read_while_it_changes(path):
        found = read(path)
        os.utime(path, (1, 1))
        return found

    monkeypatch.setattr(hearing, "read", read_while_it_changes)
    assert run(*argv) == 0
    capsys.readouterr()
    assert run(*argv) == 0
    assert "1 recording, " in capsys.readouterr().out


def test_names_of_many_recordings_are_found_at_once():
    begun = time.monotonic()
    named([(Path(f"/in/{number}.wav"), Path(f"{number}.wav")) for number in range(20_000)])
    assert time.monotonic() - begun < 3


def names(*places: Path, recursive: bool = False) -> list[str]:
    return [recording.name for recording in find_recordings(map(str, places), recursive)]


def test_files_are_named_by_their_place_and_each_counts_once(folder):
    assert names(folder) == ["cut", "long", "notes", "one", "silent", "stereo"]
    assert "films/one" in names(folder, recursive=True)
    assert names(folder / "one.wav", folder / "one.wav", folder).count("one") == 1
    (folder / "one.mp3").touch()
    assert {"one.mp3", "one.wav"} < set(names(folder))


def test_links_that_lead_in_circles_stop_nothing(folder):
    (folder / "loop.wav").symlink_to("loop.wav")
    (folder / "films" / "up").symlink_to("..")
    assert {"loop", "one", "films/one"} <= set(names(folder, recursive=True))


def test_a_transcript_of_another_recording_of_that_name_is_not_written_over(
    checkpoint, folder, out, tmp_path, capsys
):
    other, moved = folder / "films" / "one.wav", tmp_path / "one.wav"
    other.write_bytes((folder / "long.wav").read_bytes())
    command = (str(checkpoint), "--output_dir", str(out))
    assert run(*command, "--files", str(folder / "one.wav")) == 0
    before = (out / "one.txt").read_bytes(), (out / "transcripts.jsonl").read_bytes()
    message = run(*command, "--files", str(other))
    assert f"{out / 'one.txt'} is of {folder / 'one.wav'}, and {other} would be written over it." in message
    assert ((out / "one.txt").read_bytes(), (out / "transcripts.jsonl").read_bytes()) == before
    (folder / "one.wav").rename(moved)
    capsys.readouterr()
    assert run(*command, "--files", str(moved)) == 0
    assert "1 had been transcribed before." in capsys.readouterr().out
    assert "would be written over" in run(*command, "--files", str(other))
    (out / "one.txt").unlink()
    assert run(*command, "--files", str(other)) == 0
    assert lines(out)["one"]["file"] == str(other)


def test_a_long_recording_that_vanishes_once_it_was_read_is_heard_to_its_end(
    checkpoint, folder, out, tiny_model, tiny_processor, monkeypatch
):
    expected = SlamAsrPipeline(tiny_model, tiny_processor, device="cpu")(folder / "long.wav")["text"]
    read = hearing.read

    def read_and_lose(path):
        found = read(path)
        path.unlink()
        return found

    monkeypatch.setattr(recordings, "HELD_SECONDS", 10.0)
    monkeypatch.setattr(hearing, "read", read_and_lose)
    places = [str(folder / name) for name in ("long.wav", "one.wav")]
    assert run(str(checkpoint), *places, "--output_dir", str(out)) == 0
    assert lines(out)["long"]["text"] == expected
    assert lines(out)["one"]["text"]


def test_two_that_would_write_one_file_are_refused(folder):
    (folder / "films" / "one.wav").write_bytes((folder / "one.wav").read_bytes())
    with pytest.raises(ValueError, match=r"have one name.*`--recursive`"):
        names(folder / "one.wav", folder / "films" / "one.wav")


def test_a_folder_without_recordings_is_refused_with_a_hint(folder):
    (folder / "films" / "deep").mkdir()
    with pytest.raises(ValueError, match=r"holds no recording.*`--recursive`"):
        names(folder / "films" / "deep")


def test_hotwords_are_told_to_the_model_and_others_hear_anew(checkpoint, folder, out, tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("Schiphol\nJan de Vries\n", encoding="utf-8")
    command = [str(checkpoint), str(folder / "one.wav"), "--output_dir", str(out)]
    told = [*command, "--hotwords", str(words)]
    assert '`--instruction "Hotwords: {hotwords}' in str(run(*told))
    processor = AutoProcessor.from_pretrained(checkpoint)
    processor.instruction = "{hotwords}\n"
    processor.save_pretrained(checkpoint)
    assert run(*command) == 0
    plain = lines(out)["one"]
    assert "hotwords" not in plain["settings"]
    assert run(*told) == 0
    heard = lines(out)["one"]
    assert heard["settings"]["hotwords"] == "schiphol\njan de vries"
    model = SlamAsrForConditionalGeneration.from_pretrained(checkpoint)
    pipe = SlamAsrPipeline(model, processor, device="cpu", hotwords=["schiphol", "jan de vries"])
    assert heard["text"] == pipe(folder / "one.wav")["text"] != plain["text"]
    before = (out / "transcripts.jsonl").read_bytes()
    assert run(*told) == 0
    assert (out / "transcripts.jsonl").read_bytes() == before, "the same words hear nothing anew"
    words.write_text("Jan de Vries\n", encoding="utf-8")
    assert run(*told) == 0
    assert lines(out)["one"]["settings"]["hotwords"] == "jan de vries"
