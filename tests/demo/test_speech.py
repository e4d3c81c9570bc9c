"""The embedded speech: what its card promises, and that this repository makes it."""

import io
import multiprocessing
from pathlib import Path

import datasets
import pyarrow.parquet as parquet
import pytest
import soundfile

from modeling_slam.data import DataArguments, load_speech
from modeling_slam.data.text import normalize_text
from modeling_slam.demo.sentences import GRAMMARS
from modeling_slam.demo.speech import CLIPS, VOICES, opus, utterances
from modeling_slam.demo.synthesiser import Synthesiser, Voice

SPEECH = Path(__file__).parents[2] / "modeling_slam" / "demo" / "assets" / "speech"
SEED = 0  # of the embedded speech


def table(language: str, split: str) -> list[dict]:
    return parquet.read_table(SPEECH / language / f"{split}.parquet").to_pylist()


@pytest.mark.parametrize("language", GRAMMARS)
def test_splits_share_neither_voice_nor_sentence(language):
    speakers, sentences = {}, {}
    for split, clips in CLIPS.items():
        rows = table(language, split)
        assert len(rows) == clips
        speakers[split] = {row["speaker"] for row in rows}
        sentences[split] = {normalize_text(row["text"], language) for row in rows}
        assert len(sentences[split]) == clips
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not speakers[one] & speakers[other]
        assert not sentences[one] & sentences[other]


def test_the_encoder_was_pretrained_without_the_voices_of_validation_and_test():
    assert not set(VOICES["pretraining"].split()) & {*VOICES["validation"].split(), *VOICES["test"].split()}


@pytest.mark.parametrize("language", GRAMMARS)
def test_every_clip_is_used(language):
    for split, clips in CLIPS.items():
        kept, report = load_speech(DataArguments(str(SPEECH / language), language=language), split)
        assert len(kept) == clips, report.summary()
        assert kept["duration"] == pytest.approx(
            [row["duration"] for row in table(language, split)], abs=0.001
        )


def test_datasets_loads_it_by_its_card(tmp_path):
    clips = datasets.load_dataset(str(SPEECH), "nl", split="validation", cache_dir=str(tmp_path))
    assert len(clips) == CLIPS["validation"]
    assert isinstance(clips.features["audio"], datasets.Audio)


def test_it_is_small():
    assert sum(file.stat().st_size for file in SPEECH.rglob("*.parquet")) <= 12e6


def first_clips(count: int) -> list[bytes]:
    made = utterances(Synthesiser(), "en", "train", SEED)
    return [opus(next(made).samples) for _ in range(count)]


def decoded(file: bytes) -> list[float]:
    return soundfile.read(io.BytesIO(file))[0].tolist()


def test_the_synthesiser_makes_the_embedded_clips_again():
    # eSpeak starts once per process and remembers what it said, so the first clips are said in a new one.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        made = pool.apply(first_clips, (3,))
    # Decoded, as the files differ in a serial number that libsndfile draws at random.
    embedded = [row["audio"]["bytes"] for row in table("en", "train")[:3]]
    assert list(map(decoded, made)) == list(map(decoded, embedded))


def test_an_unknown_voice_is_named():
    with multiprocessing.get_context("spawn").Pool(1) as pool, pytest.raises(ValueError, match="nobody"):
        pool.apply(say_as_nobody)


def say_as_nobody() -> None:
    Synthesiser().speak("Hello.", Voice("en", "nobody", 120, 50))
