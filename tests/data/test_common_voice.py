"""Common Voice: a release loads as Mozilla ships it, and exactly the bad clips are dropped."""

import io
import shutil
import tarfile

import pytest

from modeling_slam.data import DataArguments, DataError, load_speech

BAD_CLIPS = {("truncated.mp3", "truncated"), ("short.mp3", "too short"), ("long.mp3", "too long")}
TEXTS = {
    "quoted.mp3": "kom zei ze we gaan",
    "lone_quote.mp3": "een te veel",
    "commas.mp3": "een twee drie en 's avonds vier",
    "plain.mp3": "zo'n één coördinaat",
}


@pytest.fixture
def release(common_voice, tmp_path):
    return common_voice(tmp_path)


def drops(report):
    return {(drop.id, drop.reason) for drop in report.dropped}


def test_quoted_and_comma_laden_sentences_load_and_exactly_the_bad_clips_are_dropped(release):
    for dataset in (release, release / "nl"):
        clips, report = load_speech(DataArguments(str(dataset), language="nl"), "train")
        assert dict(zip(clips["id"], clips["text"], strict=True)) == TEXTS
        assert len(report.dropped) == 3
        assert drops(report) == BAD_CLIPS
        assert report.read_clips == 7
        assert report.kept_clips == 4
    assert clips[0]["raw_text"] == '"Kom," zei ze, "we gaan."'
    assert clips[0]["speaker"] == "voice0"
    assert clips[0]["language"] == "nl"
    assert clips["duration"][:] == pytest.approx([1.5, 1.2, 2.0, 1.0], abs=0.01)
    for name, reason in BAD_CLIPS:
        assert name in report.summary()
        assert reason in report.summary()


def test_the_archive_gives_what_the_folder_gives_and_is_unpacked_once(release, tmp_path):
    archive = tmp_path / "cv-corpus-22.0-2025-06-20-nl.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(release, arcname=release.name)
    shutil.rmtree(release)
    arguments = DataArguments(str(archive))
    clips, report = load_speech(arguments, "train")
    assert dict(zip(clips["id"], clips["text"], strict=True)) == TEXTS
    assert drops(report) == BAD_CLIPS

    unpacked = tmp_path / "cv-corpus-22.0-2025-06-20-nl-unpacked"
    marker = unpacked / "only in the first copy"
    marker.touch()
    load_speech(arguments, "test")
    assert marker.exists()
    archive.touch()  # Another version of the archive is unpacked anew.
    load_speech(arguments, "test")
    assert not marker.exists()


@pytest.mark.parametrize("name", ["../evil.tsv", "/tmp/evil.tsv", "cv/../../evil.tsv"])
def test_an_archive_that_reaches_outside_its_folder_is_refused(tmp_path, name):
    archive = tmp_path / "corpora" / "evil.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.size = 4
        tar.addfile(member, io.BytesIO(b"evil"))
    # The filter makes an absolute name relative; what is left then is no corpus.
    expected = "no Common Voice release" if name.startswith("/") else "outside the folder"
    with pytest.raises(DataError, match=expected):
        load_speech(DataArguments(str(archive)), "train")
    assert not list(tmp_path.glob("evil*"))
    assert not (tmp_path / "corpora" / "evil.tsv").exists()


def test_a_link_to_the_outside_is_refused(tmp_path):
    archive = tmp_path / "links.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        member = tarfile.TarInfo("cv/clips")
        member.type = tarfile.SYMTYPE
        member.linkname = "/etc"
        tar.addfile(member)
    with pytest.raises(DataError, match="refused"):
        load_speech(DataArguments(str(archive)), "train")


def test_an_archive_cut_short_leaves_nothing_that_looks_whole(release, tmp_path):
    archive = tmp_path / "nl.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(release, arcname=release.name)
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    with pytest.raises(DataError, match="cut short"):
        load_speech(DataArguments(str(archive)), "train")
    assert not [path for path in tmp_path.iterdir() if path.is_dir() and path != release]


def test_stated_durations_reveal_a_clip_whose_file_looks_whole(release):
    table = release / "nl" / "clip_durations.tsv"
    table.write_text(table.read_text().replace("plain.mp3\t1000", "plain.mp3\t4000"))
    _, report = load_speech(DataArguments(str(release)), "train")
    assert drops(report) == BAD_CLIPS | {("plain.mp3", "truncated")}


def test_validation_means_dev_and_a_missing_split_lists_those_there_are(release):
    clips, report = load_speech(DataArguments(str(release)), "validation")
    assert report.split == "dev"
    assert len(clips) == 2
    with pytest.raises(DataError, match=r"no split 'nope'; it has dev, test, train, validated"):
        load_speech(DataArguments(str(release), test_split="nope"), "test")


def test_one_of_several_languages_is_chosen_and_a_wrong_one_refused(release, common_voice, tmp_path):
    common_voice(tmp_path / "more", "da")
    shutil.move(tmp_path / "more" / release.name / "da", release / "da")
    clips, _ = load_speech(DataArguments(str(release), language="da"), "test")
    assert clips[0]["language"] == "da"
    with pytest.raises(DataError, match="several languages"):
        load_speech(DataArguments(str(release)), "test")
    with pytest.raises(DataError, match="holds the language 'nl'"):
        load_speech(DataArguments(str(release / "nl"), language="da"), "test")


def test_a_clip_whose_file_is_gone_is_listed(release):
    (release / "nl" / "clips" / "plain.mp3").unlink()
    _, report = load_speech(DataArguments(str(release)), "train")
    assert ("plain.mp3", "missing file") in drops(report)


def test_a_table_of_other_columns_is_refused_with_its_columns(release):
    (release / "nl" / "train.tsv").write_text("name\ttext\na.mp3\thello\n")
    with pytest.raises(DataError, match=r"no column 'path'.*name, text"):
        load_speech(DataArguments(str(release)), "train")
