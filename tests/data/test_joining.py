"""Several datasets read as one: nothing of them is mixed up, and limits hold for all of them together."""

import itertools
from pathlib import Path

import datasets
import pytest
import soundfile

from modeling_slam.common.command_line import parse_arguments
from modeling_slam.data import DataArguments, DataError, load_speech
from modeling_slam.data.arguments import OneDataset
from modeling_slam.data.joining import names_of
from modeling_slam.data.loading import load_for_run
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


@pytest.mark.parametrize("several", [False, True])
def test_fewer_hours_are_inside_more_hours(corpora, several):
    """The axis of training hours: each amount holds all clips of the smaller ones, of each dataset too."""
    taken: list[set[str]] = []
    for seconds in (2, 4, 8, 16, 1000):
        arguments = DataArguments(corpora if several else corpora[:1], max_train_hours=seconds / 3600)
        taken.append(set(load_speech(arguments, "train")[0]["id"][:]))
    assert all(fewer < more or len(more) == 10 for fewer, more in itertools.pairwise(taken))
    assert len(taken[-1]) == (20 if several else 10)
    if several:
        assert {clip.split("/")[0] for clip in taken[2]} == {"queen", "sky"}


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


@pytest.mark.parametrize(
    ("changes", "split", "reason"),
    [
        ({"min_seconds": 1.05}, "train", "too short"),
        ({"text_column": ["text", "note"]}, "train", "empty transcript"),
        ({"min_seconds": 1.05}, "test", "too short"),
    ],
)
def test_a_dataset_that_gives_no_clip_is_not_left_out_without_a_word(
    audio_folder, tmp_path, changes, split, reason
):
    """A mean over the others would pass for one over all."""
    long, short = str(tmp_path / "long"), str(tmp_path / "short")
    for folder, seconds in ((long, 1.1), (short, 1.0)):
        for each in ("train", "test"):
            audio_folder(Path(folder), each, [(f"{number}.wav", "so", seconds) for number in range(4)])
    if "text_column" in changes:
        table = Path(short, "train", "metadata.csv")
        head, *rows = table.read_text().splitlines()
        table.write_text("\n".join([f"{head},note", *(f"{row}," for row in rows)]))
    with pytest.raises(DataError, match=f"No clip of {short} is left to use(.|\n)*dropped 4, {reason}"):
        load_speech(DataArguments([long, short], **changes), split)


@pytest.mark.parametrize("unread", [0, 1])
def test_a_small_dataset_that_cannot_be_read_is_not_lost_beside_a_large_one(audio_folder, tmp_path, unread):
    """Of all clips together eleven are less than a tenth."""
    large, small = str(tmp_path / "large"), str(tmp_path / "small")
    for folder, count in ((large, 120), (small, 14)):
        audio_folder(Path(folder), "train", [(f"{number}.wav", "so", 1.0) for number in range(count)])
    for number in range(10 + unread):
        Path(small, "train", f"{number}.wav").write_bytes(b"no sound")
    arguments = DataArguments([large, small])
    if not unread:
        assert load_for_run(arguments, "train", None)[1].unread_clips == 10
        return
    with pytest.raises(DataError, match=f"The audio of 11 of 14 clips of {small} cannot be read"):
        load_for_run(arguments, "train", None)


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


def test_configurations_and_languages_of_one_place_are_told_apart_by_name():
    def names(*each: tuple[str | None, str | None]) -> list[str]:
        return names_of([OneDataset("google/fleurs", config, language) for config, language in each])

    assert names(("da_dk", "da"), ("nl_nl", "nl")) == ["fleurs-da_dk", "fleurs-nl_nl"]
    assert names((None, "da"), (None, "nl")) == ["fleurs-da", "fleurs-nl"]
    assert names(("all", "da"), ("all", "nl"), (None, "nl")) == [
        "fleurs-all-da",
        "fleurs-all-nl",
        "fleurs-nl",
    ]
    others = [OneDataset("a/fleurs", "x"), OneDataset("b/fleurs", "x")]
    assert names_of(others) == ["a/fleurs", "b/fleurs"]
    with pytest.raises(DataError, match="google/fleurs twice"):
        names(("da_dk", "da"), ("da_dk", "da"))


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


def test_each_clip_follows_the_rules_of_its_own_datasets_language(audio_folder, tmp_path):
    """In English a comma groups thousands, in Dutch a point does and a word may begin with an apostrophe."""
    text = "'s 3,500 of 3.500"
    for name in ("queen", "sky", "talk"):
        audio_folder(tmp_path / name, "test", [("a.wav", text, 1.0)])
    corpora = [str(tmp_path / name) for name in ("queen", "sky", "talk")]
    clips, report = load_speech(DataArguments(corpora, language=["en", "en", "nl"]), "test")
    assert clips["language"][:] == ["en", "en", "nl"]
    assert clips["dataset"][:] == ["queen", "sky", "talk"]
    assert clips["text"][:] == ["s 3500 of 3 500", "s 3500 of 3 500", "'s 3 500 of 3500"]
    assert (report.language, [part.language for part in report.parts]) == (None, ["en", "en", "nl"])


def test_releases_of_different_languages_are_read_each_in_its_own(common_voice, tmp_path):
    releases = [str(common_voice(tmp_path / language, language) / language) for language in ("nl", "da")]
    clips, _ = load_speech(DataArguments(releases), "test")
    assert list(zip(clips["dataset"], clips["language"], strict=True)) == [("nl", "nl"), ("da", "da")]


def test_a_dataset_of_no_known_language_beside_two_others_is_refused(corpora, common_voice, tmp_path):
    releases = [str(common_voice(tmp_path / language, language) / language) for language in ("nl", "da")]
    with pytest.raises(DataError, match=r"sets in nl and da, and .*queen states no language.*--language"):
        load_speech(DataArguments([*releases, corpora[0]]), "test")


def test_each_dataset_is_read_by_its_own_columns(tmp_path, make_sound):
    for name, columns in (("queen", "wav,said,key"), ("sky", "file,words,number")):
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / "a.wav", make_sound(1.0), 16_000)
        (tmp_path / name / "train.csv").write_text(f"{columns}\na.wav,{name} speaks,7\n")
    own = {
        "audio_column": ["wav", "file"],
        "text_column": ["said", "words"],
        "id_column": ["key", "none"],  # by default the name of the file
    }
    clips, _ = load_speech(DataArguments([str(tmp_path / name) for name in ("queen", "sky")], **own), "train")
    assert clips["id"][:] == ["queen/7", "sky/a.wav"]
    assert clips["text"][:] == ["queen speaks", "sky speaks"]


@pytest.mark.parametrize(
    "name",
    ["language", "dataset_config", "audio_column", "text_column", "id_column", "speaker_column"],
)
def test_a_wrong_count_of_values_is_refused_at_once_with_the_numbers(name):
    for values in (["en", "nl"], ["en", "nl", "da", "fr"]):
        expected = rf"`{name}` has {len(values)} values \(en, nl.*\) and `dataset` names 3"
        with pytest.raises(ValueError, match=expected):
            DataArguments(["a", "b", "c"], **{name: values})
    with pytest.raises(ValueError, match="has 2 values"):
        DataArguments("a", **{name: ["en", "nl"]})


def test_one_value_holds_for_all_and_is_recorded_as_one():
    for given in ("nl", ["nl"], ["nl", "nl"]):
        arguments = DataArguments(["a", "b"], language=given)
        assert (arguments.language, arguments.one_language) == ("nl", "nl")
        assert [one.language for one in arguments.each] == ["nl", "nl"]
    assert DataArguments(["a", "b"], language=["nl", "en"]).one_language is None
    assert DataArguments("a").text_column == "text"


def test_command_line_and_recipe_give_one_value_or_a_list(tmp_path):
    recipe = tmp_path / "mixed.yaml"
    recipe.write_text(
        "dataset: [a, b, c]\nlanguage: [en, en, nl]\nspeaker_column: [who, null, who]\n"
        "dataset_weights: [2, 1, 1]\ntext_column: words\n"
    )
    (read,) = parse_arguments(DataArguments, description="", argv=[str(recipe)])
    typed = "--dataset a b c --language en en nl --speaker_column who none who --dataset_weights 2 1 1"
    (told,) = parse_arguments(DataArguments, description="", argv=f"{typed} --text_column words".split())
    assert read == told
    assert (read.language, read.text_column) == (["en", "en", "nl"], "words")
    assert [one.speaker_column for one in read.each] == ["who", None, "who"]
    assert read.each[1].audio_column == "audio"


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
