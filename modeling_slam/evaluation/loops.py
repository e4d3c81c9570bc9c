"""Loops: outputs that repeat a word or a phrase, as language models do when they stop listening."""

from collections.abc import Sequence

LOOP_REPEATS = 4


def is_loop(reference: str, prediction: str) -> bool:
    """Whether words or a phrase come four or more times in a row, and not so in the reference."""
    return has_repeats(prediction.split()) and not has_repeats(reference.split())


def has_repeats(words: Sequence[str], repeats: int = LOOP_REPEATS) -> bool:
    """Whether some n-gram of any length stands `repeats` times in a row."""
    for size in range(1, len(words) // repeats + 1):
        same = 0  # how many words in a row equal the word one n-gram before
        for earlier, later in zip(words, words[size:], strict=False):
            same = same + 1 if earlier == later else 0
            if same == size * (repeats - 1):
                return True
    return False
