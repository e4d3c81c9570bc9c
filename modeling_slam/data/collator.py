"""Rows of `load_speech` in, batches for the model out; runs in the data loader's workers.

Audio is decoded here and not before, so memory holds only the batches at hand. Loss is asked for on the
transcript alone: the processor labels prompt, audio and padding with -100.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from modeling_slam.data.frame_store import FrameReader
from modeling_slam.data.hotwords import HotwordDraws
from modeling_slam.model.audio_lengths import MAX_CLIP_SECONDS, SAMPLING_RATE
from modeling_slam.model.ctc_head import CtcVocabulary
from modeling_slam.model.processing_slam import LANGUAGE_SLOT, SlamAsrProcessor, in_language, padding_mask

CLIP_IDS = "clip_ids"  # in a batch: whose rows these are, to name them; nothing for the model
DRAW = "draw"  # column of the training clips: the row that what is drawn for a clip belongs to
FOLD = "fold"  # column that says which part of the training clips this one belongs to, see cross_fitting.py
CLIP_DIGEST = "clip_digest"  # column that says under which name a clip's encoder frames are cached


@dataclass
class SpeechCollator:
    """Prepares a batch to train on: decodes audio, or reads the encoder's frames of it from a cache.

    Rows that name no frames by `CLIP_DIGEST` are decoded, cache or not. What the cache holds is called
    `cached_name` in the batch: "input_features" where it is what lower layers hand up to a trained one. With
    `hotwords` the prompts of rows with a `DRAW` have some, drawn for each clip and epoch. With
    the vocabulary of a CTC head a batch has `ctc_targets` too, (B, N), -100 behind each transcript. Where
    rows have an `id`, `CLIP_IDS` lists them, as `FOLD`, (B,), does where they have a fold; the trainer takes
    both out before the model gets the batch.
    """

    processor: SlamAsrProcessor
    cache: FrameReader | None = None
    vocabulary: CtcVocabulary | None = None
    cached_name: str = "encoder_frames"
    hotwords: HotwordDraws | None = None

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = self._speech(rows)
        if self.vocabulary is not None:
            classes = [torch.tensor(self.vocabulary.encode(row["text"]), dtype=torch.long) for row in rows]
            batch["ctc_targets"] = pad_sequence(classes, batch_first=True, padding_value=-100)
        if FOLD in rows[0]:
            batch[FOLD] = torch.tensor([row[FOLD] for row in rows])
        if all("id" in row for row in rows):
            batch[CLIP_IDS] = [row["id"] for row in rows]
        return batch

    def _speech(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        transcripts = [row["text"] for row in rows]
        languages = [row.get("language") for row in rows]
        hotwords = None
        if self.hotwords is not None and DRAW in rows[0]:
            hotwords = [self.hotwords.for_training(row[DRAW], row["text"]) for row in rows]
        if self.cache is None or CLIP_DIGEST not in rows[0]:
            audio = [row["audio"] for row in rows]
            return dict(self.processor(audio, transcripts, language=languages, hotwords=hotwords))
        frames = [self.cache[row[CLIP_DIGEST]] for row in rows]  # each (T_i, D)
        lengths = [len(clip) for clip in frames]
        return {
            self.cached_name: pad_sequence(frames, batch_first=True),
            f"{self.cached_name}_mask": padding_mask(lengths),
            **self.processor.text_features(lengths, transcripts, languages, hotwords),
        }


def check_clip_lengths(dataset: Any, max_seconds: float | None = MAX_CLIP_SECONDS) -> None:
    """An encoder may hear `max_seconds` at most, Whisper 30; say so before a run, not in the middle of it."""
    longest = max(dataset["duration"])
    if max_seconds is not None and longest > max_seconds:
        raise ValueError(
            f"The longest clip lasts {longest:.2f} s and the encoder hears {max_seconds:g} s; "
            f"set `--max_seconds {max_seconds:g}`."
        )


def check_lengths(dataset: Any, processor: SlamAsrProcessor) -> None:
    """Show before a run, and not in the middle of it, that its longest and shortest clips can be prepared.

    Raises:
        ValueError: the longest clip is longer than the encoder hears, the shortest makes no audio token, or
            the instruction names the language, and that of a clip is not known.
    """
    geometry = processor.audio_geometry
    check_clip_lengths(dataset, geometry.max_seconds)
    language = check_languages(dataset, processor)
    shortest = min(dataset["duration"])
    if not makes_tokens(shortest, processor, language):
        frame_seconds = geometry.frame_samples / SAMPLING_RATE
        enough = next(
            frames * frame_seconds
            for frames in itertools.count(1)
            if makes_tokens(frames * frame_seconds, processor, language)
        )
        raise ValueError(
            f"The shortest clip lasts {shortest:.3f} s and makes no audio token; "
            f"set `--min_seconds {enough:g}`."
        )


def makes_tokens(seconds: float, processor: SlamAsrProcessor, language: str | None) -> bool:
    """Whether the LLM gets anything of a clip of this length."""
    frames = processor.audio_geometry.frames_of_samples(round(seconds * SAMPLING_RATE))
    try:
        processor.prompt_ids(frames, language)
    except ValueError:
        return False
    return True


def check_languages(dataset: Any, processor: SlamAsrProcessor) -> str | None:
    """Refuse clips of no known language, or of one without a name, where the instruction names it.

    Returns one of the languages then, else None.
    """
    if LANGUAGE_SLOT not in processor.instruction:
        return None
    languages = set(dataset["language"])
    if None in languages:
        raise ValueError(
            f"The instruction {processor.instruction!r} names the language, and clips of the data have none: "
            "set `--language`, one for all datasets or one for each."
        )
    for language in languages:
        in_language(processor.instruction, language)
    return languages.pop()
