"""Sound files with bytes changed, lost and put in: a clip that is heard whole, or a reason why not."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sound_files import RATE
from test_sound_files import KINDS, OTHERS

from modeling_slam.model.audio_io import AudioError, load_audio
from modeling_slam.model.sound_files import TOLERANCE_SECONDS

pytestmark = pytest.mark.fuzz

FILES = KINDS | OTHERS
# Some containers state no length: a cut between two of their frames looks like an end, as docs/data.md says.
OPEN = ("without", ".aac", "AMR", "fragments")
STATES_LENGTH = [kind for kind in KINDS if not any(word in kind for word in OPEN)]
SIZES = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f")  # where a field may be
BLOCK_SECONDS = 0.05  # more than the blocks in which a codec comes, of which one may be torn
seeds = st.integers(0, 2**32)


def damaged(encoded: bytes, source: random.Random) -> bytes:
    """A few edits, half of them in the first bytes, where headers are."""
    result = bytearray(encoded)
    for _ in range(source.choice((1, 1, 3, 20))):
        place = source.randrange(max(1, min(len(result), source.choice((64, 512, len(result) or 1)))))
        count = source.choice((1, 4, 100, 3000))
        match source.randrange(6):
            case 0:
                result[place : place + 1] = source.randbytes(1)
            case 1:
                result[place : place + count] = bytes([source.choice((0, 255))]) * count
            case 2:
                del result[place : place + count]
            case 3:
                result[place:place] = source.randbytes(count)
            case 4:
                result[place : place + 4] = source.choice(SIZES)
            case 5:
                other = FILES[source.choice(list(FILES))]()
                start = source.randrange(max(1, len(other)))
                result[place:place] = other[start : start + 10 * count]
    return bytes(result)


@settings(deadline=None)  # the first example makes the file
@given(st.sampled_from(list(FILES)), seeds)
def test_any_damage_is_a_clip_or_an_error_with_its_reason(kind, seed):
    reason, samples = None, np.zeros(1)
    try:
        samples = load_audio(damaged(FILES[kind](), random.Random(seed)))
    except AudioError as error:
        reason = error.reason
    assert reason in (None, *AudioError.REASONS)
    assert abs(samples).max() < 100  # finite, and of some scale


@settings(deadline=None)  # the first example makes the file
@given(st.sampled_from(STATES_LENGTH), st.floats(0.0, 1.0))
def test_a_cut_anywhere_loses_less_than_a_syllable_or_the_clip(kind, share):
    encoded = KINDS[kind]()
    whole = len(load_audio(encoded))
    try:
        heard = len(load_audio(encoded[: round(share * len(encoded))]))
    except AudioError:
        return
    assert whole - heard <= (TOLERANCE_SECONDS + BLOCK_SECONDS) * RATE


@settings(deadline=None)  # the first example makes the file
@given(st.sampled_from(STATES_LENGTH), st.floats(0.1, 1.0), st.integers(1, 20_000))
def test_bytes_lost_anywhere_lose_less_than_a_syllable_or_the_clip(kind, share, lost):
    encoded = KINDS[kind]()
    place = round(share * len(encoded))
    whole = len(load_audio(encoded))
    try:
        heard = len(load_audio(encoded[:place] + encoded[place + lost :]))
    except AudioError:
        return
    assert whole - heard <= (TOLERANCE_SECONDS + BLOCK_SECONDS) * RATE
