"""loaded_parts: a pipeline put together from loaded parts is ours for our models and usual for others."""

import numpy as np
import pytest
import torch
from transformers import (
    AutomaticSpeechRecognitionPipeline,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    pipeline,
)

from modeling_slam import SlamAsrPipeline

TASK = "automatic-speech-recognition"


@pytest.fixture
def by_hand(tiny_model, tiny_processor, two_clips) -> str:
    tiny_model.generation_config.update(max_new_tokens=8, eos_token_id=1, pad_token_id=0)
    ids = tiny_model.generate(**tiny_processor(two_clips[0]))
    return tiny_processor.batch_decode(ids, skip_special_tokens=True)[0].strip()


@pytest.fixture
def wav2vec2(tmp_path) -> dict:
    """A random model of another kind and its parts."""
    (tmp_path / "vocab.json").write_text('{"<pad>": 0, "<unk>": 1, "|": 2, "a": 3, "b": 4}')
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        vocab_size=5,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        conv_dim=(8, 8),
        conv_stride=(5, 4),
        conv_kernel=(10, 8),
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    tokenizer = Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"), bos_token="<pad>", eos_token="<pad>")
    return {
        "model": Wav2Vec2ForCTC(config).eval(),
        "tokenizer": tokenizer,
        "feature_extractor": Wav2Vec2FeatureExtractor(),
    }


@pytest.mark.parametrize("trust", [{}, {"trust_remote_code": True}, {"trust_remote_code": False}])
@pytest.mark.parametrize("others", [False, True])
def test_a_loaded_model_and_its_processor_transcribe(
    tiny_model, tiny_processor, two_clips, by_hand, trust, others
):
    parts = {"processor": tiny_processor, **trust}
    if others:
        parts |= {
            "tokenizer": tiny_processor.tokenizer,
            "feature_extractor": tiny_processor.feature_extractor,
        }
    transcribe = pipeline(TASK, model=tiny_model, device="cpu", num_beams=2, batch_size=2, **parts)
    assert isinstance(transcribe, SlamAsrPipeline)
    assert transcribe(two_clips[0], num_beams=1)["text"] == by_hand


@pytest.mark.parametrize("names", [[], ["tokenizer"], ["tokenizer", "feature_extractor"]])
def test_a_loaded_model_without_its_processor_says_what_to_pass(tiny_model, tiny_processor, names):
    parts = {name: getattr(tiny_processor, name) for name in names}
    with pytest.raises(ValueError, match="processor="):
        pipeline(TASK, model=tiny_model, device="cpu", **parts)


def test_transformers_own_pipeline_says_what_is_missing_and_never_transcribes(
    tiny_model, tiny_processor, two_clips
):
    parts = {name: getattr(tiny_processor, name) for name in ("tokenizer", "feature_extractor")}
    stock = AutomaticSpeechRecognitionPipeline(tiny_model, device="cpu", **parts)
    with pytest.raises((TypeError, ValueError), match="input_ids"):
        stock(two_clips[0])


def test_other_models_get_the_usual_pipeline(wav2vec2, tmp_path):
    clip = np.random.default_rng(0).normal(size=16_000).astype(np.float32)
    expected = AutomaticSpeechRecognitionPipeline(**wav2vec2, device="cpu")(clip)
    loaded = pipeline(TASK, **wav2vec2, device="cpu")
    for part in wav2vec2.values():
        part.save_pretrained(tmp_path / "model")
    by_name = pipeline(TASK, model=str(tmp_path / "model"), device="cpu")
    for transcribe in (loaded, by_name):
        assert type(transcribe) is AutomaticSpeechRecognitionPipeline
        assert transcribe(clip) == expected
    del wav2vec2["tokenizer"]
    with pytest.raises(ValueError, match="tokenizer of Wav2Vec2ForCTC"):
        pipeline(TASK, **wav2vec2, device="cpu")
