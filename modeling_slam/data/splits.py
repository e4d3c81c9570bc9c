"""Splits by their names: which one is meant, and which one a file belongs to."""

import re
from collections.abc import Iterable
from pathlib import PurePath

from modeling_slam.data.clips import MissingSplitError

# What splits are called besides: the words that the `datasets` library looks for.
WORDS = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
SHARD = re.compile(r"[-_.]?\d+(-of-\d+)?$")  # train-00000-of-00002, test_1


def pick_split(wanted: str, available: Iterable[str], where: object) -> str:
    """The split of that name, or the only one that means the same: `dev` for `validation`.

    Raises:
        MissingSplitError: there is none, or there are several.
    """
    available = sorted(available)
    if wanted in available:
        return wanted
    alike = [name for name in available if same_split(wanted, name)]
    if len(alike) != 1:
        raise MissingSplitError(wanted, available, where)
    return alike[0]


def same_split(wanted: str, name: str) -> bool:
    """Whether a bare word such as `test` means the split `name`, say `test-clean`."""
    return wanted.lower() in WORDS and split_word(name) == WORDS[wanted.lower()]


def split_word(name: str) -> str | None:
    """The split that a name speaks of: `cv_dev_v2` is a validation; None if of none, or of several."""
    words = {WORDS[part] for part in re.split(r"[^a-z]+", name.lower()) if part in WORDS}
    return words.pop() if len(words) == 1 else None


def stated_split(column: str | None, value: object) -> str | None:
    """The split that a value states; a column that is not called `split` does so by usual words alone."""
    if column is None or not isinstance(value, str) or not value.strip():
        return None
    return value.strip() if column.lower() == "split" or split_word(value) else None


def split_of_path(path: PurePath) -> str | None:
    """The name of the split of a file, from its own name or the nearest folder that speaks of one."""
    for name in (path.stem, *(folder.name for folder in path.parents)):
        if split_word(name):
            return SHARD.sub("", name) or name
    return None


def names_in(path: PurePath) -> set[str]:
    """All the names that may be given for the split of a file, however unusual."""
    return {path.stem, SHARD.sub("", path.stem), *path.parts[:-1]}
