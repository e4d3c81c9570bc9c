"""A miniature world for tests: generated clips, random tiny backbones, the real file layouts.

It takes half a second to make. The backbones are random and frozen, so nothing here says how well speech is
recognised; the demo's own are pretrained. A clip is a few "words", each its own pair of tones. For another
vocabulary change `WORDS`; sizes are in `CLIPS` and in the two configs below.
"""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import torch
from transformers import (
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

SAMPLING_RATE = 16_000
TONE_SECONDS = 0.18
GAP_SECONDS = 0.08
CLIPS = {"train": 48, "validation": 8, "test": 8}
# Settings of runs that train projector and LoRA alone, whatever the defaults are.
PLAIN = {
    "projector_stack": 5, "projector_context": 1, "projector_dropout": 0.1, "projector_frame_dropout": 0.0,
    "llm_input": "projector", "drop_blanks": 1.0, "align_epochs": 0.0, "ctc_weight": 0.0,
}  # fmt: skip
# Fundamental of each half of a word, in Hz: so far apart that no speaker's pitch sounds like another word.
WORDS = {
    "north": (220, 220),
    "south": (220, 330),
    "east": (220, 495),
    "west": (330, 220),
    "up": (330, 330),
    "down": (330, 495),
    "left": (495, 220),
    "right": (495, 330),
}
# Ten times Whisper's and Qwen's: with 0.02 and layers this narrow the audio drowns in the position embeddings
# and the LLM's frozen output layer gives every token the same probability, so nothing could be learned.
INITIAL_STD = 0.2


class TinyWorld(NamedTuple):
    """Directories to pass as `--dataset`, `--encoder` and `--llm`."""

    dataset: Path
    encoder: Path
    llm: Path


def build_tiny_world(directory: Path, seed: int = 0) -> TinyWorld:
    """Write speech, Whisper and causal LM below `directory`; one seed always gives one world."""
    world = TinyWorld(directory / "speech", directory / "whisper", directory / "qwen2")
    write_speech(world.dataset, np.random.default_rng(seed))
    # The caller's own random state is not touched.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        write_whisper(world.encoder)
        write_causal_lm(world.llm)
    return world


def write_speech(directory: Path, rng: np.random.Generator) -> None:
    """An AudioFolder: one directory per split, `metadata.csv` beside the clips."""
    for split, clips in CLIPS.items():
        folder = directory / split
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["file_name", "text", "speaker", "duration"])
            for number in range(clips):
                speaker = int(rng.integers(4))
                words = [str(word) for word in rng.choice(list(WORDS), size=rng.integers(2, 5))]
                samples = speak(words, speaker, rng)
                name = f"{split}-{number:03d}.flac"
                soundfile.write(folder / name, samples, SAMPLING_RATE)
                text = " ".join(words).capitalize() + "."
                table.writerow([name, text, f"speaker-{speaker}", f"{len(samples) / SAMPLING_RATE:.3f}"])


def speak(words: list[str], speaker: int, rng: np.random.Generator) -> np.ndarray:
    """Samples in [-1, 1]. A speaker has a pitch (up to 4 % above the written one) and a timbre of its own."""
    time = np.arange(int(TONE_SECONDS * SAMPLING_RATE)) / SAMPLING_RATE
    envelope = np.hanning(len(time))
    gap = np.zeros(int(GAP_SECONDS * SAMPLING_RATE))
    pieces = [gap]
    for word in words:
        for fundamental in WORDS[word]:
            phase = 2 * np.pi * fundamental * (1 + 0.013 * speaker) * time
            harmonics = sum(np.sin(n * phase) / n ** (1 + 0.3 * speaker) for n in range(1, 5))
            pieces.append(0.2 * envelope * harmonics)
        pieces.append(gap)
    samples = np.concatenate(pieces)
    return samples + rng.normal(scale=0.005, size=len(samples))


def write_whisper(directory: Path) -> None:
    """A Whisper of 4 + 1 layers with its feature extractor; it has a decoder because real ones do."""
    config = WhisperConfig(
        init_std=INITIAL_STD, vocab_size=64, d_model=32, max_target_positions=16, num_mel_bins=80,
        encoder_layers=4, encoder_attention_heads=2, encoder_ffn_dim=64,
        decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=64,
        pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=0,
        suppress_tokens=[], begin_suppress_tokens=[],
    )  # fmt: skip
    WhisperForConditionalGeneration(config).save_pretrained(directory)
    WhisperFeatureExtractor(feature_size=config.num_mel_bins).save_pretrained(directory)


def write_causal_lm(directory: Path, layers: int = 2) -> None:
    """A small Qwen2 and a byte-level BPE tokenizer of the words, with Qwen2.5's special tokens."""
    untrained = Qwen2Tokenizer(vocab={"<|endoftext|>": 0}, merges=[])
    tokenizer = untrained.train_new_from_iterator(
        [" ".join(WORDS)] * 2,
        vocab_size=320,
        new_special_tokens=["<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    tokenizer.save_pretrained(directory)
    config = Qwen2Config(
        vocab_size=384,  # padded beyond the tokenizer, as Qwen2.5's is
        initializer_range=INITIAL_STD,
        hidden_size=64, intermediate_size=128, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True,
        bos_token_id=tokenizer.eos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(directory)
