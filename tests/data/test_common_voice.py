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
    expected = "evil.tsv has no column" if name.startswith("/") else "outside the folder"
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


def test_one_release_is_read_in_several_languages_at_once(release, common_voice, tmp_path):
    common_voice(tmp_path / "more", "da")
    shutil.move(tmp_path / "more" / release.name / "da", release / "da")
    clips, report = load_speech(DataArguments([str(release)] * 2, language=["nl", "da"]), "train")
    names = [f"{release.name}-nl", f"{release.name}-da"]
    assert list(dict.fromkeys(clips["dataset"])) == names
    assert {(row["dataset"], row["language"]) for row in clips} == set(zip(names, ["nl", "da"], strict=True))
    for language, part in zip(["nl", "da"], report.parts, strict=True):
        alone, _ = load_speech(DataArguments(str(release), language=language), "train")
        assert part.kept_clips == len(alone)
    with pytest.raises(DataError, match="twice; each dataset is read once, or once in each"):
        load_speech(DataArguments([str(release)] * 3, language=["nl", "da", "nl"]), "train")


def test_a_clip_whose_file_is_gone_is_listed(release):
    (release / "nl" / "clips" / "plain.mp3").unlink()
    _, report = load_speech(DataArguments(str(release)), "train")
    assert ("plain.mp3", "missing file") in drops(report)


def test_a_table_of_other_columns_is_refused_with_its_columns(release):
    (release / "nl" / "train.tsv").write_text("name\ttext\na.mp3\thello\n")
    with pytest.raises(DataError, match=r"no column 'path'.*name, text"):
        load_speech(DataArguments(str(release)), "train")


HEADER = "client_id\tpath\tsentence_id\tsentence\tup_votes\tlocale\tsegment"


@pytest.fixture
def table(release):
    """`table(lines)` writes the test split anew and reads it: sentences by clip, and the report."""

    def read(lines, encoding="utf-8", header=HEADER):
        content = "\n".join([header, *lines]) + "\n"
        (release / "nl" / "test.tsv").write_bytes(content.encode(encoding))
        clips, report = load_speech(DataArguments(str(release)), "test")
        return dict(zip(clips["id"], clips["raw_text"], strict=True)), report

    return read


def row(clip, sentence):
    return f"me\t{clip}.mp3\tid\t{sentence}\t2\tnl\t"


@pytest.mark.parametrize("broken", ["half\nthe rest", "half\tthe rest", "half\nthe rest\nand more", "\nhalf"])
def test_a_sentence_that_is_broken_is_dropped_whole_and_its_neighbours_stay(table, broken):
    found, report = table([row("plain", "een"), row("commas", broken), row("quoted", "twee")])
    assert found == {"plain.mp3": "een", "quoted.mp3": "twee"}
    assert set(report.reasons) == {"bad row"}
    assert "test.tsv line 3" in report.summary()
    assert "commas.mp3" in report.summary()


@pytest.mark.parametrize("sign", ["\r", "\v", "\f", "\x1c", "\x85", "\u2028"])
def test_what_only_python_takes_for_a_line_break_is_part_of_a_sentence(table, sign):
    found, report = table([row("plain", f"een{sign}twee"), row("quoted", "drie")])
    assert found == {"plain.mp3": f"een{sign}twee", "quoted.mp3": "drie"}
    assert not report.dropped


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_table_that_an_editor_saved_is_read(table, encoding):
    assert table([row("plain", "één")], encoding)[0] == {"plain.mp3": "één"}


def test_a_column_of_another_name_is_found_or_told_without_flags_that_are_none(table, release):
    assert table([row("plain", "een")], header=HEADER.replace("\tsentence\t", "\ttranscription\t"))[0]
    with pytest.raises(DataError, match=r"no column 'sentence' \(--text_column\); it has client_id, path"):
        table([row("plain", "een")], header=HEADER.replace("\tsentence\t", "\tzin\t"))


def test_durations_that_are_empty_or_no_numbers_say_nothing(release):
    rows = ["clip\tduration[ms]", "quoted.mp3\t", "plain.mp3\tNA", "commas.mp3", "lone_quote.mp3\t9000"]
    (release / "nl" / "clip_durations.tsv").write_text("\n".join(rows))
    clips, report = load_speech(DataArguments(str(release)), "train")
    assert set(clips["id"]) == TEXTS.keys() - {"lone_quote.mp3"}
    assert ("lone_quote.mp3", "truncated") in drops(report)
