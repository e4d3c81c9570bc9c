"""The speech recognition pipeline: any audio of any length in, text and word times out.

    pipeline("automatic-speech-recognition", model=checkpoint, trust_remote_code=True)

Checkpoints name this class in `custom_pipelines`, so transformers uses it instead of its own, which would
decode a SLAM-ASR model as CTC, need ffmpeg and torchaudio, and lose what lies beyond 30 s. The parts: reading
in `audio_io.py`, cutting and joining in `long_audio.py`, word times in `word_timestamps.py`.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset
from transformers import GenerationConfig
from transformers.generation.streamers import BaseStreamer
from transformers.pipelines.base import ChunkPipeline

from .audio_io import stream_audio
from .audio_lengths import MAX_CLIP_SECONDS, MIN_CHUNK_SECONDS
from .long_audio import Chunk, Word, join, split
from .word_timestamps import align_words

CHUNK_SECONDS = 15.0  # for checkpoints that do not tell the length of what they were trained on
# What `generate` takes beside the fields of `GenerationConfig`, and may be given without `generate_kwargs`.
GENERATE_ARGUMENTS = {
    "generation_config",
    "streamer",
    "logits_processor",
    "stopping_criteria",
    "max_tokens_per_second",
}


class SlamAsrPipeline(ChunkPipeline):
    r"""Transcribes recordings.

    Args:
        inputs:
            A recording, or many: a list gives a list of results, a generator, a `datasets` column or a
            `KeyDataset` gives an iterator that reads as it goes. A recording is a path, an http(s) address,
            the bytes of a file, float samples at 16 kHz, or a dictionary: `{"array", "sampling_rate"}` (or
            `"raw"`), `{"bytes"}` or `{"path"}`. wav, flac, mp3, ogg and opus are read without ffmpeg.
        chunk_length_s (`float`, *optional*):
            Longest piece that the model hears at once, in seconds, from 2 to 30. By default recordings of
            up to 30 s are heard whole, and longer ones in pieces as long as the clips the model was trained
            on (its processor's `chunk_seconds`, 15 s if it has none): what is longer it hears badly.
        return_timestamps (`"word"`, *optional*): Adds `"chunks"`, each word with its start and end.
        generate_kwargs (`dict`, *optional*):
            For `generate`: `num_beams`, `max_new_tokens` (of one chunk), ... With a `streamer` the text of
            one recording comes as it is decoded; this needs `num_beams=1`. Where chunks overlap, a streamer
            sees their common words twice.
        batch_size (`int`, defaults to 1): Chunks decoded together, of one or of several recordings.

    Returns:
        `{"text": str}` for each recording, with `return_timestamps="word"` also
        `"chunks": [{"text": str, "timestamp": (start, end)}, ...]`, in seconds of the recording.

    Raises:
        AudioError: a recording cannot be read, is empty or holds NaN. ValueError or TypeError: an argument
        is not understood, or arguments do not go together.
    """

    model: Any
    processor: Any
    tokenizer: Any

    _load_processor = True
    _load_tokenizer = False
    _load_feature_extractor = False
    _load_image_processor = False
    _load_video_processor = False
    _pipeline_calls_generate = True

    def __init__(self, model: Any, processor: Any = None, **kwargs: Any):
        if processor is None:
            raise ValueError(
                "The pipeline needs the checkpoint's processor: pass `processor=SlamAsrProcessor...`, or the "
                "checkpoint's name instead of a loaded model."
            )
        self.type = "seq2seq"  # what transformers' own pipeline would call it
        super().__init__(model, processor=processor, **kwargs)
        self.model.eval()

    # ---------------------------------------------------------------- arguments

    def _sanitize_parameters(
        self,
        chunk_length_s: float | None = None,
        return_timestamps: str | bool | None = None,
        generate_kwargs: dict[str, Any] | None = None,
        **others: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Arguments of a call -> those of `preprocess`, `_forward` and `postprocess`; checks them."""
        unknown = sorted(set(others) - set(vars(GenerationConfig())) - GENERATE_ARGUMENTS)
        if unknown:
            raise TypeError(
                f"The pipeline does not know {', '.join(unknown)}. It takes chunk_length_s, "
                "return_timestamps, batch_size, num_workers, generate_kwargs and `GenerationConfig`'s fields."
            )
        if generate_kwargs is not None and not isinstance(generate_kwargs, dict):
            raise TypeError(
                f"`generate_kwargs` must be a dictionary such as {{'num_beams': 2}}, got {generate_kwargs!r}."
            )
        preprocess, forward, postprocess = {}, {}, {}
        if chunk_length_s is not None:
            is_number = isinstance(chunk_length_s, int | float) and not isinstance(chunk_length_s, bool)
            if not is_number or not MIN_CHUNK_SECONDS <= chunk_length_s <= MAX_CLIP_SECONDS:
                raise ValueError(
                    f"`chunk_length_s` must be seconds from {MIN_CHUNK_SECONDS:g} to {MAX_CLIP_SECONDS:g}, "
                    f"got {chunk_length_s!r}."
                )
            preprocess["chunk_length_s"] = float(chunk_length_s)
        if return_timestamps is not None:
            if return_timestamps not in (False, "word"):
                raise ValueError(
                    f'`return_timestamps` must be "word" or False, got {return_timestamps!r}: the model has '
                    "no time tokens to mark sentences with."
                )
            if return_timestamps and self.model.config.projector_queries is not None:
                raise ValueError(
                    "Word times need audio tokens in the order of time, and this model's projector "
                    f"({self.model.config.projector_type}) mixes them. Leave out `return_timestamps`."
                )
            forward["return_timestamps"] = postprocess["return_timestamps"] = return_timestamps
        return preprocess, {**forward, **others, **(generate_kwargs or {})}, postprocess

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """Transcribe one recording or many; the class says what they may be and what comes back."""
        streamer = {**self._forward_params, **self._sanitize_parameters_of(kwargs)[1]}.get("streamer")
        is_many = holds_many(inputs)
        if is_many and isinstance(inputs, Sized) and len(inputs) == 0:
            return []
        if is_many and not isinstance(inputs, list | Dataset):
            inputs = list(inputs) if isinstance(inputs, tuple) else Recordings(inputs)
        if streamer is None:
            return super().__call__(inputs, **kwargs)
        try:
            self._check_streaming(is_many, kwargs)
            return super().__call__(inputs, **kwargs)
        finally:  # also after an error: another thread may wait for the end
            streamer.end()

    def _sanitize_parameters_of(self, kwargs: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        return self._sanitize_parameters(
            **{name: value for name, value in kwargs.items() if name not in ("batch_size", "num_workers")}
        )

    def _check_streaming(self, is_many: bool, kwargs: dict[str, Any]) -> None:
        batch_size = kwargs.get("batch_size") or self._batch_size or 1
        if is_many or batch_size > 1:
            raise ValueError(
                "A `streamer` follows one recording: give a single one, with `batch_size=1`, or leave it out."
            )
        forward = {**self._forward_params, **self._sanitize_parameters_of(kwargs)[1]}
        forward.pop("return_timestamps", None)
        settings = self._get_set_generation_params(self._prepare_generate_kwargs(forward))
        if (beams := settings.get("num_beams") or 1) > 1:
            raise ValueError(
                f"A `streamer` needs `num_beams=1`, got {beams}: beams change their past as they "
                "decode. Set `num_beams` to 1 beside it."
            )

    # ---------------------------------------------------------------- the work

    def get_iterator(
        self, inputs, num_workers: int, batch_size: int, preprocess_params, forward_params, postprocess_params
    ) -> "Results":
        return Results(
            self, inputs, num_workers, batch_size, (preprocess_params, forward_params, postprocess_params)
        )

    def preprocess(  # ty: ignore[incompatible-method-override] (a recording makes several inputs)
        self, recording: Any, chunk_length_s: float | None = None
    ) -> Iterator[Chunk]:
        source, rate = samples_or_file(recording)
        blocks = stream_audio(source, rate)
        longest = chunk_length_s or self.processor.chunk_seconds or CHUNK_SECONDS
        yield from split(blocks, longest, chunk_length_s or MAX_CLIP_SECONDS)

    def _forward(  # ty: ignore[incompatible-method-override]
        self, chunks: list[Chunk], return_timestamps: str | bool = False, **generate_kwargs: Any
    ) -> list["Transcript"]:
        settings = self._prepare_generate_kwargs(generate_kwargs)
        if settings.get("streamer") is not None:
            settings["streamer"] = ChunkStreamer(settings["streamer"], self.tokenizer, chunks[0].start > 0)
        inputs = self.processor([chunk.samples for chunk in chunks])
        generated = self.model.generate(**inputs.to(self.model.device, self.model.dtype), **settings)
        rows = getattr(generated, "sequences", generated)  # with `return_dict_in_generate`
        if len(rows) != len(chunks):
            raise ValueError(
                f"{len(chunks)} chunks gave {len(rows)} transcripts; leave `num_return_sequences` at 1."
            )
        transcripts = []
        for chunk, row in zip(chunks, rows.tolist(), strict=True):
            ids = [token for token in row if token not in self.tokenizer.all_special_ids]
            text = self.tokenizer.decode(ids).strip()
            if return_timestamps:
                words = align_words(self.model, self.processor, chunk, ids)
            else:
                words = [Word(word) for word in text.split()]
            transcripts.append(Transcript(text, words, chunk.overlap, chunk.is_last))
        return transcripts

    def postprocess(  # ty: ignore[incompatible-method-override]
        self, transcripts: list["Transcript"], return_timestamps: str | bool = False
    ) -> dict[str, Any]:
        first, *others = transcripts
        text, words = first.text, first.words
        for transcript in others:
            words = join(words, transcript.words, transcript.overlap)
        if others:
            text = " ".join(word.text for word in words)
        if not return_timestamps:
            return {"text": text}
        chunks = [{"text": word.text, "timestamp": (word.start, word.end)} for word in words]
        return {"text": text, "chunks": chunks}

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Write the model, the processor and this code to a directory."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)


@dataclass(frozen=True)
class Transcript:
    """What one chunk says."""

    text: str
    words: list[Word]
    overlap: float
    is_last: bool


class Recordings(Dataset):
    """Any iterable, as what transformers' pipelines read lazily."""

    def __init__(self, source: Iterable[Any]):
        self.source = source

    def __iter__(self) -> Iterator[Any]:
        return iter(self.source)

    def __len__(self) -> int:
        return len(self.source)  # ty: ignore[invalid-argument-type] (a generator has none, and says so)


class ChunkDataset(IterableDataset):
    """The chunks of all recordings, one after the other, read as they are asked for."""

    def __init__(
        self, recordings: Any, preprocess: Callable[..., Iterator[Chunk]], arguments: dict[str, Any]
    ):
        self.recordings, self.preprocess, self.arguments = recordings, preprocess, arguments

    def __iter__(self) -> Iterator[Chunk]:
        recordings = self.recordings
        if not hasattr(recordings, "__iter__"):  # torch's map-style datasets
            recordings = map(recordings.__getitem__, range(len(recordings)))
        for recording in recordings:
            yield from self.preprocess(recording, **self.arguments)


class Results:
    """A result for each recording, in order; chunks are decoded in batches across recordings."""

    def __init__(
        self, pipeline: SlamAsrPipeline, recordings: Any, num_workers: int, batch_size: int, arguments
    ):
        self.pipeline, self.recordings = pipeline, recordings
        preprocess, self.forward_arguments, self.postprocess_arguments = arguments
        self.loader = DataLoader(
            ChunkDataset(recordings, pipeline.preprocess, preprocess),
            batch_size=batch_size,
            num_workers=min(num_workers, 1),  # more would each read everything
            collate_fn=list,
        )

    def __len__(self) -> int:
        return len(self.recordings)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        transcripts: list[Transcript] = []
        for chunks in self.loader:
            for transcript in self.pipeline.forward(chunks, **self.forward_arguments):
                transcripts.append(transcript)
                if transcript.is_last:
                    yield self.pipeline.postprocess(transcripts, **self.postprocess_arguments)
                    transcripts = []


class ChunkStreamer(BaseStreamer):
    """Passes one chunk's tokens on to a user's streamer, which so sees a single text.

    `generate` ends its streamer after every chunk; the pipeline ends the user's after the last one.
    """

    def __init__(self, streamer: BaseStreamer, tokenizer: Any, continues: bool):
        self.streamer, self.tokenizer = streamer, tokenizer
        if continues:
            self.streamer.put(torch.tensor(tokenizer(" ", add_special_tokens=False)["input_ids"]))

    def put(self, value: torch.Tensor) -> None:
        special = torch.tensor(self.tokenizer.all_special_ids)
        self.streamer.put(value.flatten()[~torch.isin(value.flatten(), special)])

    def end(self) -> None:
        pass


def holds_many(inputs: Any) -> bool:
    """Whether this is several recordings and not one."""
    one = str | bytes | bytearray | memoryview | os.PathLike | Mapping | np.ndarray | torch.Tensor
    if isinstance(inputs, one) or hasattr(inputs, "read") or hasattr(inputs, "get_all_samples"):
        return False
    return isinstance(inputs, Iterable | Dataset)


def samples_or_file(recording: Any) -> tuple[Any, int | None]:
    """What a user may hold -> what `audio_io` reads, and the rate of samples."""
    if isinstance(recording, int | float):
        raise TypeError(
            "A list is read as many recordings, and this one holds numbers: pass samples as a numpy array."
        )
    if hasattr(recording, "get_all_samples"):  # torchcodec's decoder, as `datasets` gives it
        decoded = recording.get_all_samples()
        return decoded.data, decoded.sample_rate
    if not isinstance(recording, Mapping):
        return recording, None
    samples = recording.get("raw") if recording.get("array") is None else recording["array"]
    if samples is not None:
        if recording.get("sampling_rate") is None:
            raise ValueError("Samples in a dictionary need their rate: add `sampling_rate`, in Hz.")
        rate = recording["sampling_rate"]
        if not isinstance(rate, int | float | np.number) or rate <= 0:
            raise ValueError(f"`sampling_rate` must be a positive number in Hz, got {rate!r}.")
        return samples, int(rate)
    if recording.get("bytes") is None and recording.get("path") is None:
        raise ValueError(
            "A recording as a dictionary needs `array` or `raw`, with `sampling_rate`, `bytes`, or `path`. "
            f"This one has {sorted(recording)}; of a dataset's rows pass the audio column."
        )
    return dict(recording), None
