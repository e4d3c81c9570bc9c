"""A split that a dataset lacks is drawn from what it has: by seed and speaker, and no clip is in two."""

import pytest

from modeling_slam.data import DataArguments, DataError, load_speech

ROLES = ("train", "validation", "test")
SHARES = {"validation_share": 0.2, "test_share": 0.2}


@pytest.fixture
def single_file(audio_folder, tmp_path):
    """`single_file(speakers)`: a csv of forty clips, said by that many in turn."""

    def write(speakers: int, order: int = 1) -> str:
        folder = tmp_path / f"{speakers}_{order}"
        if not folder.exists():
            audio_folder(folder, "sounds", [(f"{number:02}.wav", "ja", 0.5) for number in range(40)])
        rows = [f"sounds/{number:02}.wav,text {number},voice{number % speakers}" for number in range(40)]
        table = folder / "all.csv"
        table.write_text("\n".join(["audio,text,speaker", *rows[::order]]))
        return str(table)

    return write


def load(dataset, role, **settings):
    return load_speech(DataArguments(dataset, **settings), role)


def test_three_roles_share_one_file_out_by_speaker(single_file):
    dataset = single_file(10)
    parts = {role: load(dataset, role, **SHARES)[0] for role in ROLES}
    assert {role: len(clips) for role, clips in parts.items()} == {"train": 24, "validation": 8, "test": 8}
    assert len({clip for clips in parts.values() for clip in clips["id"]}) == 40
    voices = [set(clips["speaker"]) for clips in parts.values()]
    assert sum(map(len, voices)) == len(set.union(*voices)) == 10


def test_the_draw_depends_on_the_seed_and_not_on_the_order_of_the_rows(single_file):
    first, turned = load(single_file(10), "test", **SHARES)[0], load(single_file(10, -1), "test", **SHARES)[0]
    assert sorted(first["id"]) == sorted(turned["id"])
    others = [load(single_file(10), "test", subset_seed=seed, **SHARES)[0]["id"][:] for seed in range(3)]
    assert any(other != first["id"][:] for other in others)


def test_one_speaker_is_shared_out_by_clip(single_file):
    clips, report = load(single_file(1), "validation", validation_share=0.1)
    assert len(clips) == 4
    assert "4 of its 40 clips, by --validation_share 0.1 and seed 42" in report.summary()


def test_of_few_speakers_who_all_say_too_much_the_one_with_the_fewest_clips_is_drawn(single_file):
    clips, report = load(single_file(3), "validation", validation_share=0.1)
    assert len(clips) == 13
    assert len(set(clips["speaker"])) == 1
    assert "13 of its 40 clips of 1 of 3 speakers" in report.summary()


def test_a_file_without_splits_is_all_training_and_all_test(single_file):
    for role in ("train", "test"):
        clips, report = load(single_file(2), role)
        assert len(clips) == 40
        assert report.split == role
        assert "it has no splits" in (report.note or "")
    with pytest.raises(DataError, match=r"no split 'validation'.*--validation_share 0.1.*--eval_strategy no"):
        load(single_file(2), "validation")
    with pytest.raises(DataError, match=r"none is left for a test: add --test_share 0.1.*--split validation"):
        load(single_file(2), "test", validation_share=0.1)


def test_only_the_split_that_is_missing_is_drawn_and_from_the_training_data(audio_folder, tmp_path):
    for split in ("train", "dev"):
        audio_folder(tmp_path, split, [(f"{split}{number}.wav", "ja", 0.5) for number in range(10)])
    dataset = str(tmp_path)
    parts = {role: set(load(dataset, role, **SHARES)[0]["id"]) for role in ROLES}
    assert parts["validation"] == {f"dev{number}.wav" for number in range(10)}
    assert parts["train"] | parts["test"] == {f"train{number}.wav" for number in range(10)}
    assert not parts["train"] & parts["test"]
    with pytest.raises(DataError, match=r"it has dev, train.*part of the training data, add --test_share"):
        load(dataset, "test")


def test_a_stream_is_not_shared_out(single_file):
    with pytest.raises(DataError, match="Leave out --streaming, or --validation_share"):
        load(single_file(2), "train", validation_share=0.1, streaming=True)


@pytest.mark.parametrize("shares", [{"validation_share": 1.0}, {"test_share": 0.0},
                                    {"validation_share": 0.5, "test_share": 0.5}])  # fmt: skip
def test_shares_that_leave_nothing_are_refused(shares):
    with pytest.raises(ValueError, match="_share"):
        DataArguments("somewhere", **shares)
