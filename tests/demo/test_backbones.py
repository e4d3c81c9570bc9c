"""The demo's pretrained stand-ins: small, of the real architectures, and loaded like the real ones."""

import itertools
import json
from pathlib import Path

import jiwer
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoFeatureExtractor, AutoModelForCausalLM, AutoTokenizer

from modeling_slam.demo.pretrain_llm import corpus_of
from modeling_slam.model.processing_slam import INSTRUCTION

ASSETS = Path(__file__).parents[2] / "modeling_slam" / "demo" / "assets"


def test_they_have_the_architectures_they_stand_in_for_and_a_card_each():
    audio, text = (AutoConfig.from_pretrained(ASSETS / name) for name in ("whisper", "qwen2"))
    assert (audio.model_type, audio.encoder_layers, audio.num_mel_bins) == ("whisper", 6, 80)
    assert text.model_type == "qwen2"
    assert AutoFeatureExtractor.from_pretrained(ASSETS / "whisper").feature_size == 80
    for name in ("whisper", "qwen2", "speech"):
        assert (ASSETS / name / "README.md").is_file()
        assert json.loads((ASSETS / name / "made.json").read_text())["seed"] == 0


def test_they_are_at_most_8_megabytes_of_safetensors():
    files = [file for name in ("whisper", "qwen2") for file in (ASSETS / name).iterdir()]
    assert sum(file.stat().st_size for file in files) <= 8e6
    assert {file.suffix for file in files} <= {".safetensors", ".json", ".md", ".txt", ".jinja"}


def test_the_encoder_file_holds_an_encoder_and_nothing_else():
    with safe_open(ASSETS / "whisper" / "model.safetensors", framework="pt") as weights:
        names = list(weights.keys())
    assert all(name.startswith("model.encoder.") for name in names)
    assert sum(name.endswith("fc1.weight") for name in names) == 6


def test_the_llm_copies_sentences_it_has_not_read_from_pieces():
    tokenizer = AutoTokenizer.from_pretrained(ASSETS / "qwen2")
    model = AutoModelForCausalLM.from_pretrained(ASSETS / "qwen2", dtype=torch.float32)
    instruction = tokenizer.encode(INSTRUCTION, add_special_tokens=False)
    unread, _ = corpus_of(seed=0)
    written = []
    for sentence in unread[::4]:
        # Three letters at a time; the pieces of pretraining are drawn without a seed.
        pieces = tokenizer([sentence[start : start + 3] for start in range(0, len(sentence), 3)])["input_ids"]
        prompt = torch.tensor([[*itertools.chain(*pieces), *instruction]])
        ids = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=40, do_sample=False
        )
        written.append(tokenizer.decode(ids[0, prompt.shape[1] :], skip_special_tokens=True))
    assert jiwer.wer(unread[::4], written) < 0.1
