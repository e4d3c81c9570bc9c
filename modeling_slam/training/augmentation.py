"""Augmentation: training clips are changed anew in every epoch, in four groups that are on or off.

    --augment speed noise edges masking

What happens to a clip follows from the seed, the epoch, the clip's row and the group alone: a resumed run and
another number of data workers or processes give the same bits, and a group more or less changes no draw of
the others. Validation and test clips stay as they are. To add a group: its name in `AUGMENTATIONS`, its draws
in `AugmentingCollator`. Hotwords for the prompt are drawn alike (`data/hotwords.py`), where the instruction
has a place for them.
"""

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from modeling_slam.common.numbers import check_numbers
from modeling_slam.data.collator import DRAW, FOLD, SpeechCollator
from modeling_slam.data.effects import (
    NOISES,
    add_noise,
    babble,
    echo,
    hidden_spans,
    level,
    noise,
    room,
    spoken,
)
from modeling_slam.data.hotwords import HotwordDraws
from modeling_slam.model.audio_io import load_audio
from modeling_slam.model.audio_lengths import MAX_CLIP_SECONDS, SAMPLING_RATE
from modeling_slam.model.processing_slam import HOTWORDS_SLOT, MAX_HOTWORDS
from modeling_slam.training.arguments import RunArguments

KEPT = ("id", "language", FOLD, DRAW)  # of a row that is heard otherwise, beside what is heard
WAVEFORM_AUGMENTATIONS = ("speed", "noise", "edges")  # they need the encoder anew for every clip and epoch
AUGMENTATIONS = (*WAVEFORM_AUGMENTATIONS, "masking")
# Shares are of the clips, ranges are drawn from evenly.
SPEED_SHARE, TAPE_SHARE = 0.67, 0.5  # TAPE_SHARE of them change tempo and pitch by one factor
TEMPO = PITCH = (0.9, 1.1)  # times that of the clip
NOISE_SHARE, BABBLE_SHARE = 0.5, 0.3  # BABBLE_SHARE of them with other training clips as the noise
NOISE_SNR_DB, BABBLE_SNR_DB = (5.0, 30.0), (10.0, 30.0)
BABBLE_VOICES = (3, 6)
ECHO_SHARE, ECHO_SECONDS, ECHO_DIRECT_DB = 0.3, (0.1, 0.7), (0.0, 12.0)
EMPTY_SHARE, EMPTY_SECONDS, EMPTY_DB = 0.03, (1.0, 8.0), (-70.0, -20.0)  # of full scale
JOINED_SHARE, JOINED_GAP_SECONDS = 0.15, (0.0, 0.5)
SURROUNDED_SHARE, SURROUNDED_SECONDS, SURROUNDED_SNR_DB = 0.3, (0.0, 1.0), (20.0, 50.0)
SPANS_PER_SECOND, SPAN_SECONDS = 1.0, 0.2  # a tenth of the clip in the mean
BANDS, BAND_SHARE = 2, 0.15  # of log-mel, each up to this share of it


@dataclass
class AugmentationArguments:
    """Augmentation of the training clips"""

    augment: list[str] = field(
        default_factory=lambda: ["none"],
        metadata={
            "help": "What is drawn for each clip and epoch anew.",
            "choices": ("none", *AUGMENTATIONS),
        },
    )

    max_hotwords: int = field(
        default=10, metadata={"help": "Most hotwords of a clip, where the instruction has {hotwords}."}
    )

    def __post_init__(self):
        check_numbers(self, ("max_hotwords",), at_least=1, below=MAX_HOTWORDS + 1)
        if "none" in self.augment and len(self.augment) > 1:
            raise ValueError(f"`augment` is none or some of {', '.join(AUGMENTATIONS)}, got {self.augment}.")
        self.augment = [name for name in ("none", *AUGMENTATIONS) if name in self.augment]

    @property
    def groups(self) -> frozenset[str]:
        return frozenset(self.augment) - {"none"}

    @property
    def changes_sound(self) -> bool:
        """Whether the encoder hears another sound in every epoch."""
        return not self.groups.isdisjoint(WAVEFORM_AUGMENTATIONS)

    def check_alignment(self, align_augmented: bool) -> None:
        """Raises a ValueError where the alignment stage is to hear what no group changes."""
        if align_augmented and not self.changes_sound:
            raise ValueError(
                f"`--align_augmented` is for what `--augment {' '.join(WAVEFORM_AUGMENTATIONS)}` do to the "
                "sound, and none of them is given; leave it out."
            )

    def check_cache(self, cache_features: str | None) -> None:
        """Raises a ValueError where the encoder's output is kept and augmentation would change it."""
        changing = [name for name in self.augment if name in WAVEFORM_AUGMENTATIONS]
        if changing and cache_features is not None:
            raise ValueError(
                f"`--cache_features` keeps what the encoder gives for a clip, and `--augment "
                f"{' '.join(changing)}` changes the clip in every epoch; leave one of them out. "
                "`--augment masking` works with both."
            )


@dataclass
class AugmentingCollator(SpeechCollator):
    """Prepares batches as its parent does, training clips after what is drawn for them.

    Clips are known as training clips by the column `DRAW`.
    """

    groups: frozenset[str] = frozenset()
    clips: Any = None  # those of the training data, for voices in the background and for joining
    seed: int = 0
    # In shared memory: workers that live on from epoch to epoch read it too.
    epoch: torch.Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.long).share_memory_())

    def __post_init__(self):
        self.seconds, self.languages = list(self.clips["duration"]), list(self.clips["language"])
        self.longest = self.processor.audio_geometry.max_seconds or max(MAX_CLIP_SECONDS, max(self.seconds))
        self.shortest = min(self.seconds)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        if DRAW not in rows[0]:
            return super().__call__(rows)
        draws = [row[DRAW] for row in rows]
        if not self.groups.isdisjoint(WAVEFORM_AUGMENTATIONS):
            rows = [{name: row[name] for name in KEPT if name in row} | self.heard(row) for row in rows]
        batch = super().__call__(rows)
        if "masking" in self.groups:
            self.mask(batch, draws)
        return batch

    def heard(self, row: dict[str, Any]) -> dict[str, Any]:
        """A training clip -> samples and text after `speed`, `noise` and `edges`."""
        wave, text = load_audio(row["audio"]), row["text"]
        edges = self.generator(row[DRAW], "edges")
        if "edges" in self.groups:
            if edges.random() < EMPTY_SHARE:
                return {"audio": self.nothing_said(edges), "text": ""}
            wave, text = self.joined(wave, text, row[DRAW], edges)
        if "speed" in self.groups:
            wave = self.at_other_speed(wave, self.generator(row[DRAW], "speed"))
        speech_level = level(wave)
        if "edges" in self.groups:
            wave = self.surrounded(wave, speech_level, edges)
        if "noise" in self.groups:
            wave = self.in_noise(wave, speech_level, row[DRAW], self.generator(row[DRAW], "noise"))
        return {"audio": wave, "text": text}

    def generator(self, draw: int, group: str) -> np.random.Generator:
        return np.random.default_rng((self.seed, int(self.epoch), draw, AUGMENTATIONS.index(group)))

    def nothing_said(self, generator: np.random.Generator) -> np.ndarray:
        """Silence, or a noise at a drawn level."""
        seconds = min(max(generator.uniform(*EMPTY_SECONDS), self.shortest), self.longest)
        samples = int(seconds * SAMPLING_RATE)
        kind = generator.choice(["silence", *NOISES])
        silence = np.zeros(samples, np.float32)
        if kind == "silence":
            return silence
        return add_noise(silence, noise(kind, samples, generator), -generator.uniform(*EMPTY_DB), 1.0)

    def joined(
        self, wave: np.ndarray, text: str, draw: int, generator: np.random.Generator
    ) -> tuple[np.ndarray, str]:
        """The clip, and for some another one of its language behind it, where both fit."""
        gap, other = generator.uniform(*JOINED_GAP_SECONDS), self.another(draw, generator)
        fits = len(wave) / SAMPLING_RATE + gap + self.seconds[other] <= self.longest
        if generator.random() >= JOINED_SHARE or not fits:
            return wave, text
        if self.languages[other] != self.languages[draw]:
            return wave, text
        row = self.clips[other]
        silence = np.zeros(int(gap * SAMPLING_RATE), np.float32)
        return np.concatenate([wave, silence, load_audio(row["audio"])]), f"{text} {row['text']}"

    def at_other_speed(self, wave: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """No clip becomes shorter than the shortest of the data or longer than the encoder hears."""
        seconds = len(wave) / SAMPLING_RATE
        slowest, fastest = seconds / self.longest, max(1.0, seconds / self.shortest)
        tempo = min(max(generator.uniform(*TEMPO), slowest), fastest)
        pitch = tempo if generator.random() < TAPE_SHARE else generator.uniform(*PITCH)
        if generator.random() >= SPEED_SHARE:
            return wave
        wave = spoken(wave, tempo, pitch)[: int(self.longest * SAMPLING_RATE)]
        return np.pad(wave, (0, max(0, round(self.shortest * SAMPLING_RATE) - len(wave))))  # rounded off

    def surrounded(self, wave: np.ndarray, speech_level: float, generator: np.random.Generator) -> np.ndarray:
        """Silence before and behind the clip for some, half of them with a faint noise over all."""
        room_left = int(self.longest * SAMPLING_RATE) - len(wave)
        before, behind = (
            int(min(generator.uniform(*SURROUNDED_SECONDS) * SAMPLING_RATE, room_left / 2)) for _ in range(2)
        )
        if generator.random() >= SURROUNDED_SHARE:
            return wave
        wave = np.pad(wave, (before, behind))
        if generator.random() < 0.5:
            return wave
        faint = noise(generator.choice(NOISES), len(wave), generator)
        return add_noise(wave, faint, generator.uniform(*SURROUNDED_SNR_DB), speech_level)

    def in_noise(
        self, wave: np.ndarray, speech_level: float, draw: int, generator: np.random.Generator
    ) -> np.ndarray:
        """Some in a room, some with noise or other voices."""
        if generator.random() < ECHO_SHARE:
            response = room(generator.uniform(*ECHO_SECONDS), generator.uniform(*ECHO_DIRECT_DB), generator)
            wave = echo(wave, response)
        if generator.random() >= NOISE_SHARE:
            return wave
        if generator.random() >= BABBLE_SHARE:
            sound = noise(generator.choice(NOISES), len(wave), generator)
            return add_noise(wave, sound, generator.uniform(*NOISE_SNR_DB), speech_level)
        others = [
            self.another(draw, generator) for _ in range(generator.integers(*BABBLE_VOICES, endpoint=True))
        ]
        voices = [load_audio(self.clips[other]["audio"]) for other in others]
        sound = babble(voices, len(wave), generator)
        return add_noise(wave, sound, generator.uniform(*BABBLE_SNR_DB), speech_level)

    def another(self, draw: int, generator: np.random.Generator) -> int:
        """A row of the training data other than this, if there is one."""
        return int(draw + 1 + generator.integers(max(1, len(self.seconds) - 1))) % len(self.seconds)

    def mask(self, batch: dict[str, torch.Tensor], draws: list[int]) -> None:
        """Sets spans of time of `encoder_frames` or `input_features` to 0; of log-mel bands as well."""
        name = "encoder_frames" if "encoder_frames" in batch else "input_features"
        geometry = self.processor.audio_geometry
        is_mel = name == "input_features" and batch[name].dim() == 3
        per_second = SAMPLING_RATE / (geometry.hop if name == "input_features" else geometry.frame_samples)
        for draw, features, real in zip(draws, batch[name], batch[f"{name}_mask"], strict=True):
            generator = self.generator(draw, "masking")
            in_time = features.T if is_mel else features  # (F, M), (T, D) or (n,)
            length = int(real.sum())
            count = math.ceil(SPANS_PER_SECOND * length / per_second)
            hidden = hidden_spans(length, count, round(SPAN_SECONDS * per_second), generator)
            in_time[:length][torch.from_numpy(hidden)] = 0
            if is_mel:
                bins = in_time.shape[1]
                bands = hidden_spans(bins, BANDS, round(BAND_SHARE * bins), generator)
                in_time[:, torch.from_numpy(bands)] = 0


class TellsEpoch(TrainerCallback):
    """Says to the collator, and so to its workers, which epoch begins."""

    def __init__(self, epoch: torch.Tensor):
        self.epoch = epoch

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.epoch.fill_(int(state.epoch or 0))


def augment(
    arguments: AugmentationArguments, collator: SpeechCollator, clips: Any, run_args: RunArguments
) -> tuple[SpeechCollator, Any, list[TrainerCallback]]:
    """The collator, the training clips and the trainer's callbacks with what is drawn for each epoch: what
    `--augment` asks for, and hotwords where the instruction has a place for them."""
    seed = run_args.seed if run_args.data_seed is None else run_args.data_seed
    callbacks: list[TrainerCallback] = []
    if HOTWORDS_SLOT in collator.processor.instruction:
        reserved = collator.processor.tokenizer.get_added_vocab()
        draws = HotwordDraws(clips["text"][:], clips["language"][:], arguments.max_hotwords, seed, reserved)
        collator = replace(collator, hotwords=draws)
        callbacks.append(TellsEpoch(draws.epoch))
    if arguments.groups:
        parts = {part.name: getattr(collator, part.name) for part in fields(collator)}
        collator = AugmentingCollator(**parts, groups=arguments.groups, clips=clips, seed=seed)
        callbacks.append(TellsEpoch(collator.epoch))
    if not callbacks:
        return collator, clips, []
    return collator, clips.add_column(DRAW, list(range(len(clips)))), callbacks


def on_cached_frames(collator: SpeechCollator) -> SpeechCollator:
    """The same collator without what changes the sound: for a stage that reads cached encoder frames."""
    if not isinstance(collator, AugmentingCollator):
        return collator
    return replace(collator, groups=collator.groups - set(WAVEFORM_AUGMENTATIONS))
