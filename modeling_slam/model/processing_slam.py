"""Processor: audio and transcripts in, tensors for `SlamAsrForConditionalGeneration` out.

A clip becomes log-mel frames and a prompt of one placeholder per audio token and the instruction; for
training the transcript and end-of-text follow. Each clip is prepared by itself, so its tensors do not depend
on its batch.

Source of the prompt's order: SLAM-ASR, https://huggingface.co/papers/2402.08846
"""

from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import BatchFeature, ProcessorMixin

from .audio_io import load_audio
from .audio_lengths import (
    MAX_CLIP_SECONDS,
    MIN_CHUNK_SECONDS,
    SAMPLING_RATE,
    TailRule,
    audio_token_count,
    encoder_frames_of_mel_frames,
    mel_frames_of_samples,
)

AUDIO_TOKEN = "<|slam_audio|>"
INSTRUCTION = "Transcribe speech to text.\n"


class SlamAsrProcessor(ProcessorMixin):
    r"""
    Args:
        feature_extractor (`WhisperFeatureExtractor`): That of the base Whisper.
        tokenizer (`PreTrainedTokenizerBase`):
            That of the LLM. A placeholder token is added to it, in a free slot of the LLM's vocabulary or
            behind it.
        instruction (`str`): What the LLM reads between audio and transcript.
        projector_stack, projector_tail, projector_queries: As in the model's config; they give the number of
        placeholders.
        pad_to_seconds (`float`, *optional*):
            Length that every clip is padded to with silence. `None` runs the encoder on the clip's own
            length; 30 is Whisper's own way, at ten times the cost for a clip of 3 s. Train and transcribe
            with the same value. `generate` then takes the padded length for the clip's: its limit of tokens
            per second ends loops later.
        chunk_seconds (`float`, *optional*):
            How long the pieces are, at most, that the pipeline cuts recordings over 30 s into. `train.py`
            sets what 95 % of the training clips stay below: a model hears worst what is longer.
    """

    model_input_names = ("input_features", "input_features_mask", "input_ids", "attention_mask")

    def __init__(
        self,
        feature_extractor: Any,
        tokenizer: Any,
        instruction: str = INSTRUCTION,
        projector_stack: int = 5,
        projector_tail: TailRule = "pad",
        projector_queries: int | None = None,
        pad_to_seconds: float | None = None,
        chunk_seconds: float | None = None,
    ):
        if pad_to_seconds is not None and not 0 < pad_to_seconds <= MAX_CLIP_SECONDS:
            raise ValueError(
                f"`pad_to_seconds` must lie in (0, {MAX_CLIP_SECONDS:g}] or be None, got {pad_to_seconds}."
            )
        if chunk_seconds is not None and not MIN_CHUNK_SECONDS <= chunk_seconds <= MAX_CLIP_SECONDS:
            raise ValueError(
                f"`chunk_seconds` must lie in [{MIN_CHUNK_SECONDS:g}, {MAX_CLIP_SECONDS:g}] or be None, got "
                f"{chunk_seconds}."
            )
        super().__init__(feature_extractor, tokenizer)
        self.instruction = instruction
        self.projector_stack = projector_stack
        self.projector_tail = projector_tail
        self.projector_queries = projector_queries
        self.pad_to_seconds = pad_to_seconds
        self.chunk_seconds = chunk_seconds
        tokenizer.add_special_tokens(
            {"additional_special_tokens": [AUDIO_TOKEN]}, replace_extra_special_tokens=False
        )
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token

    @property
    def audio_token_id(self) -> int:
        return self.tokenizer.convert_tokens_to_ids(AUDIO_TOKEN)

    @property
    def pad_token_id(self) -> int:
        return self.tokenizer.pad_token_id

    @property
    def eos_token_id(self) -> int:
        """End-of-text: closes every transcript."""
        return self.tokenizer.eos_token_id

    def __call__(
        self,
        audio: Any,
        text: str | list[str] | None = None,
        sampling_rate: int | None = None,
    ) -> BatchFeature:
        """Prepare one clip or a list of clips.

        Args:
            audio: a path, bytes, a float array (n,) at `sampling_rate` (16 kHz by default), a dict as
                `datasets` has it, or a list of these. Other rates are resampled.
            text: the transcripts, to train; `None` to transcribe.

        Returns:
            `input_features` (B, M, F), `input_features_mask` (B, F), `input_ids` (B, L) and `attention_mask`
            (B, L), padded on the left to transcribe. With `text` padded on the right, and `labels` (B, L).

        Raises:
            AudioError: a clip cannot be decoded. ValueError: a clip is longer than 30 s, or counts differ.
        """
        clips = audio if isinstance(audio, list | tuple) and not is_number(audio[0]) else [audio]
        waves = [load_audio(clip, sampling_rate) for clip in clips]
        mels = [self.log_mel(wave) for wave in waves]  # each (F_i, M)
        transcripts = [text] if isinstance(text, str) else text
        features = {
            # Padding comes after the log, so it is 0.0.
            "input_features": pad_sequence(mels, batch_first=True).transpose(1, 2),
            "input_features_mask": padding_mask([len(mel) for mel in mels]),
        }
        return BatchFeature(features | self.text_features([len(mel) for mel in mels], transcripts))

    def text_features(
        self, mel_frames: list[int], transcripts: list[str] | None = None
    ) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask` and, with transcripts, `labels` for clips of these mel frames."""
        prompts = [self.prompt_ids(frames) for frames in mel_frames]
        if transcripts is None:
            return self._pad_ids(prompts, side="left")
        if len(transcripts) != len(prompts):
            raise ValueError(
                f"Got {len(prompts)} clips and {len(transcripts)} transcripts; give one for each clip."
            )
        targets = [self.transcript_ids(transcript) for transcript in transcripts]
        rows = [torch.cat(pair) for pair in zip(prompts, targets, strict=True)]
        labels = [torch.cat([torch.full_like(p, -100), t]) for p, t in zip(prompts, targets, strict=True)]
        return self._pad_ids(rows, side="right") | {
            "labels": pad_sequence(labels, batch_first=True, padding_value=-100)
        }

    def log_mel(self, wave: np.ndarray) -> torch.Tensor:
        """(n,) at 16 kHz -> (F, M), with F a whole number of encoder frames."""
        seconds = len(wave) / SAMPLING_RATE
        if seconds > MAX_CLIP_SECONDS:
            raise ValueError(
                f"The clip lasts {seconds:.2f} s; at most {MAX_CLIP_SECONDS:g} s fit. Cut it first."
            )
        samples = max(len(wave), round((self.pad_to_seconds or 0) * SAMPLING_RATE))
        return log_mel(self.feature_extractor, wave, mel_frames_of_samples(samples))

    def prompt_ids(self, mel_frames: int) -> torch.Tensor:
        """Placeholders of a clip of `mel_frames`, then the instruction: (A + instruction,)."""
        tokens = audio_token_count(
            encoder_frames_of_mel_frames(mel_frames),
            self.projector_stack,
            self.projector_tail,
            self.projector_queries,
        )
        if tokens < 1:
            raise ValueError(
                f"A clip of {mel_frames / 100:.2f} s makes no audio token. Leave out clips this short."
            )
        instruction = self.tokenizer(self.instruction, add_special_tokens=False)["input_ids"]
        return torch.tensor([self.audio_token_id] * tokens + instruction)

    def transcript_ids(self, text: str) -> torch.Tensor:
        """The transcript and end-of-text."""
        return torch.tensor([*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.eos_token_id])

    def _pad_ids(self, rows: list[torch.Tensor], side: str) -> dict[str, torch.Tensor]:
        masks = [torch.ones_like(row) for row in rows]
        return {
            "input_ids": pad_sequence(
                rows, batch_first=True, padding_value=self.pad_token_id, padding_side=side
            ),
            "attention_mask": pad_sequence(masks, batch_first=True, padding_side=side),
        }


def log_mel(extractor: Any, wave: np.ndarray, frames: int) -> torch.Tensor:
    """(n,) at 16 kHz -> (frames, M); `extractor` is a `WhisperFeatureExtractor`.

    The clip's own end must not matter to its frames, so silence of one analysis window follows before the
    transform.
    """
    padded = np.zeros(frames * extractor.hop_length + extractor.n_fft, dtype=np.float32)
    padded[: len(wave)] = wave
    mel = extractor(padded, sampling_rate=SAMPLING_RATE, padding=False, truncation=False, return_tensors="pt")
    return mel["input_features"][0, :, :frames].T


def padding_mask(lengths: list[int]) -> torch.Tensor:
    """(B, longest), True within each row's length."""
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number)
