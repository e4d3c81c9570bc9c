"""The speech recognition pipeline: recordings of any kind and any length in, text out.

    pipeline("automatic-speech-recognition", model=checkpoint, trust_remote_code=True)

Checkpoints name this class in `custom_pipelines`, so transformers uses it instead of its own, which would
decode a SLAM-ASR model as CTC, need ffmpeg and torchaudio, and lose what lies beyond 30 s.

A recording that is too long for the model is cut into chunks, and their transcripts are joined again:

- A chunk ends in the longest pause of its last three quarters: the model was trained on sentences, and they
  most likely end there. A pause is 0.2 s or more whose mean power, over 0.2 s, is near the background's and
  15 dB below speech: the 5th and the 95th percentile of that mean in the stretch at hand.
- The chunks keep 0.2 s of a long pause on either side; more silence would take the place of speech.
- Without a pause the next chunk repeats the last 2 s, and the words that both transcripts share join them.
"""

import functools
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, product, takewhile
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import GenerationConfig, Pipeline
from transformers.generation.streamers import BaseStreamer

from .audio_io import stream_audio
from .audio_lengths import MAX_CLIP_SECONDS, MIN_CHUNK_SECONDS, SAMPLING_RATE
from .ctc_head import CtcVocabulary, best_by_both, vocabulary_of

CHUNK_SECONDS = 15.0  # for checkpoints that do not tell the length of what they were trained on
# What `generate` takes beside the fields of `GenerationConfig`, and may be given without `generate_kwargs`.
GENERATE_ARGUMENTS = {"generation_config", "streamer", "logits_processor", "stopping_criteria"}
GENERATE_ARGUMENTS |= {"custom_generate", "max_tokens_per_second"}
OWN_ARGUMENTS = {"language", "ctc_weight"}  # given alike, and not for `generate` itself

HOP_SAMPLES = 160  # 10 ms: how finely a cut is placed
WINDOW_HOPS = 20  # 0.2 s: longer than the silence inside a word
SPEECH_PERCENTILE = 95.0
PAUSE_DB = 15.0  # a pause is quieter than speech by this much,
BACKGROUND_DB = 6.0  # and no louder above the background,
SILENCE_DB = 35.0  # unless it is quieter than speech by this much
KEPT_SILENCE_SECONDS = 0.2
OVERLAP_SECONDS = 2.0
MAX_WORDS_PER_SECOND = 5  # fast speech; how far from the joint a common word is looked for


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
        ctc_weight (`float`, *optional*):
            Above 0: of the beams, and of what the CTC head reads, the best by the LLM's log-probability plus
            this times the head's. For a model with a CTC head.
        batch_size (`int`, defaults to 1): Chunks decoded together, of one or of several recordings.
        num_workers (`int`, *optional*):
            Taken as by every pipeline, without effect: reading is little work and stays in this process.

    Returns: `{"text": str}` for each recording.

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
    ) -> Iterator["Chunk"]:
        """A recording -> its chunks, read as they are asked for."""
        if isinstance(recording, int | float):
            raise TypeError("A list is read as recordings, and this one holds numbers: pass a numpy array.")
        given = recording if isinstance(recording, Mapping) else {}
        if given.get("array", given.get("raw")) is not None and given.get("sampling_rate") is None:
            raise ValueError("Samples in a dictionary need their rate: add `sampling_rate`, in Hz.")
        longest = chunk_length_s or self.processor.chunk_seconds or CHUNK_SECONDS
        return split(stream_audio(recording), longest, chunk_length_s or MAX_CLIP_SECONDS)

    def _forward(  # ty: ignore[incompatible-method-override]
        self,
        chunks: list["Chunk"],
        streamer: BaseStreamer | None = None,
        language: str | None = None,
        ctc_weight: float = 0.0,
        **generate_kwargs: Any,
    ) -> list[str]:
        """Chunks -> the transcript of each."""
        if ctc_weight and (self.model.ctc_head is None or streamer is not None):
            what = "a model with a CTC head, which this has not" if streamer is None else "no `streamer`"
            raise ValueError(f"`ctc_weight` needs {what}; leave it out.")
        if streamer is not None:
            streamer = ChunkStreamer(streamer, self.processor.tokenizer, continues=chunks[0].start > 0)
            generate_kwargs["streamer"] = streamer
        inputs = self.processor([chunk.samples for chunk in chunks], language=language)
        inputs = inputs.to(self.device, self.model.dtype)
        if ctc_weight:
            settings = generate_kwargs.get("generation_config") or self.model.generation_config
            beams = generate_kwargs.get("num_beams") or settings.num_beams or 1
            generate_kwargs["num_return_sequences"] = beams
            inputs = self.model.encoded(inputs)
        generated = self.model.generate(**inputs, **generate_kwargs)
        rows = getattr(generated, "sequences", generated)  # with `return_dict_in_generate`
        if ctc_weight:
            texts = self.processor.batch_decode(rows, skip_special_tokens=True)
            return best_by_both(self.model, self.processor, self.vocabulary, inputs, texts, ctc_weight)
        if len(rows) != len(chunks):
            raise ValueError(
                f"{len(chunks)} chunks gave {len(rows)} transcripts; leave `num_return_sequences` at 1."
            )
        return [text.strip() for text in self.processor.batch_decode(rows, skip_special_tokens=True)]

    @functools.cached_property
    def vocabulary(self) -> CtcVocabulary:
        """What the CTC head can spell."""
        return vocabulary_of(self.model, self.processor)

    def postprocess(  # ty: ignore[incompatible-method-override]
        self, transcripts: list[tuple[str, float]]
    ) -> dict[str, str]:
        """The transcripts of a recording's chunks, each with its overlap in seconds -> its text."""
        (text, _), *others = transcripts
        words = text.split()
        for following, overlap in others:
            words = join(words, following.split(), overlap)
        return {"text": " ".join(words) if others else text}

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Write the model, the processor and this code to a directory."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)


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
    if return_timestamps:
        raise ValueError(
            f"`return_timestamps` is {return_timestamps!r}, but this version does not say when a word was "
            "spoken. Leave it out."
        )
    limits = MIN_CHUNK_SECONDS, MAX_CLIP_SECONDS
    is_number = isinstance(chunk_length_s, int | float)
    if chunk_length_s is not None and not (is_number and limits[0] <= chunk_length_s <= limits[1]):
        raise ValueError(
            "`chunk_length_s` must be seconds from {:g} to {:g}, got {!r}.".format(*limits, chunk_length_s)
        )
    others |= generate_kwargs or {}
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
        transcripts: list[tuple[str, float]] = []
        while batch := list(islice(chunks, self.batch_size)):
            texts = self.pipeline.forward(batch, **self.generate_kwargs)
            for chunk, text in zip(batch, texts, strict=True):
                transcripts.append((text, chunk.overlap))
                if chunk.is_last:
                    yield self.pipeline.postprocess(transcripts)
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


# ---------------------------------------------------------------- long recordings


@dataclass(frozen=True)
class Chunk:
    samples: np.ndarray  # (n,) at 16 kHz
    start: float  # seconds from the start of the recording
    overlap: float  # seconds at its start that the chunk before holds too; 0 after a pause
    is_last: bool


def split(blocks: Iterable[np.ndarray], chunk_seconds: float, whole_seconds: float) -> Iterator[Chunk]:
    """Samples at 16 kHz, block by block -> chunks of at most `chunk_seconds`.

    A recording of at most `whole_seconds` stays whole. No more than two chunks and a block are held.
    """
    limit, whole = round(chunk_seconds * SAMPLING_RATE), round(whole_seconds * SAMPLING_RATE)
    repeated = min(round(OVERLAP_SECONDS * SAMPLING_RATE), limit // 4)
    held, start, overlap, is_long = np.zeros(0, np.float32), 0, 0, False
    source = iter(blocks)
    block = next(source, None)
    while block is not None:
        held = np.concatenate([held, block])
        block = next(source, None)
        is_long = is_long or len(held) > whole
        while is_long and len(held) > (limit if block is None else 2 * limit):
            # What is left at the end is no shorter than a quarter of a chunk.
            last = min(limit, len(held) - limit // 4)
            end, following = longest_pause(held[:last], limit // 4) or (last, last - repeated)
            yield Chunk(held[:end], start / SAMPLING_RATE, overlap / SAMPLING_RATE, False)
            held, start, overlap = held[following:], start + following, max(end - following, 0)
    yield Chunk(held, start / SAMPLING_RATE, overlap / SAMPLING_RATE, True)


def longest_pause(samples: np.ndarray, first: int) -> tuple[int, int] | None:
    """Where speech stops and goes on again around the longest pause in samples (n,) from `first` on.

    Both positions leave some of the silence to the speech. `None` if there is no pause.
    """
    hops = len(samples) // HOP_SAMPLES
    frames = samples[: hops * HOP_SAMPLES].reshape(hops, HOP_SAMPLES).astype(np.float64)
    power = np.convolve((frames**2).mean(axis=1), np.ones(WINDOW_HOPS) / WINDOW_HOPS, mode="valid")
    background, speech = np.percentile(power, [100 - SPEECH_PERCENTILE, SPEECH_PERCENTILE])
    level = max(
        speech * 10 ** (-SILENCE_DB / 10),
        min(background * 10 ** (BACKGROUND_DB / 10), speech * 10 ** (-PAUSE_DB / 10)),
    )
    is_pause = power <= level  # [i]: of the 0.2 s from hop i
    is_pause[: first // HOP_SAMPLES] = False
    edges = np.flatnonzero(np.diff(is_pause, prepend=False, append=False)).reshape(-1, 2)
    if speech == 0 or not len(edges):
        return None
    lengths = edges[:, 1] - edges[:, 0]
    begin, end = edges[np.flatnonzero(lengths == lengths.max())[-1]]  # the last of several
    begin, end = begin * HOP_SAMPLES, (end - 1 + WINDOW_HOPS) * HOP_SAMPLES
    kept = min(round(KEPT_SILENCE_SECONDS * SAMPLING_RATE), (end - begin) // 2)
    return int(begin + kept), int(end - kept)


def join(left: list[str], right: list[str], overlap: float) -> list[str]:
    """The words of two neighbouring chunks in one row; `overlap` is what both heard, in seconds.

    The longest run of words that the end of one and the start of the other have in common joins them, of
    several the one that drops the fewest words. It must be as long as what is dropped on either side.
    """
    window = int(np.ceil(overlap * MAX_WORDS_PER_SECOND))
    tail = [bare(word) for word in left[max(len(left) - window, 0) :]]
    head = [bare(word) for word in right[:window]]
    best = (0, 0, 0, 0)  # length, minus the words dropped, and those of the left and of the right
    for i, j in product(range(len(tail)), range(len(head))):
        pairs = zip(tail[i:], head[j:], strict=False)
        length = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        dropped = len(tail) - i - length, j
        if length and length >= max(dropped):
            best = max(best, (length, -sum(dropped), *dropped))
    length, _, from_left, from_right = best
    return left[: len(left) - from_left] + right[from_right + length :]


def bare(word: str) -> str:
    """A word as it is compared: without case and punctuation."""
    return "".join(c for c in word.casefold() if c.isalnum()) or word
