"""The demo's speech: synthesised clips in English, Dutch and Danish as a `datasets` dataset of parquet files.

Training, validation and test share neither voice nor sentence. Every clip has its own rate, pitch, loudness
and light noise. It is a miniature world to run the method in; recognition rates on it say nothing about
real Dutch or Danish. Voices are in `VOICES`, sizes in `CLIPS`; after a change run `make demo-assets`.
"""

import io
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from datasets import Audio, Dataset
from tqdm import tqdm

from modeling_slam.demo.sentences import GRAMMARS, split_sentences
from modeling_slam.demo.synthesiser import Synthesiser, Voice
from modeling_slam.model.audio_lengths import SAMPLING_RATE

CLIPS = {"train": 320, "validation": 32, "test": 80}  # of each language
PRETRAINING_CLIPS = 2400  # of each language; heard by the encoder only, not stored
TRAINING_VOICES = "m1 m2 m4 m6 f1 klatt klatt3 Mike steph max adam belinda paul grandma travis david"
VOICES = {
    "train": TRAINING_VOICES,
    "validation": "m5 klatt2 linda",
    "test": "m3 m7 f4 klatt4",
    # Voices of training again, and others that neither validation nor test has.
    "pretraining": f"{TRAINING_VOICES} edward john michel miguel pablo quincy rob robert shelby zac gustave "
    "Reed caleb benjamin iven Lee Alex Michael Denis ed antonio Jacky grandpa Annie aunty announcer norbert "
    "marcelo",
}
RATES = (105, 150)  # words per minute
PITCHES = (30, 70)  # of eSpeak's 0 to 99
LOUDNESS_DB = (-30.0, -18.0)  # root mean square below full scale
NOISE_DB = (-45.0, -25.0)  # white noise below the speech
OPUS_COMPRESSION = 0.96  # of libsndfile's 0 to 1: about 16 kbit/s


@dataclass(frozen=True)
class Utterance:
    """`text` as written; `samples` (n,) float32 at 16 kHz."""

    id: str
    text: str
    speaker: str
    language: str
    samples: np.ndarray


def sentences_of(language: str, seed: int) -> dict[str, list[str]]:
    """Sentences of the stored splits and of `pretraining`, all different."""
    return split_sentences(language, {**CLIPS, "pretraining": PRETRAINING_CLIPS}, seed)


def utterances(speech: Synthesiser, language: str, split: str, seed: int) -> Iterator[Utterance]:
    """The clips of one split (or of `pretraining`)."""
    name = f"{language}-{split}-{seed}"
    draw, noise = random.Random(name), np.random.default_rng(list(name.encode()))
    voices = VOICES[split].split()
    speech.reseed()
    sentences = sentences_of(language, seed)[split]
    for number, text in enumerate(tqdm(sentences, desc=f"{language} {split}", unit="clip")):
        voice = Voice(language, voices[number % len(voices)], draw.randint(*RATES), draw.randint(*PITCHES))
        samples = with_noise(speech.speak(text, voice), noise)
        yield Utterance(f"{language}-{split}-{number:04d}", text, voice.variant, language, samples)


def with_noise(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The clip at a random loudness with white noise below it."""
    level = 10 ** (rng.uniform(*LOUDNESS_DB) / 20)
    speech = samples * (level / np.sqrt(np.mean(samples**2)))
    noise = rng.standard_normal(len(samples)) * level * 10 ** (rng.uniform(*NOISE_DB) / 20)
    return np.clip(speech + noise, -1, 1).astype(np.float32)


def write_speech(directory: Path, seed: int) -> None:
    """`directory/<language>/<split>.parquet`, audio as Ogg Opus."""
    speech = Synthesiser()
    for language in GRAMMARS:
        (directory / language).mkdir(parents=True, exist_ok=True)
        for split in CLIPS:
            rows = [
                {
                    "id": clip.id,
                    "audio": {"bytes": opus(clip.samples), "path": f"{clip.id}.opus"},
                    "text": clip.text,
                    "speaker": clip.speaker,
                    "language": clip.language,
                    "duration": round(len(clip.samples) / SAMPLING_RATE, 3),
                }
                for clip in utterances(speech, language, split, seed)
            ]
            table = Dataset.from_list(rows).cast_column(
                "audio", Audio(sampling_rate=SAMPLING_RATE, decode=False)
            )
            table.to_parquet(directory / language / f"{split}.parquet")


def opus(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(
        file, samples, SAMPLING_RATE, format="OGG", subtype="OPUS", compression_level=OPUS_COMPRESSION
    )
    return file.getvalue()
