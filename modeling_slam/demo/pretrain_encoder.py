"""Pretrains the demo's encoder: a tiny Whisper encoder learns to recognise the synthetic speech.

Whisper learns with its decoder; here a linear layer with the CTC loss takes the decoder's place, learns to
spell what is said, and is thrown away. What is saved has Whisper's layout, so the demo loads it as it would
load openai/whisper-*. It hears none of the voices and none of the sentences of validation and test.

Source of the loss: CTC, https://doi.org/10.1145/1143844.1143891; masking of the mel frames: SpecAugment,
https://huggingface.co/papers/1904.08779
"""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jiwer
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import WhisperConfig, WhisperFeatureExtractor

from modeling_slam.data.text import normalize_text
from modeling_slam.demo.sentences import GRAMMARS
from modeling_slam.demo.speech import utterances
from modeling_slam.demo.synthesiser import Synthesiser
from modeling_slam.model.audio_encoders import PrunedWhisperEncoder
from modeling_slam.model.audio_lengths import WHISPER_GEOMETRY
from modeling_slam.model.processing_slam import log_mel

STEPS = 3600
BATCH_SECONDS = 60.0
LEARNING_RATE = 2e-3
WARMUP = 0.1
BLANK = 0
Clip = tuple[torch.Tensor, str]  # log-mel (F, M) and its normalised text


def encoder_config() -> WhisperConfig:
    """Whisper's architecture at a width of 128; the decoder's fields are small, it has no weights."""
    return WhisperConfig(
        vocab_size=64, d_model=128, num_mel_bins=80,
        encoder_layers=6, encoder_attention_heads=4, encoder_ffn_dim=512,
        decoder_layers=1, decoder_attention_heads=4, decoder_ffn_dim=512, max_target_positions=64,
        pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=0,
        suppress_tokens=[], begin_suppress_tokens=[],
    )  # fmt: skip


def pretrain_encoder(directory: Path, seed: int) -> dict[str, Any]:
    """Train and write the encoder and its feature extractor to `directory`; return what was reached."""
    config, extractor, speech = encoder_config(), WhisperFeatureExtractor(feature_size=80), Synthesiser()
    train = [c for language in GRAMMARS for c in clips_of(speech, language, "pretraining", seed, extractor)]
    validation = {name: clips_of(speech, name, "validation", seed, extractor) for name in GRAMMARS}
    letters = sorted({letter for _, text in train for letter in text})

    torch.manual_seed(seed)
    encoder = PrunedWhisperEncoder(config, config.encoder_layers)
    initialise(encoder)
    spell = nn.Linear(config.d_model, len(letters) + 1)
    train_ctc(encoder, spell, train, letters, seed)
    save_whisper(encoder, config, extractor, directory)
    wers = {name: round(ctc_wer(encoder, spell, clips, letters), 4) for name, clips in validation.items()}
    print(f"WER of greedy CTC on unheard voices and sentences: {wers}")
    return {
        "steps": STEPS,
        "clips": len(train),
        "parameters": sum(p.numel() for p in encoder.parameters()),
        "validation_ctc_wer": wers,
    }


def clips_of(
    speech: Synthesiser, language: str, split: str, seed: int, extractor: WhisperFeatureExtractor
) -> list[Clip]:
    return [
        (
            log_mel(extractor, clip.samples, WHISPER_GEOMETRY.features_of_samples(len(clip.samples))),
            normalize_text(clip.text, language),
        )
        for clip in utterances(speech, language, split, seed)
    ]


def initialise(encoder: PrunedWhisperEncoder) -> None:
    """Weights as torch starts them; positions stay sinusoids, as Whisper's."""
    for module in encoder.modules():
        if isinstance(module, nn.Linear | nn.Conv1d):
            module.reset_parameters()


def train_ctc(
    encoder: PrunedWhisperEncoder, spell: nn.Linear, clips: list[Clip], letters: list[str], seed: int
) -> None:
    parameters = [p for p in (*encoder.parameters(), *spell.parameters()) if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, STEPS, pct_start=WARMUP)
    code = {letter: number for number, letter in enumerate(letters, start=1)}
    draw = random.Random(seed)
    batches = batches_forever(clips, draw)
    bar = tqdm(range(STEPS), desc="encoder, CTC", unit="step")
    encoder.train()
    for _ in bar:
        batch = next(batches)
        mels = pad_sequence([masked(mel, draw) for mel, _ in batch], batch_first=True).transpose(1, 2)
        mask = pad_sequence([torch.ones(len(mel), dtype=torch.bool) for mel, _ in batch], batch_first=True)
        targets = [torch.tensor([code[letter] for letter in text]) for _, text in batch]
        frames, frame_mask = encoder(mels, mask)
        loss = nn.functional.ctc_loss(
            spell(frames).log_softmax(-1).transpose(0, 1),
            pad_sequence(targets, batch_first=True),
            frame_mask.sum(1),
            torch.tensor([len(target) for target in targets]),
            blank=BLANK,
            zero_infinity=True,
        )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    encoder.eval()


def batches_forever(clips: list[Clip], draw: random.Random) -> Iterator[list[Clip]]:
    """Batches of like lengths, `BATCH_SECONDS` each, in random order, epoch after epoch."""
    ordered = sorted(clips, key=lambda clip: len(clip[0]))
    batches: list[list[Clip]] = [[]]
    for clip in ordered:
        if len(clip[0]) * (len(batches[-1]) + 1) > BATCH_SECONDS * 100:
            batches.append([])
        batches[-1].append(clip)
    while True:
        draw.shuffle(batches)
        yield from batches


def masked(mel: torch.Tensor, draw: random.Random) -> torch.Tensor:
    """The mel with one stretch of up to 0.15 s and one band of up to 12 bins set to their mean."""
    mel, mean = mel.clone(), mel.mean()
    start, bin_start = draw.randrange(len(mel)), draw.randrange(mel.shape[1])
    mel[start : start + draw.randint(0, 15)] = mean
    mel[:, bin_start : bin_start + draw.randint(0, 12)] = mean
    return mel


@torch.no_grad()
def ctc_wer(encoder: PrunedWhisperEncoder, spell: nn.Linear, clips: list[Clip], letters: list[str]) -> float:
    heard = []
    for mel, _ in clips:
        frames, _ = encoder(mel.T[None])
        best = torch.unique_consecutive(spell(frames)[0].argmax(-1))
        heard.append("".join(letters[index - 1] for index in best.tolist() if index != BLANK))
    return jiwer.wer([text for _, text in clips], heard)


def save_whisper(
    encoder: PrunedWhisperEncoder, config: WhisperConfig, extractor: WhisperFeatureExtractor, directory: Path
) -> None:
    """A Whisper checkpoint without decoder weights, in half precision."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = {
        f"model.encoder.{name}": tensor.to(torch.float16).contiguous()
        for name, tensor in encoder.state_dict().items()
    }
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    config.architectures, config.dtype = ["WhisperForConditionalGeneration"], torch.float16
    config.save_pretrained(directory)
    extractor.save_pretrained(directory)
