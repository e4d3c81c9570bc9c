"""Several datasets read as one: nothing of them is mixed up, and limits hold for all of them together."""

import datasets
import pytest

from modeling_slam.data import DataArguments, DataError, load_speech
from modeling_slam.model.audio_io import load_audio


@pytest.fixture
def corpora(audio_folder, tmp_path) -> list[str]:
    """Two datasets whose clips and speakers have the same names; the second one's clips are longer."""
    for name, length in (("queen", 1.0), ("sky", 1.5)):
        clips = [(f"clip{number}.wav", f"{name} {number}", length + number / 100) for number in range(10)]
        audio_folder(tmp_path / name, "train", clips)
        audio_folder(tmp_path / name, "test", clips[:2])
    return [str(tmp_path / "queen"), str(tmp_path / "sky")]


def test_clips_of_all_are_read_under_ids_and_speakers_with_the_name_in_front(corpora):
    clips, report = load_speech(DataArguments(corpora), "test")
    assert clips["id"][:] == ["queen/clip0.wav", "queen/clip1.wav", "sky/clip0.wav", "sky/clip1.wav"]
    assert clips["speaker"][:] == ["queen/speaker0", "queen/speaker1", "sky/speaker0", "sky/speaker1"]
    assert clips["text"][:] == ["queen 0", "queen 1", "sky 0", "sky 1"]
    assert [len(load_audio(clip["audio"])) for clip in clips] == [16_000, 16_160, 24_000, 24_160]
    assert (report.kind, report.read_clips, report.kept_clips) == ("2 datasets", 4, 4)


def test_one_dataset_keeps_its_ids_and_its_report_however_it_is_named(corpora):
    one, report = load_speech(DataArguments([corpora[0]]), "test")
    same, same_report = load_speech(DataArguments(corpora[0]), "test")
    assert one["id"][:] == same["id"][:] == ["clip0.wav", "clip1.wav"]
    assert report.to_dict() == same_report.to_dict()
    assert "parts" not in report.to_dict()


def test_a_limit_takes_a_seeded_subset_of_all_together(corpora):
    def load(order, seed):
        arguments = DataArguments(order, max_train_hours=12 / 3600, subset_seed=seed)
        return load_speech(arguments, "train")

    clips, report = load(corpora, 1)
    assert 12 - 1.6 < sum(clips["duration"]) <= 12
    assert {clip.split("/")[0] for clip in clips["id"]} == {"queen", "sky"}
    again, other, turned = load(corpora, 1)[0], load(corpora, 2)[0], load(corpora[::-1], 1)[0]
    assert again["id"][:] == clips["id"][:] != other["id"][:]
    assert sorted(turned["id"]) == sorted(clips["id"]), "the order they are named in does not choose"
    assert sum(part.kept_seconds for part in report.parts) == pytest.approx(report.kept_seconds)


def test_the_report_sums_and_shows_each(corpora, tmp_path):
    (tmp_path / "sky" / "train" / "clip3.wav").unlink()
    _, report = load_speech(DataArguments(corpora, min_seconds=1.005), "train")
    assert [(part.read_clips, part.kept_clips, part.reasons) for part in report.parts] == [
        (10, 9, {"too short": 1}),
        (10, 9, {"missing file": 1}),
    ]
    assert (report.read_clips, report.kept_clips) == (20, 18)
    first, *_, queen, sky = report.summary().splitlines()
    assert first.startswith(f"{corpora[0]} + {corpora[1]} (2 datasets), split train: kept 18 of 20 clips")
    assert queen.startswith(f"  {corpora[0]} (AudioFolder), split train: kept 9 of 10 clips")
    assert sky.startswith(f"  {corpora[1]} (AudioFolder), split train: kept 9 of 10 clips")
    told = report.to_dict()
    assert [drop["id"] for drop in told["dropped"]] == ["queen/clip0.wav", "sky/clip3.wav"]
    assert [(part["source"], part["dropped_clips"]) for part in told["parts"]] == [(c, 1) for c in corpora]


def test_datasets_of_one_name_are_told_apart_by_the_directory_above(audio_folder, tmp_path):
    folders = [str(tmp_path / above / "en") for above in ("queen", "sky")]
    for folder in folders:
        audio_folder(tmp_path / folder, "test", [("a.wav", "one", 1.0)])
    clips, _ = load_speech(DataArguments(folders), "test")
    assert clips["id"][:] == ["queen/en/a.wav", "sky/en/a.wav"]


def test_one_dataset_named_twice_is_refused(corpora, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for other in (corpora[0], corpora[0] + "/", "queen"):
        with pytest.raises(DataError, match="twice; each dataset is read once"):
            load_speech(DataArguments([corpora[0], other]), "train")


def test_an_id_used_twice_in_one_of_them_is_a_listed_drop(corpora, tmp_path):
    table = tmp_path / "sky" / "test" / "metadata.csv"
    table.write_text(table.read_text() + "clip0.wav,again,speaker1\n")
    clips, report = load_speech(DataArguments(corpora), "test")
    assert len(clips) == 4
    assert [(drop.id, drop.reason) for drop in report.dropped] == [("sky/clip0.wav", "duplicate id")]


def test_sources_of_different_kinds_go_together_in_the_language_one_of_them_states(
    corpora, common_voice, tmp_path
):
    release = common_voice(tmp_path, "nl") / "nl"
    clips, report = load_speech(DataArguments([corpora[0], str(release)]), "test")
    assert clips["id"][:] == ["queen/clip0.wav", "queen/clip1.wav", "nl/plain.mp3"]
    assert set(clips["language"]) == {report.language} == {"nl"}


def test_different_languages_are_refused(common_voice, tmp_path):
    releases = [str(common_voice(tmp_path / language, language) / language) for language in ("nl", "da")]
    with pytest.raises(DataError, match=r"different languages: 'nl' in .*, 'da' in "):
        load_speech(DataArguments(releases), "test")


def test_streams_take_turns_until_the_limit(corpora, tmp_path):
    for folder in corpora:
        rows = datasets.load_dataset("csv", data_files=f"{folder}/train/metadata.csv", split="train")
        audio = [f"{folder}/train/{name}" for name in rows["file_name"]]
        rows = rows.remove_columns("file_name").add_column("audio", audio)
        rows.cast_column("audio", datasets.Audio(decode=False)).save_to_disk(f"{folder}-saved")
    saved = [f"{folder}-saved" for folder in corpora]
    clips, report = load_speech(DataArguments(saved, streaming=True, max_train_hours=6 / 3600), "train")
    assert [clip.split("/")[0] for clip in clips["id"]] == ["queen-saved", "sky-saved"] * 2
    assert "the first of the stream" in (report.subset or "")
