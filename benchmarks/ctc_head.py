"""What the CTC head tells at inference, beside what is known: times of words, confidence, silence, cuts.

    python -m benchmarks.ctc_head times      --model RUN --dataset data/digits-en
    python -m benchmarks.ctc_head spoken     --model RUN --language en [--flite slt rms]
    python -m benchmarks.ctc_head confidence --model RUN --dataset DIR --predictions RESULTS/predictions.jsonl
    python -m benchmarks.ctc_head silence    --model RUN --dataset DIR
    python -m benchmarks.ctc_head cuts       --model RUN --dataset DIR

Prints the rows of the tables in docs/pipeline.md. `times` takes digit strings whose joints are as quiet as
those of digits-en; `spoken` takes sentences of eSpeak NG, which tells when it begins a word, or with `--flite
slt rms` of these voices of the program Flite, which tells the same of its sounds. The LLM does not run: times
are those of the reference, and cuts are compared by what the head reads greedily. DIR is an AudioFolder, of
which the test split is taken. Everything drawn follows from one seed.

Source: calibration error, https://arxiv.org/abs/1706.04599
"""

import argparse
import csv
import ctypes
import functools
import json
import random
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jiwer
import numpy as np
import torch

from modeling_slam import SlamAsrForConditionalGeneration, SlamAsrPipeline, SlamAsrProcessor
from modeling_slam.data import effects, normalize_text
from modeling_slam.demo.speech import PITCHES, RATES, VOICES, sentences_of
from modeling_slam.demo.synthesiser import Synthesiser, Voice
from modeling_slam.model.audio_io import load_audio
from modeling_slam.model.audio_lengths import (
    MAX_CLIP_SECONDS,
    SAMPLING_RATE,
    Chunk,
    PauseFinder,
    Word,
    hop_power,
    join,
    longest_pause,
    split,
)
from modeling_slam.model.ctc_head import doubt, head_log_probs, holds_speech, timed_words
from modeling_slam.model.pipeline_slam import SPEECH_THRESHOLD
from modeling_slam.training.validation import allowed_doubt

Clip = tuple[np.ndarray, str]  # samples at 16 kHz, and what is said
Spoken = tuple[
    np.ndarray, list[tuple[str, float]]
]  # samples, and each word with the second in which it starts
SEED = 0
FLOOR = 10 ** (-76 / 10)  # of the noise between the recordings of a digit string; it lies at -80 dB
BINS = 10  # of confidence
PAUSE_SECONDS = (0.2, 0.8)  # between the clips of a long recording
FILES = 50  # of each kind of sound without speech
SNR_DB = (None, 20.0, 10.0)  # of white noise put over a recording
RECOGNISED = 0.5  # confidence; of words below it the head may not know where they are


class Head:
    """A checkpoint, asked without its LLM."""

    def __init__(self, model: str):
        self.pipeline = SlamAsrPipeline(
            SlamAsrForConditionalGeneration.from_pretrained(model, dtype=torch.float32),
            SlamAsrProcessor.from_pretrained(model),
            device="cpu",
        )

    def log_probs(self, samples: np.ndarray) -> np.ndarray:
        pipeline = self.pipeline
        inputs = pipeline.processor(samples, language="en")  # of the prompt nothing is asked
        return head_log_probs(pipeline.model, inputs.to(pipeline.device, pipeline.model.dtype))[0]

    def words(self, samples: np.ndarray, text: str) -> list[Word]:
        pipeline, chunk = self.pipeline, Chunk(samples, 0.0, 0.0, True)
        return timed_words(
            pipeline.vocabulary, text, self.log_probs(samples), chunk, pipeline.position_samples
        )

    def read(self, samples: np.ndarray) -> str:
        best = self.log_probs(samples).argmax(axis=1)
        changes = best[np.diff(best, prepend=-1) != 0]
        return self.pipeline.vocabulary.decode(changes[changes > 0].tolist())


def clips_of(directory: str, split: str = "test") -> list[Clip]:
    folder = Path(directory) / split
    with (folder / "metadata.csv").open(encoding="utf-8", newline="") as file:
        return [(load_audio(folder / row["file_name"]), row["text"]) for row in csv.DictReader(file)]


def long_recording(
    clips: Sequence[Clip], minutes: float, generator: np.random.Generator
) -> tuple[np.ndarray, list[int]]:
    """Clips with pauses until they fill the minutes, and their places; each once before any comes again."""
    parts, order, samples = [], [], 0
    while samples <= minutes * 60 * SAMPLING_RATE:
        for place in generator.permutation(len(clips)).tolist():
            if samples > minutes * 60 * SAMPLING_RATE:
                break
            pause = np.zeros(int(generator.uniform(*PAUSE_SECONDS) * SAMPLING_RATE), np.float32)
            parts += [clips[place][0], pause]
            samples += len(clips[place][0]) + len(pause)
            order.append(place)
    return np.concatenate(parts), order


def noisy(samples: np.ndarray, snr_db: float | None, generator: np.random.Generator) -> np.ndarray:
    if snr_db is None:
        return samples
    noise = effects.noise("white", len(samples), generator)
    return effects.add_noise(samples, noise, snr_db, effects.level(samples))


# ---------------------------------------------------------------- times


def single_words(clips: list[Clip]) -> list[tuple[str, np.ndarray]]:
    """The recordings of which clips were joined, cut where nothing but the joints' own noise is."""
    found = []
    for samples, text in clips:
        loud = hop_power(samples) > FLOOR
        pieces = []
        while loud.any():  # from the start on; gaps shorter than 30 ms are within a word
            begin = int(loud.argmax())
            quiet = np.convolve(~loud[begin:], np.ones(3), mode="valid") == 3
            end = begin + int(quiet.argmax()) if quiet.any() else len(loud)
            pieces.append(samples[begin * 160 : end * 160])
            loud[:end] = False
        if len(pieces) == len(text.split()):
            found += zip(text.split(), pieces, strict=True)
    return found


def joined_words(clips: list[Clip], count: int) -> Iterator[Spoken]:
    """Three to six recorded words each, 0.05 to 0.4 s apart."""
    generator, words = np.random.default_rng(SEED), single_words(clips)
    for _ in range(count):
        parts, starts, now = [], [], 0
        for place in generator.integers(len(words), size=generator.integers(3, 7)):
            word, samples = words[place]
            gap = 1e-4 * generator.standard_normal(int(generator.uniform(0.05, 0.4) * SAMPLING_RATE))
            starts.append((word, (now + len(gap)) / SAMPLING_RATE))
            parts += [gap, samples]
            now += len(gap) + len(samples)
        yield np.concatenate([*parts, parts[0]]).astype(np.float32), starts


class Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = (
        *(
            (name, ctypes.c_int)
            for name in ("type", "unique", "position", "length", "milliseconds", "sample")
        ),
        ("user", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


class TellingSynthesiser(Synthesiser):
    """Notes when each word starts."""

    def __init__(self):
        self.starts: list[float] = []
        super().__init__()

    def _collect(self, samples, count: int, _events) -> int:
        listed, place = ctypes.cast(_events, ctypes.POINTER(Event)), 0
        while _events and listed[place].type:
            if listed[place].type == 1:
                self.starts.append(listed[place].milliseconds / 1000)
            place += 1
        return super()._collect(samples, count, _events)


def spoken_sentences(language: str, count: int) -> Iterator[Spoken]:
    """Test sentences of the demo by its test voices, in light noise."""
    speech, rng = TellingSynthesiser(), random.Random(SEED)
    generator = np.random.default_rng(SEED)
    for sentence in sentences_of(language, seed=42)["test"][:count]:
        voice = Voice(
            language, rng.choice(VOICES["test"].split()), rng.randint(*RATES), rng.randint(*PITCHES)
        )
        speech.starts.clear()
        samples = noisy(speech.speak(sentence, voice), 35.0, generator)
        words = normalize_text(sentence, language).split()
        if len(words) == len(speech.starts):
            yield samples, list(zip(words, speech.starts, strict=True))


def flite_sentences(voices: Sequence[str], count: int) -> Iterator[Spoken]:
    """Test sentences of the demo by voices of Flite; a word has as many sounds as when it is said alone."""

    @functools.cache
    def sounds(word: str, voice: str) -> int:
        return sum(sound != "pau" for sound, _ in flite(word, voice, "none"))

    for place, sentence in enumerate(sentences_of("en", seed=42)["test"][:count]):
        voice, words = voices[place % len(voices)], normalize_text(sentence, "en").split()
        with tempfile.TemporaryDirectory() as scratch:
            said = flite(" ".join(words), voice, f"{scratch}/said.wav")
            samples = load_audio(f"{scratch}/said.wav")
        ends = [0.0, *(end for _, end in said)]
        begins = [begin for begin, (sound, _) in zip(ends, said, strict=False) if sound != "pau"]
        firsts = np.cumsum([0, *(sounds(word, voice) for word in words)])
        if firsts[-1] == len(begins):
            yield samples, [(word, begins[first]) for word, first in zip(words, firsts, strict=False)]


def flite(text: str, voice: str, out: str) -> list[tuple[str, float]]:
    """Each sound of a text, and the second in which it ends."""
    command = ["flite", "-voice", voice, "-t", text, "-o", out, "-psdur"]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return [(sound, float(end)) for sound, end in (one.split(":") for one in printed.split())]


def times(head: Head, recordings: Sequence[Spoken]) -> None:
    """Errors of words' starts, beside those of words spread evenly from the onset of speech to its end.

    Of all words, and of those that the head recognises.
    """
    for snr_db in SNR_DB:
        generator, ours, even, sure, backwards = np.random.default_rng(SEED), [], [], [], 0
        for samples, known in recordings:
            words = head.words(noisy(samples, snr_db, generator), " ".join(word for word, _ in known))
            starts = np.array([start for _, start in known])
            loud = np.flatnonzero(hop_power(samples) > 1e-3 * hop_power(samples).max())
            ours += list(np.array([word.start for word in words]) - starts)
            even += list(np.linspace(*loud[[0, -1]] / 100, len(words), endpoint=False) - starts)
            sure += [word.confidence >= RECOGNISED for word in words]
            seconds = [second for word in words for second in (word.start, word.end)]
            backwards += seconds != sorted(seconds)
        errors, others, recognised = np.abs(ours), np.abs(even), np.abs(ours)[np.array(sure)]
        print(
            f"| {'none' if snr_db is None else f'{snr_db:g} dB'} | {len(errors)} | {errors.mean():.3f} s | "
            f"{np.median(errors):.3f} s | {np.mean(errors <= 0.1):.1%} | {others.mean():.3f} s | "
            f"{np.mean(others <= 0.1):.1%} | {np.mean(sure):.0%} | {recognised.mean():.3f} s | "
            f"{np.mean(recognised <= 0.1):.1%} | {backwards} |",
            flush=True,
        )


# ---------------------------------------------------------------- confidence


def confidence(head: Head, clips: dict[str, np.ndarray], predictions: Path) -> None:
    """Mean confidence and share of correct words of an evaluation, by bin, and the calibration error."""
    sure, right = [], []
    for line in predictions.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if not row["prediction"]:
            continue
        sure += [word.confidence for word in head.words(clips[row["id"]], row["prediction"])]
        correct = np.zeros(len(row["prediction"].split()), bool)
        for part in jiwer.process_words(row["reference"], row["prediction"]).alignments[0]:
            if part.type == "equal":
                correct[part.hyp_start_idx : part.hyp_end_idx] = True
        right += correct.tolist()
    chances, correct = np.array(sure), np.array(right)
    bins = np.minimum((chances * BINS).astype(int), BINS - 1)
    gaps = [
        abs(chances[bins == one].sum() - correct[bins == one].sum()) / len(bins) for one in np.unique(bins)
    ]
    better = (chances[correct][:, None] > chances[~correct]).mean()
    ties = (chances[correct][:, None] == chances[~correct]).mean()
    print(
        f"| {len(correct)} | {correct.mean():.1%} | {chances.mean():.3f} | {sum(gaps):.3f} | "
        f"{better + ties / 2:.3f} |"
    )


# ---------------------------------------------------------------- silence


def without_speech(clips: list[np.ndarray]) -> dict[str, list[np.ndarray]]:
    """Files of 2 to 10 s of each kind."""
    generator = np.random.default_rng(SEED)

    def draw(make: Callable[[int], np.ndarray], loudness: tuple[float, float]) -> list[np.ndarray]:
        lengths = (generator.uniform(2, 10, size=FILES) * SAMPLING_RATE).astype(int)
        levels = 10 ** (generator.uniform(*loudness, size=FILES) / 20)
        return [effects.at_level(make(int(n)), level) for n, level in zip(lengths, levels, strict=True)]

    def silence(samples: int) -> np.ndarray:
        return generator.integers(2) * effects.noise("white", samples, generator)

    def tones(samples: int) -> np.ndarray:
        """Chords of a scale with harmonics that fade, as of a piano."""
        parts = []
        while sum(map(len, parts)) < samples:
            time = np.arange(int(generator.uniform(0.15, 0.8) * SAMPLING_RATE)) / SAMPLING_RATE
            notes = 262 * 2 ** (generator.choice([-5, 0, 2, 4, 5, 7, 9, 12], size=(3, 1, 1)) / 12)
            orders = np.arange(1, generator.integers(3, 9))[:, None]
            chord = (
                np.sin(2 * np.pi * notes * orders * time) / orders * np.exp(-generator.uniform(1, 8) * time)
            )
            parts.append(chord.sum(axis=(0, 1)))
        return np.concatenate(parts)[:samples]

    def hiss(samples: int) -> np.ndarray:
        return effects.noise(generator.choice([*effects.COLOURS]), samples, generator)

    def far_babble(samples: int) -> np.ndarray:
        """Twelve speakers in a room, its echo louder than they are."""
        voices = [clips[place] for place in generator.integers(len(clips), size=12)]
        return effects.echo(effects.babble(voices, samples, generator), effects.room(0.6, -10.0, generator))

    return {
        "silence": draw(silence, (-100, -70)),
        "tones": draw(tones, (-30, -6)),
        "hiss": draw(hiss, (-60, -20)),
        "far babble": draw(far_babble, (-50, -30)),
    }


def silence(head: Head, clips: list[Clip], others: Callable[[], list[Clip]]) -> None:
    """Files of which the LLM is asked, so that it can invent something, and words that it is not asked of.

    A checkpoint that does not say how much doubt is allowed gets it from `others`, as `train.py` from the
    validation clips.
    """
    allowed = head.pipeline.processor.max_doubt
    if allowed is None:
        allowed = allowed_doubt(doubt(head.log_probs(samples)) for samples, _ in others())
    print(f"| doubt allowed | {allowed:.2f} |")

    def heard(samples: np.ndarray) -> bool:
        return holds_speech(head.log_probs(samples), SPEECH_THRESHOLD, allowed)

    for kind, files in without_speech([samples for samples, _ in clips]).items():
        print(f"| {kind} | {sum(map(heard, files))} of {FILES} |", flush=True)
    words = [len(text.split()) for _, text in clips]
    lost = [not heard(samples) for samples, _ in clips]
    print(f"| speech | {np.dot(words, lost)} of {sum(words)} words lost, in {sum(lost)} clips |")


# ---------------------------------------------------------------- cuts


def cuts(head: Head, clips: list[Clip], language: str, minutes: float) -> None:
    """WER of the head's own reading of a recording of clips with pauses, cut at pauses and at blanks."""
    generator = np.random.default_rng(SEED)
    quiet, order = long_recording(clips, minutes, generator)
    references = [normalize_text(clips[place][1], language) for place in order]
    length, ways = head.pipeline.processor.chunk_seconds, (longest_pause, head.pipeline.find_blank)
    for snr_db in SNR_DB:
        recording = noisy(quiet, snr_db, generator)
        cells = [wer_of(head, recording, find, length, " ".join(references)) for find in ways]
        print(f"| {'none' if snr_db is None else f'{snr_db:g} dB'} | {' | '.join(cells)} |", flush=True)


def wer_of(head: Head, recording: np.ndarray, find: PauseFinder, length: float, reference: str) -> str:
    words: list[Word] = []
    chunks = list(split([recording], length, MAX_CLIP_SECONDS, find))
    for chunk in chunks:
        words = join(words, [Word(word) for word in head.read(chunk.samples).split()], chunk.overlap)
    forced = sum(chunk.overlap > 0 for chunk in chunks)
    wer = jiwer.wer(reference, " ".join(word.text for word in words))
    return f"{wer:.1%} ({len(chunks)} chunks, {forced} cuts without a pause)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["times", "spoken", "confidence", "silence", "cuts"])
    parser.add_argument("--model", required=True, help="A checkpoint with a CTC head.")
    parser.add_argument("--dataset", help="An AudioFolder with a test split.")
    parser.add_argument("--language", default="en", help="That of the speech.")
    parser.add_argument("--flite", nargs="+", help="Voices of Flite that speak, in English; else eSpeak NG.")
    parser.add_argument("--predictions", type=Path, help="Those of `eval.py` on the dataset.")
    parser.add_argument("--count", type=int, default=100, help="Recordings whose words are timed.")
    parser.add_argument("--minutes", type=float, default=5.0, help="Length of the recording that is cut.")
    asked = parser.parse_args()
    head = Head(asked.model)
    if asked.part == "spoken":
        spoken = (
            flite_sentences(asked.flite, asked.count)
            if asked.flite
            else spoken_sentences(asked.language, asked.count)
        )
        times(head, list(spoken))
        return
    if asked.part == "confidence":
        rows = [json.loads(line)["id"] for line in asked.predictions.read_text(encoding="utf-8").splitlines()]
        confidence(head, {one: load_audio(f"{asked.dataset}/test/{one}") for one in rows}, asked.predictions)
        return
    clips = clips_of(asked.dataset)
    if asked.part == "times":
        times(head, list(joined_words(clips, asked.count)))
    elif asked.part == "silence":
        silence(head, clips, lambda: clips_of(asked.dataset, "validation"))
    else:
        cuts(head, clips, asked.language, asked.minutes)


if __name__ == "__main__":
    main()
