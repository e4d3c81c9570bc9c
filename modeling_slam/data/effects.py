"""Effects on a clip: what another speaker, a room or a noisy street would have made of it.

Waves are (n,) float32 samples at 16 kHz. What is drawn comes from the generator that is handed in; the number
of threads changes no bit.
"""

import numpy as np
import soxr

from modeling_slam.model.audio_lengths import SAMPLING_RATE

COLOURS = {"white": 0, "pink": 1, "brown": 2}  # power falls with this power of the frequency
NOISES = (*COLOURS, "hum")
LOWEST_HERTZ = 20.0  # a slower drift is no sound
MAINS_HERTZ = (50.0, 60.0)
HUM_HARMONICS = 10
HOP, TOLERANCE = 320, 160  # samples: a window of two hops holds two periods of a deep voice


def level(wave: np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))


def at_level(wave: np.ndarray, wanted: float) -> np.ndarray:
    """The wave at another level; silence stays silence."""
    present = level(wave)
    return (wave * (wanted / present if present else 0.0)).astype(np.float32)


# ---------------------------------------------------------------- speed and pitch


def spoken(wave: np.ndarray, tempo: float, pitch: float) -> np.ndarray:
    """(n,) -> about (n / tempo,): `tempo` times as fast and `pitch` times as high.

    Equal factors are a tape played faster. Source: https://www.isca-archive.org/interspeech_2015/ko15_interspeech.html
    """
    if tempo != pitch:
        wave = stretched(wave, tempo / pitch)
    return soxr.resample(wave, pitch * SAMPLING_RATE, SAMPLING_RATE)


def stretched(wave: np.ndarray, tempo: float) -> np.ndarray:
    """(n,) -> (round(n / tempo),) at the pitch it had.

    Windows read `tempo` hops apart are written one hop apart, each taken from where, within a tolerance, it
    goes on best from the one before. Source: WSOLA, https://doi.org/10.1109/ICASSP.1993.319366
    """
    samples = round(len(wave) / tempo)
    padded = np.pad(wave, (HOP + TOLERANCE, 4 * HOP + TOLERANCE))
    window = np.hanning(2 * HOP + 1)[:-1]  # those of neighbours add up to 1
    written = np.zeros(samples + 4 * HOP)
    going_on = TOLERANCE
    for start in range(0, samples + HOP, HOP):
        earliest = round(start * tempo)
        region = padded[earliest : earliest + 2 * TOLERANCE + 2 * HOP]
        likeness = np.correlate(region, padded[going_on : going_on + 2 * HOP], "valid")
        taken = earliest + int(np.argmax(likeness))
        written[start : start + 2 * HOP] += window * padded[taken : taken + 2 * HOP]
        going_on = taken + HOP
    return written[HOP : HOP + samples].astype(np.float32)


# ---------------------------------------------------------------- noise


def noise(kind: str, samples: int, generator: np.random.Generator) -> np.ndarray:
    """(samples,) of one of `NOISES`, of level 1."""
    if kind == "hum":
        return at_level(hum(samples, generator), 1.0)
    size = power_of_two(samples)
    hertz = np.fft.rfftfreq(size, 1 / SAMPLING_RATE)
    gain = np.where(hertz < LOWEST_HERTZ, 0.0, np.maximum(hertz, LOWEST_HERTZ) ** (-COLOURS[kind] / 2))
    spectrum = np.fft.rfft(generator.standard_normal(size)) * gain
    return at_level(np.fft.irfft(spectrum, size)[:samples], 1.0)


def hum(samples: int, generator: np.random.Generator) -> np.ndarray:
    """The mains of one half of the world or the other, with harmonics that fall off."""
    seconds = np.arange(samples) / SAMPLING_RATE
    base, steepness = generator.choice(MAINS_HERTZ), generator.uniform(0.5, 2.0)
    phases = generator.uniform(0, 2 * np.pi, HUM_HARMONICS)
    harmonics = [
        np.sin(2 * np.pi * base * order * seconds + phase) / order**steepness
        for order, phase in enumerate(phases, start=1)
    ]
    return np.sum(harmonics, axis=0)


def babble(voices: list[np.ndarray], samples: int, generator: np.random.Generator) -> np.ndarray:
    """(samples,) of these clips at once, equally loud, each from a drawn place and over again; of level 1."""
    turned = [np.roll(voice, generator.integers(len(voice))) for voice in voices]
    return at_level(np.sum([np.resize(at_level(voice, 1.0), samples) for voice in turned], axis=0), 1.0)


def add_noise(wave: np.ndarray, noise: np.ndarray, snr_db: float, speech_level: float) -> np.ndarray:
    """Noise of level 1, so many decibels below the level of the speech."""
    return wave + noise * np.float32(speech_level * 10 ** (-snr_db / 20))


# ---------------------------------------------------------------- rooms


def room(seconds: float, direct_db: float, generator: np.random.Generator) -> np.ndarray:
    """An impulse response: the direct sound, then noise that falls by 60 dB in `seconds`.

    Args:
        direct_db: energy of the direct sound above that of the reverberation.
    """
    time = np.arange(1, round(seconds * SAMPLING_RATE)) / SAMPLING_RATE
    tail = generator.standard_normal(len(time)) * 10 ** (-3 * time / seconds)
    tail *= 10 ** (-direct_db / 20) / np.linalg.norm(tail)
    return np.concatenate([[1.0], tail]).astype(np.float32)


def echo(wave: np.ndarray, response: np.ndarray) -> np.ndarray:
    """(n,) -> (n,): the wave in that room, as loud as before."""
    size = power_of_two(len(wave) + len(response))
    heard = np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(response, size), size)[: len(wave)]
    return at_level(heard, level(wave))


# ---------------------------------------------------------------- masks


def hidden_spans(length: int, count: int, longest: int, generator: np.random.Generator) -> np.ndarray:
    """(length,) bool: True within `count` spans of 0 to `longest`, which may overlap.

    Source: SpecAugment, https://huggingface.co/papers/1904.08779
    """
    starts = generator.integers(length, size=count)
    widths = generator.integers(longest + 1, size=count)
    places = np.arange(length)[:, None]
    return np.any((places >= starts) & (places < starts + widths), axis=1)


def power_of_two(length: int) -> int:
    """The next one: transforms of other lengths can be many times slower."""
    return 1 << (length - 1).bit_length()
