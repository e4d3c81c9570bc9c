"""The model behind the page: depths that are the real ones, files that cannot be read."""

import json

import pytest

from modeling_slam import SlamAsrForConditionalGeneration, SlamAsrPipeline, SlamAsrProcessor
from modeling_slam.app.arguments import AppArguments
from modeling_slam.app.recogniser import Recogniser, at_depth, depths_of
from modeling_slam.model.audio_io import AudioError


def test_a_depth_writes_what_the_checkpoint_writes_when_it_is_loaded_at_that_depth(
    any_depth_checkpoint, recording
):
    recogniser = Recogniser(AppArguments(str(any_depth_checkpoint)))
    assert recogniser.depths == [3, 2, 1]
    found = list(recogniser.compare(recording))
    assert [each.depth for each in found] == [3, 2, 1]
    assert all(each.seconds > 0 for each in found)
    processor = SlamAsrProcessor.from_pretrained(any_depth_checkpoint)
    for each in found:
        model = SlamAsrForConditionalGeneration.from_pretrained(
            any_depth_checkpoint, num_encoder_layers=each.depth
        )
        assert each.text == SlamAsrPipeline(model, processor)(recording)["text"]
    assert found[0].text != found[1].text
    assert recogniser.hear(recording).text == found[0].text


def test_an_error_at_a_depth_leaves_the_model_whole(tiny_model):
    layers = list(tiny_model.encoder.layers)
    seen = []

    def fail() -> None:
        with at_depth(tiny_model, 1):
            seen.extend(tiny_model.encoder.layers)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert seen == layers[:1]
    assert list(tiny_model.encoder.layers) == layers


def test_words_have_times_and_confidence_and_the_language_is_the_runs(any_depth_checkpoint, recording):
    recogniser = Recogniser(AppArguments(str(any_depth_checkpoint)))
    shares = []
    heard = recogniser.hear(recording, shares.append)
    assert recogniser.language == "nl"
    assert heard.words
    assert all(0 <= word["confidence"] <= 1 for word in heard.words)
    assert shares[-1] == pytest.approx(1.0)


def test_only_a_model_that_was_trained_at_several_depths_offers_them(checkpoint):
    assert depths_of(AppArguments(str(checkpoint))) == []
    assert depths_of(AppArguments(str(checkpoint), depths=[1, 2])) == [2, 1]  # as a Space states them
    with pytest.raises(ValueError, match=r"`--depths` must be numbers from 1 to 3, .* got 4 1"):
        depths_of(AppArguments(str(checkpoint), depths=[4, 1]))
    (checkpoint / "run.json").write_text(json.dumps({"run": {"train_depths": []}}))
    assert depths_of(AppArguments(str(checkpoint))) == []


def test_a_file_that_cannot_be_read_is_named_without_its_folder(checkpoint, tmp_path):
    recogniser = Recogniser(AppArguments(str(checkpoint)))
    (tmp_path / "notes.mp3").write_text("no audio at all")
    with pytest.raises(AudioError, match=r"^notes\.mp3: not readable as audio") as error:
        recogniser.hear(tmp_path / "notes.mp3")
    assert str(tmp_path) not in str(error.value)


def test_what_is_no_model_is_told_before_anything_is_loaded(tmp_path):
    with pytest.raises(ValueError, match=r"is no checkpoint: it has no config\.json"):
        Recogniser(AppArguments(str(tmp_path)))
