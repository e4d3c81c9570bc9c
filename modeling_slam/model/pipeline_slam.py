"""The speech recognition pipeline: recordings of any kind and any length in, text out.

    pipeline("automatic-speech-recognition", model=checkpoint, trust_remote_code=True)

Checkpoints name this class in `custom_pipelines`, so transformers uses it instead of its own, which would
decode a SLAM-ASR model as CTC, need ffmpeg and torchaudio, and lose what lies beyond 30 s.

A recording that is too long for the model is cut into chunks (`audio_lengths.split`) and their transcripts
are joined again: where two chunks overlap, by the words that both have. The CTC head of a model that has one
says in which chunks nothing is said, which the LLM then does not hear of, where to cut, and when each word
was said.
"""

import functools
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import GenerationConfig, Pipeline
from transformers.generation.streamers import BaseStreamer

from .audio_io import stream_audio
from .audio_lengths import (
    MAX_CLIP_SECONDS,
    MIN_CHUNK_SECONDS,
    Chunk,
    Word,
    join,
    longest_blank,
    longest_pause,
    segments,
    split,
    timed,
)
from .ctc_head import (
    BLANK,
    CtcVocabulary,
    best_by_both,
    head_log_probs,
    holds_speech,
    timed_words,
    vocabulary_of,
)

CHUNK_SECONDS = 15.0  # for checkpoints that do not tell the length of what they were trained on
# What `generate` takes beside the fields of `GenerationConfig`, and may be given without `generate_kwargs`.
GENERATE_ARGUMENTS = {"generation_config", "streamer", "logits_processor", "stopping_criteria"}
GENERATE_ARGUMENTS |= {"custom_generate", "max_tokens_per_second"}
OF_HEAD = ("ctc_weight", "speech_threshold", "return_timestamps")  # arguments for models with a CTC head
OWN_ARGUMENTS = {"language", "hotwords", *OF_HEAD}  # given alike, and not for `generate` itself

SPEECH_THRESHOLD = 0.95  # measured with `python -m benchmarks.ctc_head silence`, see docs/pipeline.md


class SlamAsrPipeline(Pipeline):
    r"""Transcribes recordings. Arguments given on building it hold for every call that gives no others.

    Args:
        inputs:
            A recording, or many: a list gives a list of results, a generator, a `datasets` column or a
            `KeyDataset` gives an iterator that reads as it goes. A recording is a path, an http(s) address,
            the bytes of a file, float samples at 16 kHz, or a dictionary: `{"array", "sampling_rate"}` (or
            `"raw"`), `{"bytes"}` or `{"path"}`. wav, flac, mp3, ogg, opus, m4a, webm, mp4 and more are read.
        chunk_length_s (`float`, *optional*):
            Longest piece that the model hears at once, in seconds, from 2 to 30. By default recordings of
            up to 30 s are heard whole, and longer ones in pieces as long as the clips the model was trained
            on (its processor's `chunk_seconds`, 15 s if it has none): what is longer it hears badly.
        generate_kwargs (`dict`, *optional*):
            For `generate`: `num_beams`, `max_new_tokens` (of one chunk), ... With a `streamer` the text of
            one recording comes as it is decoded, without beams. Where chunks overlap it holds their common
            words twice.
        language (`str`, *optional*):
            That of the recordings, as a code or an English name; for a model whose instruction names it.
        hotwords (`list[str]`, *optional*):
            Words and phrases that may be said, such as names, written as the model writes them; for a model
            whose instruction has a place for them. At most 100 of 60 characters.
        ctc_weight (`float`, *optional*):
            Above 0: of the beams, and of what the CTC head reads, the best by the LLM's log-probability plus
            this times the head's. For a model with a CTC head.
        return_timestamps (`bool` or `str`, *optional*):
            `"word"` for the time of each word, `True` for that of segments, which end with a sentence or at a
            pause. For a model with a CTC head.
        speech_threshold (`float`, defaults to 0.95 for a model with a CTC head):
            A chunk in which the head holds no position for anything but blank with at least this probability
            has no text. 0 asks the LLM always.
        batch_size (`int`, defaults to 1): Chunks decoded together, of one or of several recordings.
        num_workers (`int`, *optional*):
            Taken as by every pipeline, without effect: reading is little work and stays in this process.

    Returns: `{"text": str}` for each recording; with `return_timestamps` also `"chunks"`, a list of `{"text",
    "timestamp": (start, end), "confidence"}`, in seconds. The confidence of a word is the CTC head's
    probability of it, that of a segment the mean over its words.

    Raises:
        AudioError: a recording cannot be read, is empty or holds NaN. ValueError or TypeError: an argument
        is not understood, or arguments do not go together.
    """

    model: Any
    processor: Any

    _load_processor = True
    _load_tokenizer = _load_feature_extractor = _load_image_processor = _load_video_processor = False

    def __init__(self, model: Any, processor: Any = None, batch_size: int | None = None, **kwargs: Any):
        if processor is None:
            raise ValueError(
                "The pipeline needs the checkpoint's processor, which knows the prompt beside tokenizer and "
                "feature extractor: pass `processor=AutoProcessor.from_pretrained(checkpoint)`, or the "
                "checkpoint's name instead of a loaded model."
            )
        self.batch_size = 1 if batch_size is None else batch_size
        super().__init__(model, processor=processor, **kwargs)
        self.model.eval()

    def _sanitize_parameters(self, **arguments: Any) -> tuple[dict, dict, dict]:
        """`Pipeline` calls this once, with what it was built with and does not know."""
        self.chunk_length_s, self.generate_kwargs = checked_arguments(**arguments)
        return {}, {}, {}

    def __call__(self, inputs: Any, batch_size: int | None = None, **arguments: Any) -> Any:
        """Transcribe one recording or many; the class says what they may be and what comes back."""
        chunk_length_s, generate_kwargs = checked_arguments(**arguments)
        preset = self.generate_kwargs
        if "generation_config" in generate_kwargs:  # which takes the place of all settings of `generate`
            preset = {name: value for name, value in preset.items() if name in OWN_ARGUMENTS}
        generate_kwargs = preset | generate_kwargs
        is_many, streamer = holds_many(inputs), generate_kwargs.get("streamer")
        try:
            self.check_head(**{name: generate_kwargs.get(name) for name in ("streamer", *OF_HEAD)})
            self.processor.checked_hotwords(generate_kwargs.get("hotwords"))
            results = Results(
                self,
                recordings=inputs if is_many else [inputs],
                chunk_length_s=chunk_length_s or self.chunk_length_s,
                generate_kwargs=generate_kwargs,
                batch_size=self.batch_size if batch_size is None else batch_size,
            )
            if streamer is not None and (is_many or results.batch_size > 1):
                raise ValueError("A `streamer` follows one recording: give one, with `batch_size=1`.")
            if is_many:
                return list(results) if isinstance(inputs, list | tuple) else results
            (result,) = results
            return result
        finally:  # also after an error: another thread may wait for the end
            if streamer is not None:
                streamer.end()

    def preprocess(  # ty: ignore[incompatible-method-override] (a recording makes several inputs)
        self, recording: Any, chunk_length_s: float | None = None
    ) -> Iterator[Chunk]:
        """A recording -> its chunks, read as they are asked for."""
        if isinstance(recording, int | float):
            raise TypeError("A list is read as recordings, and this one holds numbers: pass a numpy array.")
        given = recording if isinstance(recording, Mapping) else {}
        if given.get("array", given.get("raw")) is not None and given.get("sampling_rate") is None:
            raise ValueError("Samples in a dictionary need their rate: add `sampling_rate`, in Hz.")
        longest = chunk_length_s or self.processor.chunk_seconds or CHUNK_SECONDS
        find_pause = longest_pause if self.model.ctc_head is None else self.find_blank
        return split(stream_audio(recording), longest, chunk_length_s or MAX_CLIP_SECONDS, find_pause)

    def _forward(  # ty: ignore[incompatible-method-override]
        self,
        chunks: list[Chunk],
        language: str | None = None,
        hotwords: list[str] | None = None,
        speech_threshold: float | None = None,
        return_timestamps: bool | str | None = None,
        **settings: Any,
    ) -> list[tuple[str, list[Word]]]:
        """Chunks -> the transcript of each and its words, with their times in the recording if asked for."""
        inputs = self.processor([chunk.samples for chunk in chunks], language=language, hotwords=hotwords)
        inputs = inputs.to(self.device, self.model.dtype)
        if self.model.ctc_head is None:
            return [with_words(text) for text in self.generated(inputs, chunks, **settings)]
        inputs = self.model.encoded(inputs)
        log_probs = head_log_probs(self.model, inputs)
        threshold = SPEECH_THRESHOLD if speech_threshold is None else speech_threshold
        limits = threshold, self.processor.max_doubt
        spoken = [row for row, of_head in enumerate(log_probs) if holds_speech(of_head, *limits)]
        texts = [""] * len(chunks)
        if spoken:
            inputs = {name: tensor[spoken] for name, tensor in inputs.items()}
            written = self.generated(inputs, [chunks[row] for row in spoken], **settings)
            for row, text in zip(spoken, written, strict=True):
                texts[row] = text
        if not return_timestamps:
            return [with_words(text) for text in texts]
        return [
            (text, timed_words(self.vocabulary, text, of_head, chunk, self.position_samples))
            for text, of_head, chunk in zip(texts, log_probs, chunks, strict=True)
        ]

    def generated(
        self,
        inputs: Mapping[str, torch.Tensor],
        chunks: list[Chunk],
        streamer: BaseStreamer | None = None,
        ctc_weight: float = 0.0,
        **generate_kwargs: Any,
    ) -> list[str]:
        """What the LLM writes of each chunk."""
        if streamer is not None:
            streamer = ChunkStreamer(streamer, self.processor.tokenizer, continues=chunks[0].start > 0)
            generate_kwargs["streamer"] = streamer
        if ctc_weight:
            settings = generate_kwargs.get("generation_config") or self.model.generation_config
            beams = generate_kwargs.get("num_beams") or settings.num_beams or 1
            generate_kwargs["num_return_sequences"] = beams
        generated = self.model.generate(**inputs, **generate_kwargs)
        rows = getattr(generated, "sequences", generated)  # with `return_dict_in_generate`
        texts = self.processor.batch_decode(rows, skip_special_tokens=True)
        if ctc_weight:
            return best_by_both(self.model, self.processor, self.vocabulary, inputs, texts, ctc_weight)
        if len(texts) != len(chunks):
            raise ValueError(
                f"{len(chunks)} chunks gave {len(texts)} transcripts; leave `num_return_sequences` at 1."
            )
        return [text.strip() for text in texts]

    # ---------------------------------------------------------------- what the CTC head knows

    def check_head(self, streamer: Any, **wanted: Any) -> None:
        """Refuse what needs a CTC head of a model without one."""
        if wanted["ctc_weight"] and streamer is not None:
            raise ValueError("`ctc_weight` needs no `streamer`; leave one of them out.")
        missing = [name for name, value in wanted.items() if value]
        if missing and self.model.ctc_head is None:
            raise ValueError(
                f"`{missing[0]}` needs a model with a CTC head, which this has not: leave it out, or train "
                "one with `train.py --align_epochs`."
            )

    @torch.no_grad()
    def find_blank(self, samples: np.ndarray, first: int) -> tuple[int, int] | None:
        """Where to cut samples (n,) from `first` on: in the longest stretch without a token."""
        features = self.processor.audio_features(samples)
        features = (features.T if features.dim() == 2 else features)[None]
        (log_probs,) = head_log_probs(
            self.model, {"input_features": features.to(self.device, self.model.dtype)}
        )
        return longest_blank(np.exp(log_probs[:, BLANK]) > 0.5, self.position_samples, samples, first)

    @property
    def position_samples(self) -> int:
        """Samples of the recording in one position of the head."""
        return self.processor.projector_stack * self.processor.audio_geometry.frame_samples

    @functools.cached_property
    def vocabulary(self) -> CtcVocabulary:
        """What the CTC head can spell."""
        return vocabulary_of(self.model, self.processor)

    def postprocess(  # ty: ignore[incompatible-method-override]
        self,
        transcripts: list[tuple[Chunk, str, list[Word]]],
        return_timestamps: bool | str | None = None,
    ) -> dict[str, Any]:
        """The chunks of a recording and what was heard of each -> what a user gets."""
        text, words = transcripts[0][1:]
        for chunk, _, following in transcripts[1:]:
            words = join(words, following, chunk.overlap)
        if len(transcripts) > 1:
            text = " ".join(word.text for word in words)
        if not return_timestamps:
            return {"text": text}
        parts = [[word] for word in words] if return_timestamps == "word" else segments(words)
        return {"text": text, "chunks": timed(parts)}

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Write the model, the processor and this code to a directory."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)


def with_words(text: str) -> tuple[str, list[Word]]:
    """A transcript and its words, without times."""
    return text, [Word(word) for word in text.split()]


def checked_arguments(
    chunk_length_s: float | None = None,
    return_timestamps: str | bool | None = None,
    generate_kwargs: dict[str, Any] | None = None,
    local_files_only: bool = False,  # `pipeline` hands it on after loading with it
    num_workers: int | None = None,
    **others: Any,
) -> tuple[float | None, dict[str, Any]]:
    """Arguments of a call -> the length of chunks, if given, and what goes to `generate`."""
    if unknown := sorted(set(others) - set(vars(GenerationConfig())) - GENERATE_ARGUMENTS - OWN_ARGUMENTS):
        raise TypeError(
            f"The pipeline does not know {', '.join(unknown)}. It takes chunk_length_s, batch_size, "
            "num_workers, generate_kwargs and `GenerationConfig`'s fields."
        )
    if not isinstance(generate_kwargs, dict | None):
        raise TypeError(f"`generate_kwargs` must be a dictionary, got {generate_kwargs!r}.")
    if return_timestamps not in (None, False, True, "word"):
        raise ValueError(
            f'`return_timestamps` must be "word", or True for segments, got {return_timestamps!r}.'
        )
    limits = MIN_CHUNK_SECONDS, MAX_CLIP_SECONDS
    is_number = isinstance(chunk_length_s, int | float)
    if chunk_length_s is not None and not (is_number and limits[0] <= chunk_length_s <= limits[1]):
        raise ValueError(
            "`chunk_length_s` must be seconds from {:g} to {:g}, got {!r}.".format(*limits, chunk_length_s)
        )
    if return_timestamps is not None:
        others["return_timestamps"] = return_timestamps
    others |= generate_kwargs or {}
    threshold = others.get("speech_threshold")
    if threshold is not None and not (isinstance(threshold, int | float) and 0 <= threshold <= 1):
        raise ValueError(f"`speech_threshold` must be a probability from 0 to 1, got {threshold!r}.")
    weight = others.get("ctc_weight", 0)
    if not isinstance(weight, int | float) or not weight >= 0:
        raise ValueError(f"`ctc_weight` must be a number from 0 on, got {weight!r}.")
    return chunk_length_s, others


def holds_many(inputs: Any) -> bool:
    """Whether this is several recordings and not one."""
    one = str | bytes | bytearray | memoryview | os.PathLike | Mapping | np.ndarray | torch.Tensor
    if isinstance(inputs, one) or hasattr(inputs, "read") or hasattr(inputs, "get_all_samples"):
        return False
    return isinstance(inputs, Iterable | Dataset)


@dataclass
class Results:
    """A result for each recording, in order, read as they are taken; batches mix chunks of recordings."""

    pipeline: SlamAsrPipeline
    recordings: Any
    chunk_length_s: float | None
    generate_kwargs: dict[str, Any]
    batch_size: int

    def __post_init__(self):
        if not isinstance(self.batch_size, int) or self.batch_size < 1:
            raise ValueError(f"`batch_size` must be a whole number from 1 on, got {self.batch_size!r}.")

    def __len__(self) -> int:
        return len(self.recordings)  # a generator has none, and says so

    def __iter__(self) -> Iterator[dict[str, str]]:
        recordings, chunk_length_s = self.recordings, self.chunk_length_s
        if not hasattr(recordings, "__iter__"):  # torch's map-style datasets
            recordings = map(recordings.__getitem__, range(len(recordings)))
        chunks = (chunk for each in recordings for chunk in self.pipeline.preprocess(each, chunk_length_s))
        transcripts: list[tuple[Chunk, str, list[Word]]] = []
        while batch := list(islice(chunks, self.batch_size)):
            heard = self.pipeline.forward(batch, **self.generate_kwargs)
            for chunk, (text, words) in zip(batch, heard, strict=True):
                transcripts.append((chunk, text, words))
                if chunk.is_last:
                    yield self.pipeline.postprocess(
                        transcripts, self.generate_kwargs.get("return_timestamps")
                    )
                    transcripts = []


class ChunkStreamer(BaseStreamer):
    """Passes one chunk's tokens on to a user's streamer, which so sees a single text.

    `generate` ends its streamer after every chunk; the pipeline ends the user's after the last one.
    """

    def __init__(self, streamer: BaseStreamer, tokenizer: Any, continues: bool):
        self.streamer, self.special = streamer, torch.tensor(tokenizer.all_special_ids)
        if continues:
            self.streamer.put(torch.tensor(tokenizer(" ", add_special_tokens=False)["input_ids"]))

    def put(self, value: torch.Tensor) -> None:
        self.streamer.put(value.flatten()[~torch.isin(value.flatten(), self.special)])

    def end(self) -> None:
        pass
