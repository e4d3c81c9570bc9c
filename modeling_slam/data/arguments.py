"""Data arguments: which speech, which columns, which clips; shared by `train.py` and `eval.py`.

Everything a run says about its data is here and checked on creation, before any file is opened. What a source
reads of it, a dataset at a time, is `OneDataset`.
"""

import dataclasses
import math
import re
from dataclasses import dataclass, field
from typing import Any

from modeling_slam.common.numbers import check_numbers

# One value for all datasets, or a list with one for each; in this order the parser makes a flag of many.
OneOrEach = list[str] | None | str


@dataclass(frozen=True)
class OneDataset:
    """What the arguments say about one dataset; the names are theirs."""

    dataset: str
    dataset_config: str | None = None
    language: str | None = None
    audio_column: str = "audio"
    text_column: str = "text"
    id_column: str | None = None
    speaker_column: str | None = None
    streaming: bool = False


# Settings that take one value, or one for each dataset.
ONE_FOR_ALL = ("dataset", "streaming")
EACH = tuple(entry.name for entry in dataclasses.fields(OneDataset) if entry.name not in ONE_FOR_ALL)


@dataclass
class DataArguments:
    """Which speech to read, and which of its clips to use."""

    dataset: list[str] = field(
        metadata={
            "help": "One or more, read as one: Common Voice folders or .tar.gz, tables of clips (csv, tsv, "
            "json, jsonl, parquet) or directories of them, Hub ids, mdc:<id>."
        }
    )
    dataset_weights: list[float] | None = field(
        default=None,
        metadata={"help": "Share of each dataset in the clips that are trained on, such as 2 1."},
    )
    dataset_temperature: float | None = field(
        default=None,
        metadata={"help": "Above 1: small datasets are drawn more often; shares are size^(1/temperature)."},
    )
    dataset_config: OneOrEach = field(
        default=None,
        metadata={"help": "Configuration name of a Hub dataset that has several; one, or one for each."},
    )
    language: OneOrEach = field(
        default=None,
        metadata={
            "help": "ISO code such as da, nl or en: picks text rules and the Common Voice folder; one, or "
            "one for each."
        },
    )
    train_split: str = field(default="train", metadata={"help": "Name of the split to train on."})
    validation_split: str = field(
        default="validation",
        metadata={"help": "Name of the split to validate on; Common Voice calls it dev."},
    )
    test_split: str = field(default="test", metadata={"help": "Name of the split to test on."})
    validation_share: float | None = field(
        default=None,
        metadata={"help": "Share of the clips to validate on where there is no such split; whole speakers."},
    )
    test_share: float | None = field(
        default=None,
        metadata={"help": "Share of the clips to test on where there is no such split; whole speakers."},
    )
    audio_column: OneOrEach = field(
        default_factory=lambda: ["audio"],
        metadata={"help": "Column of the audio; by default the one of a usual name. One, or one for each."},
    )
    text_column: OneOrEach = field(
        default_factory=lambda: ["text"],
        metadata={
            "help": "Column of the transcript; by default the one of a usual name. One, or one for each."
        },
    )
    id_column: OneOrEach = field(
        default=None,
        metadata={
            "help": "Column with a unique clip id; by default the file name or row number. One, or one for "
            "each; `none` is the default."
        },
    )
    speaker_column: OneOrEach = field(
        default=None,
        metadata={
            "help": "Column of the speaker; by default the one of a usual name. One, or one for each; `none` "
            "is the default."
        },
    )
    streaming: bool = field(
        default=False,
        metadata={"help": "Take the first clips up to the limits, not random ones, and fetch no more."},
    )
    min_seconds: float = field(default=0.5, metadata={"help": "Shorter clips are dropped and listed."})
    max_seconds: float = field(default=30.0, metadata={"help": "Longer clips are dropped and listed."})
    max_train_hours: float | None = field(
        default=None, metadata={"help": "Train on a seeded random subset of at most this many hours."}
    )
    max_validation_clips: int | None = field(
        default=None, metadata={"help": "Validate on a seeded random subset of this many clips."}
    )
    max_test_clips: int | None = field(
        default=None, metadata={"help": "Test on a seeded random subset of this many clips."}
    )
    max_dropped: float = field(
        default=0.1,
        metadata={"help": "Largest share of clips, above ten, whose audio may be unreadable."},
    )
    subset_seed: int = field(default=42, metadata={"help": "Seed of the subsets above, and of shares."})

    def __post_init__(self):
        if isinstance(self.dataset, str):  # as Python callers may write it
            self.dataset = [self.dataset]
        if not self.dataset or not all(name.strip() for name in self.dataset):
            raise ValueError("`dataset` is empty; give a folder, an archive, a Hub id or mdc:<id>.")
        for name in EACH:
            setattr(self, name, self._one_or_each(name))
        for language in [one.language for one in self.each if one.language is not None]:
            if not re.fullmatch(r"[a-z]{2,3}(-[A-Za-z0-9-]+)?", language):
                raise ValueError(f"`language` must be an ISO code such as da, nl or sv-SE, got {language!r}.")
        self._check_mixing()
        if not 0 <= self.min_seconds < self.max_seconds:
            raise ValueError(
                f"Expected 0 <= `min_seconds` < `max_seconds`, got {self.min_seconds} and {self.max_seconds}."
            )
        check_numbers(self, ("validation_share", "test_share"), above=0, below=1)
        if (self.validation_share or 0) + (self.test_share or 0) >= 1:
            raise ValueError(
                f"`validation_share` {self.validation_share} and `test_share` {self.test_share} leave "
                "nothing to train on; together they must be below 1."
            )
        check_numbers(self, ("max_train_hours", "max_validation_clips", "max_test_clips"), above=0)
        if not 0 <= self.max_dropped <= 1:
            raise ValueError(f"`max_dropped` must be a share from 0 to 1, got {self.max_dropped}.")

    def _one_or_each(self, name: str) -> Any:
        """One value where it holds for all datasets, else a list with one for each; None where none is given.

        Raises:
            ValueError: there are as many as neither.
        """
        values = getattr(self, name)
        values = list(values) if isinstance(values, (list, tuple)) else [values]
        if len(values) not in (1, len(self.dataset)):
            raise ValueError(
                f"`{name}` has {len(values)} values ({', '.join(map(str, values))}) and `dataset` names "
                f"{len(self.dataset)}; give one for all, or one for each, in their order."
            )
        # A list has no other way to leave one out; a null of YAML comes like this too.
        values = [None if str(value).lower() == "none" else value for value in values]
        if None in values and name in ("audio_column", "text_column"):
            default = getattr(OneDataset, name)
            values = [default if value is None else value for value in values]
        return values[0] if len(set(values)) == 1 else values

    def _check_mixing(self) -> None:
        weights, temperature = self.dataset_weights, self.dataset_temperature
        given = [
            name for name in ("dataset_weights", "dataset_temperature") if getattr(self, name) is not None
        ]
        if len(given) == 2:
            raise ValueError(
                "`dataset_weights` and `dataset_temperature` both say how often each is drawn; leave one out."
            )
        if given and len(self.dataset) == 1:
            raise ValueError(f"`{given[0]}` is for several datasets, and `dataset` names one; leave it out.")
        if weights is not None and len(weights) != len(self.dataset):
            raise ValueError(
                f"`dataset_weights` has {len(weights)} values ({', '.join(f'{w:g}' for w in weights)}) and "
                f"`dataset` names {len(self.dataset)}; give one for each, in their order."
            )
        if weights is not None and not (min(weights) > 0 and sum(weights) < math.inf):
            raise ValueError(
                f"`dataset_weights` must be above 0, got {', '.join(f'{w:g}' for w in weights)}; leave out "
                "of `dataset` what is not to be drawn."
            )
        if temperature is not None and not 0 < temperature < math.inf:
            raise ValueError(f"`dataset_temperature` must be above 0, got {temperature:g}; 1 is by size.")

    @property
    def each(self) -> list[OneDataset]:
        """What holds for each of the datasets, in their order."""
        values = {name: getattr(self, name) for name in EACH}
        return [
            OneDataset(
                dataset,
                **{
                    name: value[place] if isinstance(value, list) else value for name, value in values.items()
                },
                streaming=self.streaming,
            )
            for place, dataset in enumerate(self.dataset)
        ]

    @property
    def one_language(self) -> str | None:
        """The language that holds for all datasets, if one does."""
        return None if isinstance(self.language, list) else self.language

    @property
    def recorded_dataset(self) -> str | list[str]:
        """`dataset` as files of settings record it: one by its name alone, as older files do."""
        return self.dataset[0] if len(self.dataset) == 1 else self.dataset
