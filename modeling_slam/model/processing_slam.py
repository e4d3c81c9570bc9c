"""Processor: audio and transcripts in, tensors for `SlamAsrForConditionalGeneration` out.

A clip becomes features (log-mel frames or, for a waveform encoder, samples) and a prompt of one placeholder
per audio token and the instruction; for training the transcript and end-of-text follow. Each clip is prepared
by itself, so its tensors do not depend on its batch.

Source of the prompt's order: SLAM-ASR, https://huggingface.co/papers/2402.08846; of hotwords in the prompt:
MaLa-ASR, https://huggingface.co/papers/2406.05839
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import BatchFeature, ProcessorMixin
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from .audio_io import load_audio
from .audio_lengths import (
    MAX_CLIP_SECONDS,
    MIN_CHUNK_SECONDS,
    SAMPLING_RATE,
    WHISPER_GEOMETRY,
    AudioGeometry,
    TailRule,
    audio_token_count,
)

AUDIO_TOKEN = "<|slam_audio|>"
INSTRUCTION = "Transcribe speech to text.\n"
Languages = str | Sequence[str | None] | None  # of all clips, or of each
LANGUAGE_SLOT = "{language}"  # in an instruction: where the language of the clip is named
HOTWORDS_SLOT = "{hotwords}"  # where words and phrases stand that may be said
MAX_HOTWORDS, MAX_HOTWORD_CHARACTERS = 100, 60  # of a clip, and of each
Hotwords = Sequence[str] | Sequence[Sequence[str] | None] | None  # of all clips, or of each


class SlamAsrProcessor(ProcessorMixin):
    r"""
    Args:
        feature_extractor (`WhisperFeatureExtractor` or `Wav2Vec2FeatureExtractor`): That of the base encoder.
        tokenizer (`PreTrainedTokenizerBase`):
            That of the LLM. A placeholder token is added to it, in a free slot of the LLM's vocabulary or
            behind it.
        instruction (`str`):
            What the LLM reads between audio and transcript. Where it holds `{language}`, the English name of
            the clip's language stands there, and `language` must be given with the audio. Where it holds
            `{hotwords}`, the words and phrases stand there that are given as `hotwords`, or nothing.
        projector_stack, projector_tail, projector_queries:
            As in the model's config; they give the number of placeholders.
        pad_to_seconds (`float`, *optional*):
            Length that every clip is padded to with silence. `None` runs the encoder on the clip's own
            length; 30 is Whisper's own way, at ten times the cost for a clip of 3 s. Train and transcribe
            with the same value. `generate` then takes the padded length for the clip's: its limit of tokens
            per second ends loops later.
        chunk_seconds (`float`, *optional*):
            How long the pieces are, at most, that the pipeline cuts recordings over 30 s into. `train.py`
            sets what 99 % of the training clips and a second of pauses around them stay below: a model hears
            worst what is longer, and shorter pieces would cut its sentences in two.
        max_doubt (`float`, *optional*):
            Greatest `doubt` of the CTC head, in nats, about a chunk in which the pipeline still takes it to
            hear speech. `train.py` sets a tenth more than it has about any validation clip. Without it,
            babble counts as speech.
        audio_geometry (`AudioGeometry` or `dict`, defaults to Whisper's):
            As in the model's config: how the encoder counts samples and frames.
    """

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
        max_doubt: float | None = None,
        audio_geometry: AudioGeometry | dict[str, Any] = WHISPER_GEOMETRY,
    ):
        if isinstance(audio_geometry, dict):
            audio_geometry = AudioGeometry(**audio_geometry)
        longest = audio_geometry.max_seconds or MAX_CLIP_SECONDS
        if pad_to_seconds is not None and not 0 < pad_to_seconds <= longest:
            raise ValueError(f"`pad_to_seconds` must lie in (0, {longest:g}], got {pad_to_seconds}.")
        if chunk_seconds is not None and not MIN_CHUNK_SECONDS <= chunk_seconds <= MAX_CLIP_SECONDS:
            raise ValueError(
                f"`chunk_seconds` must lie in [{MIN_CHUNK_SECONDS:g}, {MAX_CLIP_SECONDS:g}] or be None, got "
                f"{chunk_seconds}."
            )
        super().__init__(feature_extractor, tokenizer)
        self.instruction, self.audio_geometry = instruction, audio_geometry
        self.projector_stack, self.projector_tail = projector_stack, projector_tail
        self.projector_queries = projector_queries
        self.pad_to_seconds, self.chunk_seconds, self.max_doubt = pad_to_seconds, chunk_seconds, max_doubt
        tokenizer.add_special_tokens(
            {"additional_special_tokens": [AUDIO_TOKEN]}, replace_extra_special_tokens=False
        )
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token

    @property
    def model_input_names(self) -> list[str]:
        return ["input_features", "input_features_mask", "input_ids", "attention_mask"]

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
        return_tensors: str = "pt",
        padding: bool | str = True,
        language: Languages = None,
        hotwords: Hotwords = None,
    ) -> BatchFeature:
        """Prepare one clip or a list of clips.

        Args:
            audio: a path, bytes, a float array (n,) at `sampling_rate` (16 kHz by default), a dict as
                `datasets` has it, or a list of these. Other rates are resampled.
            text: the transcripts, to train; `None` to transcribe.
            return_tensors: "pt" or "np".
            padding: `True` or "longest" pads a batch to its longest row; `False` wants rows of one length.
            language: of all clips, or of each: a code such as "nl" or "sv-SE", or an English name. For
                instructions with `{language}`; others leave it unread.
            hotwords: words and phrases that may be said, such as names, written as the model writes them: of
                all clips, or a list for each. At most 100 of 60 characters. For instructions with
                `{hotwords}`.

        Returns:
            `input_features` (B, M, F) log-mel or (B, n) samples, `input_features_mask` (B, F) or (B, n),
            `input_ids` (B, L) and `attention_mask` (B, L), padded on the left to transcribe. With `text`
            padded on the right, and `labels` (B, L).

        Raises:
            AudioError: a clip cannot be decoded.
            ValueError: a clip is longer than the encoder takes (Whisper's 30 s) or too short for an audio
                token, there is none, counts differ, the instruction names the language and it is not given or
                not known, hotwords are given and it has no place for them, or an argument is none of the
                above.
        """
        if return_tensors not in ("pt", "np"):
            raise ValueError(f'`return_tensors` must be "pt" or "np", got {return_tensors!r}.')
        if padding not in (True, False, "longest"):
            raise ValueError(
                f'`padding` must be True, "longest" or False, got {padding!r}; for a length of your own '
                "there is the processor's `pad_to_seconds`."
            )
        clips = audio if isinstance(audio, list | tuple) else [audio]
        if not len(clips):
            raise ValueError("`audio` is an empty list; give at least one clip.")
        if isinstance(clips[0], int | float | np.number):  # the samples of one clip
            clips = [audio]
        features = [self.audio_features(load_audio(clip, sampling_rate)) for clip in clips]
        lengths = [len(clip) for clip in features]
        frames = [self.audio_geometry.frames_of_features(length) for length in lengths]
        texts = [text] if isinstance(text, str) else text
        text_inputs = self.text_features(frames, texts, language, hotwords)
        if not padding and not (len(set(lengths)) == 1 and text_inputs["attention_mask"].all()):
            raise ValueError("`padding=False` needs rows of one length; leave it out, or pass one clip.")
        padded = pad_sequence(features, batch_first=True)  # with 0.0, behind the log: (B, F, M) or (B, n)
        inputs = {
            "input_features": padded.transpose(1, 2) if padded.dim() == 3 else padded,
            "input_features_mask": padding_mask(lengths),
            **text_inputs,
        }
        arrays = return_tensors == "np"
        return BatchFeature({name: tensor.numpy() if arrays else tensor for name, tensor in inputs.items()})

    def apply_transcription_request(self, audio: Any, **kwargs: Any) -> BatchFeature:
        """Inputs for `generate`: the name that transformers' audio models have for a call without `text`."""
        return self(audio, **kwargs)

    def text_features(
        self,
        encoder_frames: list[int],
        transcripts: list[str] | None = None,
        language: Languages = None,
        hotwords: Hotwords = None,
    ) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask` and, with transcripts, `labels` for clips of these encoder frames."""
        count = len(encoder_frames)
        one_for_all = language is None or isinstance(language, str)
        languages = [language] * count if one_for_all else list(language)
        one_for_all = not hotwords or any(isinstance(word, str) for word in hotwords)
        contexts: list[Any] = [hotwords] * count if one_for_all else [*hotwords]
        for name, values in (("language", languages), ("hotwords", contexts)):
            if len(values) != count:
                raise ValueError(
                    f"Got {count} clips and {len(values)} in `{name}`; give one for all, or one for each "
                    "clip."
                )
        prompts = [self.prompt_ids(*clip) for clip in zip(encoder_frames, languages, contexts, strict=True)]
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

    def audio_features(self, wave: np.ndarray) -> torch.Tensor:
        """(n,) at 16 kHz -> (F, M) log-mel of whole encoder frames, or (F,) samples."""
        seconds, geometry = len(wave) / SAMPLING_RATE, self.audio_geometry
        if geometry.max_seconds is not None and seconds > geometry.max_seconds:
            raise ValueError(
                f"The clip lasts {seconds:.2f} s; at most {geometry.max_seconds:g} s fit. Cut it first."
            )
        samples = max(len(wave), round((self.pad_to_seconds or 0) * SAMPLING_RATE))
        prepare = log_mel if geometry.hop > 1 else waveform
        return prepare(self.feature_extractor, wave, geometry.features_of_samples(samples))

    def prompt_ids(
        self, encoder_frames: int, language: str | None = None, hotwords: Sequence[str] | None = None
    ) -> torch.Tensor:
        """Placeholders of a clip of so many encoder frames, then the instruction: (A + instruction,)."""
        tokens = audio_token_count(
            encoder_frames, self.projector_stack, self.projector_tail, self.projector_queries
        )
        if tokens < 1 or encoder_frames < 1:
            seconds = encoder_frames * self.audio_geometry.frame_samples / SAMPLING_RATE
            raise ValueError(f"A clip of {seconds:.2f} s makes no audio token. Leave out clips this short.")
        text = in_language(self.instruction, language)
        text = text.replace(HOTWORDS_SLOT, ", ".join(self.checked_hotwords(hotwords)))
        instruction = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return torch.tensor([self.audio_token_id] * tokens + instruction)

    def checked_hotwords(self, hotwords: Sequence[str] | None) -> Sequence[str]:
        """The hotwords of a clip, if the instruction can tell them.

        Raises:
            ValueError: it has no place for them, they are too many, or one is no word or too long.
        """
        words = () if hotwords is None else hotwords
        if isinstance(words, str) or not all(isinstance(word, str) and word.strip() for word in words):
            raise ValueError(f"`hotwords` must be a list of words and phrases, got {hotwords!r}.")
        if words and HOTWORDS_SLOT not in self.instruction:
            raise ValueError(
                f"`hotwords` need a model that learnt to read them, and the instruction of this one, "
                f"{self.instruction!r}, has no place for them: leave them out, or train a model with "
                '`--instruction "Hotwords: {hotwords}. Transcribe speech to text."`.'
            )
        if len(words) > MAX_HOTWORDS:
            raise ValueError(f"`hotwords` may be {MAX_HOTWORDS} words and phrases at most, got {len(words)}.")
        reserved = self.tokenizer.get_added_vocab() if words else ()
        for word in words:
            if len(word) > MAX_HOTWORD_CHARACTERS or any(token in word for token in reserved):
                raise ValueError(
                    f"Each of `hotwords` must be text of at most {MAX_HOTWORD_CHARACTERS} characters without "
                    f"the tokenizer's own marks, got {word!r}."
                )
        return words

    def transcript_ids(self, text: str) -> torch.Tensor:
        """The transcript and end-of-text."""
        return torch.tensor([*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.eos_token_id])

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {"audio_geometry": asdict(self.audio_geometry)}

    def _pad_ids(self, rows: list[torch.Tensor], side: str) -> dict[str, torch.Tensor]:
        masks = [torch.ones_like(row) for row in rows]
        return {
            "input_ids": pad_sequence(
                rows, batch_first=True, padding_value=self.pad_token_id, padding_side=side
            ),
            "attention_mask": pad_sequence(masks, batch_first=True, padding_side=side),
        }


def in_language(instruction: str, language: str | None) -> str:
    """The instruction with the English name of a language, given by code or name, where it asks for one.

    Raises:
        ValueError: it does, and no language is given, or one that Whisper's table of names does not have.
    """
    if LANGUAGE_SLOT not in instruction:
        return instruction
    if language is None:
        raise ValueError(
            f"The instruction of this model, {instruction!r}, names the language of the clip: give "
            '`language`, such as language="nl".'
        )
    wanted = language.lower()
    name = LANGUAGES.get(wanted) or LANGUAGES.get(wanted.split("-")[0])
    if name is None and wanted not in LANGUAGES.values():
        raise ValueError(
            f"`language` {language!r} has no English name in transformers' table for Whisper; expected a "
            "code such as nl, or a name such as Dutch."
        )
    return instruction.replace(LANGUAGE_SLOT, (name or wanted).title())


def log_mel(extractor: Any, wave: np.ndarray, frames: int) -> torch.Tensor:
    """(n,) at 16 kHz -> (frames, M); `extractor` is a `WhisperFeatureExtractor`.

    The clip's own end must not matter to its frames, so silence of one analysis window follows before the
    transform.
    """
    padded = np.zeros(frames * extractor.hop_length + extractor.n_fft, dtype=np.float32)
    padded[: len(wave)] = wave
    mel = extractor(padded, sampling_rate=SAMPLING_RATE, padding=False, truncation=False, return_tensors="pt")
    return mel["input_features"][0, :, :frames].T


def waveform(extractor: Any, wave: np.ndarray, samples: int) -> torch.Tensor:
    """(n,) at 16 kHz -> (samples,), as the `Wav2Vec2FeatureExtractor` prepares a clip on its own."""
    padded = np.zeros(samples, dtype=np.float32)
    padded[: len(wave)] = wave
    return extractor(padded, sampling_rate=SAMPLING_RATE, return_tensors="pt")["input_values"][0]


def padding_mask(lengths: list[int]) -> torch.Tensor:
    """(B, longest), True within each row's length."""
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
