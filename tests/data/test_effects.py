"""Each effect does to a wave what its name says, measured on the wave that comes out."""

import numpy as np
import pytest

from modeling_slam.data.effects import (
    NOISES,
    add_noise,
    at_level,
    babble,
    echo,
    hidden_spans,
    level,
    noise,
    room,
    spoken,
    stretched,
)

RATE = 16_000
FACTORS = (0.9, 0.97, 1.0, 1.1)


def tone(hertz: float, seconds: float = 2.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def strongest_hertz(wave: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    return float(np.argmax(spectrum) * RATE / len(wave))


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.mark.parametrize("tempo", FACTORS)
@pytest.mark.parametrize("pitch", FACTORS)
def test_tempo_and_pitch_change_by_their_own_factors(tempo, pitch):
    wave = tone(440)
    changed = spoken(wave, tempo, pitch)
    assert changed.dtype == np.float32
    assert abs(len(changed) - len(wave) / tempo) <= 2
    assert strongest_hertz(changed) == pytest.approx(440 * pitch, abs=1.5)
    assert level(changed[2000:-2000]) == pytest.approx(level(wave), rel=0.1)


@pytest.mark.parametrize("tempo", FACTORS)
def test_what_is_heard_at_a_time_is_heard_at_the_stretched_time(tempo):
    wave = np.concatenate([np.zeros(RATE, np.float32), tone(500, 1.0)])
    loud = np.abs(stretched(wave, tempo)) > 0.1
    assert np.argmax(loud) == pytest.approx(RATE / tempo, abs=0.02 * RATE)


@pytest.mark.parametrize("snr_db", [0.0, 10.0, 25.0])
@pytest.mark.parametrize("kind", NOISES)
def test_noise_lies_so_many_decibels_below_the_speech(two_clips, generator, kind, snr_db):
    speech = two_clips[1]
    noisy = add_noise(speech, noise(kind, len(speech), generator), snr_db, level(speech))
    assert noisy.dtype == np.float32
    assert 20 * np.log10(level(speech) / level(noisy - speech)) == pytest.approx(snr_db, abs=0.01)


@pytest.mark.parametrize(("kind", "decibels_per_octave"), [("white", 0), ("pink", -3.01), ("brown", -6.02)])
def test_a_colour_of_noise_is_the_slope_of_its_spectrum(generator, kind, decibels_per_octave):
    power = np.abs(np.fft.rfft(noise(kind, 2**17, generator))) ** 2
    hertz = np.fft.rfftfreq(2**17, 1 / RATE)
    octaves = [power[(hertz >= low) & (hertz < 2 * low)].mean() for low in (100, 200, 400, 800, 1600, 3200)]
    slope = np.polyfit(range(6), 10 * np.log10(octaves), 1)[0]
    assert slope == pytest.approx(decibels_per_octave, abs=0.4)


def test_a_hum_has_the_harmonics_of_the_mains_and_nothing_else(generator):
    power = np.abs(np.fft.rfft(noise("hum", RATE, generator))) ** 2  # one bin a hertz
    lines = np.flatnonzero(power > 1e-6 * power.max())
    assert all(line % 50 == 0 for line in lines) or all(line % 60 == 0 for line in lines)


def test_voices_of_a_babble_are_equally_loud(two_clips, generator):
    quiet, loud = two_clips[0], 20 * two_clips[1]
    crowd = babble([quiet, loud], 3 * RATE, generator)
    assert len(crowd) == 3 * RATE
    assert level(crowd) == pytest.approx(1, rel=1e-4)
    correlations = [np.correlate(np.resize(voice, 6 * RATE), crowd).max() for voice in (quiet, loud / 20)]
    norms = [level(voice) * 3 * RATE for voice in (quiet, loud / 20)]
    one, other = (found / norm for found, norm in zip(correlations, norms, strict=True))
    assert one == pytest.approx(other, rel=0.2)


@pytest.mark.parametrize("seconds", [0.15, 0.6])
def test_reverberation_falls_by_sixty_decibels_in_its_time(generator, seconds):
    """Schroeder's backward integral of a response, as rooms are measured."""
    response = room(seconds, 6.0, generator)[1:]
    left = 10 * np.log10(np.cumsum(response[::-1] ** 2)[::-1])
    start, end = np.argmax(left < left[0] - 5), np.argmax(left < left[0] - 35)
    assert (end - start) / RATE == pytest.approx(seconds / 2, rel=0.1)


def test_the_direct_sound_lies_so_many_decibels_above_the_reverberation(generator):
    response = room(0.4, 6.0, generator)
    assert 10 * np.log10(response[0] ** 2 / np.sum(response[1:] ** 2)) == pytest.approx(6, abs=0.01)


def test_an_echo_is_the_convolution_with_its_room_at_the_level_before(two_clips, generator):
    wave, response = two_clips[0], room(0.2, 3.0, generator)
    heard = echo(wave, response)
    assert level(heard) == pytest.approx(level(wave), rel=1e-4)
    expected = np.convolve(wave, response)[: len(wave)]
    assert np.allclose(heard, at_level(expected, level(wave)), atol=1e-5)


def test_hidden_spans_are_no_longer_and_no_more_than_asked_for(generator):
    for _ in range(50):
        hidden = np.flatnonzero(np.diff(np.pad(hidden_spans(200, 3, 10, generator), 1).astype(int)))
        starts, ends = hidden[::2], hidden[1::2]
        assert len(starts) <= 3
        assert (ends - starts).sum() <= 30


def test_silence_stays_silence(generator):
    silence = np.zeros(RATE, np.float32)
    for changed in (
        at_level(silence, 1.0),
        echo(silence, room(0.2, 3.0, generator)),
        stretched(silence, 1.1),
    ):
        assert not changed.any()
