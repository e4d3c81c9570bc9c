"""Long recordings: cuts fall into pauses, nothing is lost or doubled, and little of them is held."""

import numpy as np
import pytest

from modeling_slam.model.audio_lengths import (
    HOP_SAMPLES,
    OVERLAP_SECONDS,
    Word,
    gap_between,
    hop_power,
    join,
    longest_blank,
    segments,
    split,
    timed,
)

RATE = 16_000


def speech(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise with the rhythm of syllables, four a second; it has no pause."""
    time = np.arange(round(seconds * RATE)) / RATE
    envelope = 0.6 + 0.4 * np.sin(2 * np.pi * 4 * time)
    noise = np.random.default_rng(seed).standard_normal(len(time))
    return (0.1 * envelope * noise).astype(np.float32)


def with_pauses(spoken: list[float], pause: float, noise: float = 1e-3) -> tuple[np.ndarray, list[float]]:
    """Stretches of speech with pauses between them, and the middle of each pause in seconds."""
    parts, middles, seconds = [], [], 0.0
    for number, length in enumerate(spoken):
        parts += [speech(length, number), np.zeros(round(pause * RATE), np.float32)]
        seconds += length + pause
        middles.append(seconds - pause / 2)
    samples = np.concatenate(parts)
    return samples + noise * np.random.default_rng(1).standard_normal(len(samples)).astype(
        np.float32
    ), middles


def blocks_of(samples: np.ndarray, size: int) -> list[np.ndarray]:
    return [samples[start : start + size] for start in range(0, len(samples), size)]


def joined(left: str, right: str, overlap: float = 2.0) -> str:
    words = join([Word(word) for word in left.split()], [Word(word) for word in right.split()], overlap)
    return " ".join(word.text for word in words)


@pytest.mark.parametrize("pause", [0.3, 0.8])
@pytest.mark.parametrize("noise", [0.0, 1e-3, 1e-2])
def test_cuts_fall_into_pauses(pause, noise):
    samples, middles = with_pauses([3.1, 4.2, 2.4, 5.0, 3.3, 4.4, 2.9, 6.1, 3.8], pause, noise)
    chunks = list(split([samples], 10.0, 30.0))
    assert len(chunks) > 3
    for chunk in chunks[1:]:
        assert chunk.overlap == 0
        assert min(abs(chunk.start - middle) for middle in middles) < pause / 2 - 0.05


@pytest.mark.parametrize("noise", [0.0, 3e-2])
def test_cuts_fall_where_the_head_holds_most_positions_for_blank(noise):
    """In noise of 10 dB below speech too, where no pause is heard."""
    samples, middles = with_pauses([3.1, 4.2, 2.4, 5.0, 3.3, 4.4, 2.9, 6.1, 3.8], 0.6, noise)
    position, taken = 1_280, []

    def find(held: np.ndarray, first: int) -> tuple[int, int] | None:
        """A head that recognises a token every 0.24 s of speech."""
        start = taken[-1] if taken else 0
        seconds = (start + np.arange(len(held) // position) * position) / RATE
        in_pause = np.min(np.abs(seconds[:, None] - middles), axis=1) < 0.3
        is_blank = in_pause | (np.arange(len(seconds)) % 3 > 0)
        found = longest_blank(is_blank, position, held, first)
        taken.append(start + found[1])
        return found

    chunks = list(split([samples], 10.0, 30.0, find))
    assert len(chunks) > 3
    for chunk in chunks[1:]:
        assert chunk.overlap == 0
        assert min(abs(chunk.start - middle) for middle in middles) < 0.3


def test_a_head_that_always_recognises_something_leaves_no_place_to_cut():
    assert longest_blank(np.zeros(100, bool), 1_280, speech(8.0), 0) is None
    assert longest_blank(np.arange(100) % 4 > 0, 1_280, speech(8.0), 0) is None
    is_blank = np.arange(100) < 20
    assert longest_blank(is_blank, 1_280, speech(8.0), 0) is not None
    assert longest_blank(is_blank, 1_280, speech(8.0), 20 * 1_280) is None


def test_the_padding_behind_a_chunk_is_no_place_to_cut():
    """With `pad_to_seconds` the head has positions behind the samples, and nothing is said in any of them."""
    padded = np.arange(300) >= 100
    assert longest_blank(padded, 1_280, speech(8.0), 20 * 1_280) is None
    in_speech = padded | ((np.arange(300) >= 50) & (np.arange(300) < 56))
    end, following = longest_blank(in_speech, 1_280, speech(8.0), 20 * 1_280)
    assert 50 * 1_280 <= end <= following <= 56 * 1_280


@pytest.mark.parametrize("noise", [0.0, 1e-3, 1e-2])
def test_a_word_ends_and_the_next_starts_around_the_quiet_between_them(noise):
    samples, _ = with_pauses([1.0, 1.0, 1.0], 0.3, noise)
    power = hop_power(samples)
    assert len(power) == len(samples) // HOP_SAMPLES
    assert gap_between(power, 60, 180) == pytest.approx((100, 130), abs=3)
    assert gap_between(power, 60, 310) == pytest.approx((100, 260), abs=3)  # two pauses: each to its word
    assert gap_between(power, 50, 50) == (50, 50)
    assert gap_between(power, len(power), len(power)) == (len(power), len(power))


def test_where_words_run_on_the_next_one_starts_a_little_before_it_is_recognised():
    samples, _ = with_pauses([2.0], 0.3, 0.0)
    power = hop_power(samples)
    assert gap_between(power, 60, 110) == (102, 102)
    assert gap_between(power, 105, 110) == (105, 105)  # not before the one is heard
    dipped = power.copy()
    dipped[80:84] = 1e-9  # as before a t
    assert gap_between(dipped, 60, 110) == (102, 102)
    dipped[80:90] = 1e-9
    assert gap_between(dipped, 60, 110) == (80, 90)
    dipped[80:90] = power.max() / 20  # a soft sound
    assert gap_between(dipped, 60, 110) == (102, 102)


def test_segments_end_with_a_sentence_or_at_a_pause_and_time_never_runs_backwards():
    said = [("Yes.", 0.1, 0.4), ("I", 0.4, 0.5), ("do", 0.6, 0.8), ("and", 1.4, 1.5), ("so", 1.3, 1.6)]
    words = [Word(text, start, end, 0.5 + 0.1 * place) for place, (text, start, end) in enumerate(said)]
    assert [part["text"] for part in timed(segments(words))] == ["Yes.", "I do", "and so"]
    assert timed(segments(words))[1] == {"text": "I do", "timestamp": (0.4, 0.8), "confidence": 0.65}
    times = [part["timestamp"] for part in timed([[word] for word in words])]
    assert times[-1] == (1.5, 1.6)
    assert all(type(second) is float for pair in times for second in pair)
    assert timed(segments([])) == []


@pytest.mark.parametrize("size", [1_000, 50_000, 10_000_000])
def test_chunks_cover_the_recording_in_order_at_any_block_size(size):
    samples = np.concatenate(
        [with_pauses([3.0, 4.0, 5.0], 0.3)[0], speech(47.0), np.zeros(40_000, np.float32)]
    )
    chunks = list(split(blocks_of(samples, size), 8.0, 30.0))
    assert [chunk.is_last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert all(2.0 <= len(chunk.samples) / RATE <= 8.0 for chunk in chunks)
    rebuilt = np.concatenate([chunk.samples[round(chunk.overlap * RATE) :] for chunk in chunks])
    np.testing.assert_array_equal(rebuilt, samples)
    for chunk in chunks:
        start = round(chunk.start * RATE)
        np.testing.assert_array_equal(chunk.samples, samples[start : start + len(chunk.samples)])
    reference = list(split([samples], 8.0, 30.0))
    assert [chunk.start for chunk in chunks] == [chunk.start for chunk in reference]


def test_chunks_overlap_only_where_there_is_no_pause():
    chunks = list(split([speech(60.0)], 15.0, 30.0))
    assert [chunk.overlap for chunk in chunks] == [0.0] + [OVERLAP_SECONDS] * (len(chunks) - 1)


def test_a_recording_up_to_the_limit_stays_whole():
    samples, _ = with_pauses([9.7, 9.7, 9.7], 0.3)
    (chunk,) = split([samples[: 30 * RATE]], 15.0, 30.0)
    np.testing.assert_array_equal(chunk.samples, samples[: 30 * RATE])
    assert len(list(split([np.append(samples, samples)[: 30 * RATE + 1]], 15.0, 30.0))) > 1


def test_little_of_a_long_recording_is_read_ahead():
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += RATE
            yield speech(1.0, taken)

    chunks = split(endless(), 10.0, 30.0)
    last = [next(chunks) for _ in range(200)][-1]
    assert taken / RATE - last.start < 45


@pytest.mark.parametrize("tail", [0, 1, 2, 3])
@pytest.mark.parametrize("cut_word", ["", "xx"])
def test_overlapping_transcripts_join_to_the_whole(tail, cut_word):
    """Both sides hear the words of the overlap; one or both may mishear the word that is cut in two."""
    text = "we count one two three four five six seven eight nine and go"
    whole = text.split()
    left, right = [*whole[: 6 + tail], cut_word], [cut_word, *whole[4:]]
    assert joined(" ".join(left), " ".join(right)) == text


def test_case_and_punctuation_do_not_hide_a_common_run():
    assert joined("So, it was. A big", "it was a big house.") == "So, it was. A big house."


def test_without_a_common_run_nothing_is_lost():
    assert joined("a b c", "d e f") == "a b c d e f"
    assert joined("", "d e") == "d e"
    assert joined("a b", "") == "a b"


def test_a_short_word_in_common_does_not_swallow_what_surrounds_it():
    both = "he saw the old house", "by night the rain fell"
    assert joined(*both) == " ".join(both)


def test_words_outside_the_overlap_are_not_compared():
    repeated = "row row row your boat gently down the stream " * 3
    assert joined(repeated + "end", "end " + repeated, 0.4) == f"{repeated}end {repeated}".strip()
