"""The processor: a clip's tensors do not depend on its batch, and loss is asked for on the transcript
alone."""

import numpy as np
import pytest
import torch
from tiny_configs import tiny_waveform_config
from transformers import Wav2Vec2FeatureExtractor, WhisperFeatureExtractor

from modeling_slam import SlamAsrProcessor
from modeling_slam.model.audio_lengths import audio_geometry
from modeling_slam.model.processing_slam import in_language


def test_mel_frames_equal_whispers_own_on_30_seconds(tiny_processor, two_clips):
    """The first frames of Whisper's 30 s spectrogram, computed by transformers; the rest of it is silence."""
    whisper = WhisperFeatureExtractor(feature_size=8)
    for clip in two_clips:
        ours = tiny_processor.audio_features(clip)
        theirs = whisper(clip, sampling_rate=16_000, return_tensors="pt")["input_features"][0].T
        torch.testing.assert_close(ours, theirs[: len(ours)], atol=2e-5, rtol=0)


def test_a_clip_is_prepared_alike_alone_and_in_a_batch(tiny_processor, two_clips):
    together = tiny_processor(two_clips)
    for row, clip in enumerate(two_clips):
        alone = tiny_processor(clip)
        frames = alone["input_features"].shape[2]
        assert torch.equal(together["input_features"][row, :, :frames], alone["input_features"][0])
        assert together["input_features_mask"][row].sum() == frames
        real = together["attention_mask"][row].bool()
        assert torch.equal(together["input_ids"][row][real], alone["input_ids"][0])


def test_an_exact_two_second_clip_stays_two_seconds(tiny_processor):
    inputs = tiny_processor(np.zeros(32_000, dtype=np.float32))
    assert inputs["input_features"].shape == (1, 8, 200)
    assert (inputs["input_ids"] == tiny_processor.audio_token_id).sum() == 20


def test_order_is_audio_instruction_transcript_end_and_labels_hold_the_last_two(tiny_processor, two_clips):
    batch = tiny_processor(two_clips, text=["abc", "a longer one"])
    tokenizer = tiny_processor.tokenizer
    for row, text in enumerate(["abc", "a longer one"]):
        real = batch["attention_mask"][row].bool()
        ids, labels = batch["input_ids"][row][real], batch["labels"][row][real]
        audio_tokens = int((ids == tiny_processor.audio_token_id).sum())
        instruction = tokenizer("say:\n")["input_ids"]
        target = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
        assert ids.tolist() == [tiny_processor.audio_token_id] * audio_tokens + instruction + target
        assert labels.tolist() == [-100] * (audio_tokens + len(instruction)) + target
        assert (batch["labels"][row][~real] == -100).all()
    assert tokenizer.decode(ids, skip_special_tokens=True) == "say:\na longer one"


def test_padding_to_30_seconds_is_whispers_own_input(tiny_tokenizer, two_clips):
    whisper = WhisperFeatureExtractor(feature_size=8)
    processor = SlamAsrProcessor(whisper, tiny_tokenizer, pad_to_seconds=30)
    theirs = whisper(two_clips, sampling_rate=16_000, return_tensors="pt")["input_features"]
    torch.testing.assert_close(processor(two_clips)["input_features"], theirs, atol=2e-5, rtol=0)


@pytest.mark.parametrize("do_normalize", [True, False])
def test_a_waveform_is_prepared_by_itself_as_its_feature_extractor_does(
    tiny_tokenizer, two_clips, do_normalize, tmp_path
):
    extractor = Wav2Vec2FeatureExtractor(do_normalize=do_normalize)
    geometry = audio_geometry(tiny_waveform_config("wav2vec2"))
    processor = SlamAsrProcessor(extractor, tiny_tokenizer, audio_geometry=geometry)
    processor.save_pretrained(tmp_path)
    for made in (processor, SlamAsrProcessor.from_pretrained(tmp_path)):
        batch = made(two_clips)
        for row, clip in enumerate(two_clips):
            alone = extractor(clip, sampling_rate=16_000, return_tensors="pt")["input_values"][0]
            assert torch.equal(batch["input_features"][row, : len(clip)], alone)
            assert not batch["input_features"][row, len(clip) :].any()
            assert batch["input_features_mask"][row].sum() == len(clip)
            placeholders = (batch["input_ids"][row] == made.audio_token_id).sum()
            assert placeholders == -(-geometry.frames_of_samples(len(clip)) // 5)
    assert processor(np.zeros(40 * 16_000, np.float32))["input_features"].shape == (1, 640_000)  # no limit
    with pytest.raises(ValueError, match="makes no audio token"):
        processor(np.zeros(399, np.float32))


@pytest.mark.parametrize("text", [None, ["abc", "a longer one"]])
def test_arrays_hold_what_tensors_hold(tiny_processor, two_clips, text):
    tensors, arrays = tiny_processor(two_clips, text), tiny_processor(two_clips, text, return_tensors="np")
    assert set(tensors) == set(arrays)
    for name, array in arrays.items():
        assert isinstance(array, np.ndarray)
        assert np.array_equal(array, tensors[name].numpy())


def test_a_transcription_request_is_a_call_without_text(tiny_processor, two_clips):
    request = tiny_processor.apply_transcription_request(two_clips, sampling_rate=16_000, return_tensors="pt")
    plain = tiny_processor(two_clips)
    assert all(torch.equal(request[name], plain[name]) for name in plain)
    assert sorted(plain) == sorted(tiny_processor.model_input_names)


def test_padding_is_to_the_longest_row_or_not_needed(tiny_processor, two_clips):
    plain, alone = tiny_processor(two_clips), tiny_processor(two_clips[0])
    longest = tiny_processor(two_clips, padding="longest")
    unpadded = tiny_processor(two_clips[0], padding=False)
    assert all(torch.equal(plain[name], longest[name]) for name in plain)
    assert all(torch.equal(alone[name], unpadded[name]) for name in alone)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"audio": []}, "empty list"),
        ({"audio": ()}, "empty list"),
        ({"padding": False}, "rows of one length"),
        ({"padding": "max_length"}, "`pad_to_seconds`"),
        ({"return_tensors": None}, '`return_tensors` must be "pt" or "np", got None'),
        ({"return_tensors": "tf"}, "got 'tf'"),
    ],
)
def test_refuses_arguments_it_cannot_follow(tiny_processor, two_clips, changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_processor(**{"audio": two_clips, **changes})


def test_other_sampling_rates_are_resampled(tiny_processor):
    inputs = tiny_processor(np.zeros(8_000, dtype=np.float32), sampling_rate=8_000)
    assert inputs["input_features"].shape[2] == 100


@pytest.mark.parametrize(
    ("seconds", "text", "message"),
    [(30.1, None, "at most 30 s"), (1.0, ["one", "two"], "1 clips and 2 transcripts")],
)
def test_refuses_what_it_cannot_prepare(tiny_processor, seconds, text, message):
    with pytest.raises(ValueError, match=message):
        tiny_processor([np.zeros(int(seconds * 16_000), dtype=np.float32)], text=text)


def test_saves_and_loads_with_its_settings(tmp_path, tiny_processor, two_clips):
    tiny_processor.save_pretrained(tmp_path)
    loaded = SlamAsrProcessor.from_pretrained(tmp_path)
    before, after = tiny_processor(two_clips), loaded(two_clips)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert loaded.audio_token_id == tiny_processor.audio_token_id


def test_adding_the_placeholder_keeps_the_tokenizers_own_special_tokens(tiny_tokenizer):
    tiny_tokenizer.add_special_tokens({"additional_special_tokens": ["<own>"]})
    own = tiny_tokenizer.convert_tokens_to_ids("<own>")
    processor = SlamAsrProcessor(WhisperFeatureExtractor(feature_size=8), tiny_tokenizer)
    assert processor.tokenizer.decode([own], skip_special_tokens=True) == ""
    assert processor.audio_token_id not in (own, tiny_tokenizer.unk_token_id)


@pytest.mark.parametrize("seconds", [0, 1.9, 30.1])
def test_chunks_that_cannot_be_heard_are_refused(tiny_processor, seconds):
    with pytest.raises(ValueError, match="chunk_seconds"):
        SlamAsrProcessor(tiny_processor.feature_extractor, tiny_processor.tokenizer, chunk_seconds=seconds)


@pytest.fixture
def named(tiny_processor) -> SlamAsrProcessor:
    tiny_processor.instruction = "say {language}:\n"
    return tiny_processor


@pytest.mark.parametrize(
    ("language", "name"),
    [("nl", "Dutch"), ("sv-SE", "Swedish"), ("dutch", "Dutch"), ("HAITIAN CREOLE", "Haitian Creole")],
)
def test_an_instruction_names_the_language_in_english(language, name):
    assert in_language("Write {language} {here}:", language) == f"Write {name} {{here}}:"


def test_prompts_of_several_languages_are_those_of_each_alone(named, two_clips):
    together = named.apply_transcription_request(two_clips, text=["a", "b"], language=["nl", "en"])
    for row, (clip, text, language) in enumerate(zip(two_clips, "ab", ("nl", "en"), strict=True)):
        alone = named(clip, text=text, language=language)
        length = alone["input_ids"].shape[1]
        assert torch.equal(together["input_ids"][row, :length], alone["input_ids"][0])
        assert torch.equal(together["labels"][row, :length], alone["labels"][0])


@pytest.mark.parametrize(
    ("language", "message"),
    [
        (None, r"'say \{language\}:.n', names the language of the clip: give `language`"),
        (["nl", None], "give `language`"),
        (["nl"], "Got 2 clips and 1 in `language`"),
        ("tlh", "`language` 'tlh' has no English name"),
    ],
)
def test_a_language_that_is_missing_or_unknown_is_refused(named, two_clips, language, message):
    with pytest.raises(ValueError, match=message):
        named(two_clips, language=language)


def test_an_instruction_without_a_place_for_it_leaves_the_language_unread(tiny_processor, two_clips):
    with_language, without = tiny_processor(two_clips, language="tlh"), tiny_processor(two_clips)
    assert torch.equal(with_language["input_ids"], without["input_ids"])


def test_hotwords_stand_in_their_place_of_the_instruction_and_nothing_where_there_are_none(
    tiny_processor, two_clips
):
    def prompts(instruction: str, **given) -> list[list[int]]:
        tiny_processor.instruction = instruction
        inputs = tiny_processor(two_clips, **given)
        rows = zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
        return [ids[mask.bool()].tolist() for ids, mask in rows]

    slot = "words: {hotwords}. say:\n"
    assert prompts(slot, hotwords=["ab", "c d"]) == prompts("words: ab, c d. say:\n")
    assert prompts(slot) == prompts(slot, hotwords=[]) == prompts("words: . say:\n")
    for_each = prompts(slot, hotwords=[["ab"], None])
    assert for_each == [prompts("words: ab. say:\n")[0], prompts("words: . say:\n")[1]]


@pytest.mark.parametrize(
    ("instruction", "hotwords", "message"),
    [
        ("say:\n", ["ab"], r"`--instruction \"Hotwords: \{hotwords\}"),
        ("{hotwords}\n", "ab", "must be a list"),
        ("{hotwords}\n", ["ab", " "], "must be a list"),
        ("{hotwords}\n", [["ab"]], "Got 2 clips and 1 in `hotwords`"),
        ("{hotwords}\n", ["a"] * 101, "100 words and phrases at most"),
        ("{hotwords}\n", ["a" * 61], "at most 60 characters"),
        ("{hotwords}\n", ["a <|slam_audio|>"], "without the tokenizer's own marks"),
    ],
)
def test_hotwords_that_cannot_be_told_are_refused(tiny_processor, two_clips, instruction, hotwords, message):
    tiny_processor.instruction = instruction
    with pytest.raises(ValueError, match=message):
        tiny_processor(two_clips, hotwords=hotwords)
