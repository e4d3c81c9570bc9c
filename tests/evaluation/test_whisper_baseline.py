"""Whisper with its own decoder: complete and incomplete checkpoints, one language, nothing cut in silence."""

from typing import Any

import pytest
import torch
from tiny_whisper import write_decoding_whisper
from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperTokenizer

from modeling_slam.data import DataArguments, load_speech
from modeling_slam.evaluation.arguments import EvaluationArguments
from modeling_slam.evaluation.whisper_baseline import (
    WhisperRecogniser,
    check_baseline,
    generation_config_from_tokenizer,
    numeral_tokens,
)


@pytest.fixture(params=["multilingual", "english"])
def whisper(request, tmp_path):
    directory = tmp_path / request.param
    directory.mkdir()
    write_decoding_whisper(directory, request.param)
    return directory


def arguments(directory, **changes) -> EvaluationArguments:
    settings: dict[str, Any] = {"baseline": "whisper", "num_beams": 1, "max_new_tokens": 5, **changes}
    return EvaluationArguments(model=str(directory), output_dir="", **settings)


def prompt_of(directory) -> list[str]:
    multilingual = ["<|startoftranscript|>", "<|nl|>", "<|transcribe|>", "<|notimestamps|>"]
    return multilingual if directory.name == "multilingual" else ["<|startoftranscript|>", "<|notimestamps|>"]


def test_generation_settings_made_from_the_tokenizer_decode_like_a_loop_by_hand(whisper, two_clips):
    language = "nl" if whisper.name == "multilingual" else None
    recogniser = WhisperRecogniser(arguments(whisper), torch.device("cpu"), language)
    inputs = recogniser.prepare()(audio=two_clips)
    assert inputs["input_features"].shape == (2, 8, 3000)
    transcripts = recogniser.transcribe(inputs)

    tokenizer = WhisperTokenizer.from_pretrained(whisper)
    model = WhisperForConditionalGeneration.from_pretrained(whisper).eval()
    config = generation_config_from_tokenizer(tokenizer, model.config)
    for features, transcript in zip(inputs["input_features"], transcripts, strict=True):
        ids = torch.tensor([tokenizer.convert_tokens_to_ids(prompt_of(whisper))])
        written = []
        for step in range(5):
            with torch.no_grad():
                logits = model(input_features=features[None], decoder_input_ids=ids).logits[0, -1]
            logits[config.suppress_tokens] = -torch.inf
            if step == 0:
                logits[config.begin_suppress_tokens] = -torch.inf
            written.append(int(logits.argmax()))
            if written[-1] == config.eos_token_id:
                break
            ids = torch.cat([ids, torch.tensor([[written[-1]]])], dim=1)
        expected = [token for token in written if token != config.eos_token_id]
        assert transcript.tokens == len(expected)
        assert transcript.text == tokenizer.decode(expected, skip_special_tokens=True)
    assert any(transcript.text for transcript in transcripts)


def test_a_checkpoint_with_whispers_own_settings_keeps_them(whisper):
    tokenizer = WhisperTokenizer.from_pretrained(whisper)
    config = generation_config_from_tokenizer(tokenizer, WhisperConfig.from_pretrained(whisper))
    config.suppress_tokens = [3, 4]
    config.save_pretrained(whisper)
    recogniser = WhisperRecogniser(arguments(whisper), torch.device("cpu"), None)
    assert recogniser.model.generation_config.suppress_tokens == [3, 4]


def test_annotations_and_special_tokens_are_never_written(whisper):
    tokenizer = WhisperTokenizer.from_pretrained(whisper)
    config = generation_config_from_tokenizer(tokenizer, WhisperConfig.from_pretrained(whisper))
    suppressed = set(tokenizer.convert_ids_to_tokens(config.suppress_tokens))
    assert {"[[", "Ġ(", "#", "<|startoftranscript|>", "<|nospeech|>"} <= suppressed
    assert not {"Ġto", "a", "Ġ", ".", "'", "<|endoftext|>"} & suppressed
    assert ("lang_to_id" in config.to_dict()) == (whisper.name == "multilingual")


def test_numerals_can_be_forbidden(whisper, two_clips):
    tokenizer = WhisperTokenizer.from_pretrained(whisper)
    numerals = set(tokenizer.convert_ids_to_tokens(numeral_tokens(tokenizer)))
    assert {"0", "9", "10", "Ġ7"} <= numerals
    assert not {"Ġto", "a", "<|endoftext|>"} & numerals
    recogniser = WhisperRecogniser(arguments(whisper, suppress_numerals=True), torch.device("cpu"), None)
    assert set(numeral_tokens(tokenizer)) <= set(recogniser.model.generation_config.suppress_tokens)


def test_parameters_of_encoder_and_decoder_make_the_whole(whisper):
    counts = WhisperRecogniser(arguments(whisper), torch.device("cpu"), None).parameter_counts()
    model = WhisperForConditionalGeneration.from_pretrained(whisper)
    assert counts["encoder"] == sum(p.numel() for p in model.model.encoder.parameters())
    assert counts["encoder"] + counts["decoder"] == counts["total"] == model.num_parameters()


@pytest.mark.parametrize("language", ["nl", None, "da-DK"])
def test_the_language_is_told_to_multilingual_models_alone(whisper, speech_folder, language):
    dataset = load_speech(DataArguments(dataset=str(speech_folder), language=language), "test")[0]
    if whisper.name == "english" and language:
        with pytest.raises(ValueError, match="knows English only"):
            check_baseline(arguments(whisper), dataset)
    elif whisper.name == "english":
        assert check_baseline(arguments(whisper), dataset) is None
    elif language is None:
        with pytest.raises(ValueError, match="set `--language`"):
            check_baseline(arguments(whisper), dataset)
    else:
        assert check_baseline(arguments(whisper), dataset) == language.split("-")[0]


def test_what_whisper_would_cut_is_refused_before_loading(whisper, speech_folder):
    dataset = load_speech(DataArguments(dataset=str(speech_folder), language="en"), "test")[0]
    with pytest.raises(ValueError, match="at most 444"):
        check_baseline(arguments(whisper, max_new_tokens=445), dataset)


def test_clips_of_several_languages_are_decoded_each_in_its_own(tmp_path, two_clips):
    write_decoding_whisper(tmp_path, "multilingual")
    each = WhisperRecogniser(arguments(tmp_path), torch.device("cpu"), None)
    together = each.transcribe(each.prepare()(audio=two_clips, language=["nl", "da-DK"]))
    for clip, language, transcript in zip(two_clips, ("nl", "da"), together, strict=True):
        one = WhisperRecogniser(arguments(tmp_path), torch.device("cpu"), language)
        assert one.transcribe(one.prepare()(audio=[clip], language=[None])) == [transcript]
