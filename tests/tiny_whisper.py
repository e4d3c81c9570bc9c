"""A random Whisper with its decoder and tokenizer, as some converters write it, for the tests that decode."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

LANGUAGES = [f"<|{code}|>" for code in ["en", "nl", "da"]]
TASKS = ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>"]
SPECIAL = ["<|endoftext|>", "<|startoftranscript|>", *LANGUAGES, *TASKS, "<|notimestamps|>"]
VOCABULARY_SIZE = {"multilingual": 51_865, "english": 51_864}


def write_decoding_whisper(directory: Path, kind: str, encoder_layers: int = 1) -> None:
    """A `multilingual` or `english` one: no tokenizer or generation settings of Whisper's."""
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=VOCABULARY_SIZE[kind], num_mel_bins=8, d_model=8, encoder_layers=encoder_layers,
        decoder_layers=1, encoder_attention_heads=1, decoder_attention_heads=1, encoder_ffn_dim=8,
        decoder_ffn_dim=8, init_std=1.0,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config)
    WhisperFeatureExtractor(feature_size=8).save_pretrained(directory)
    tokens = save_tokenizer(directory)
    with torch.no_grad():  # ids beyond this small tokenizer never win
        model.model.decoder.embed_tokens.weight[tokens:] = 0
    model.save_pretrained(directory)


def save_tokenizer(directory: Path) -> int:
    """tokenizer.json alone: bytes, a few words and Whisper's special tokens; returns the number of tokens."""
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "[[", "Ġ(", "10", "Ġ7", "Ġto", *SPECIAL]
    tokenizer = Tokenizer(models.BPE(vocab={piece: index for index, piece in enumerate(pieces)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.save(str(directory / "tokenizer.json"))
    return len(pieces)
