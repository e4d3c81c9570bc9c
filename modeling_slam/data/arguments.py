"""Data arguments: which speech, which columns, which clips; shared by `train.py` and `eval.py`.

Everything a run says about its data is here and checked on creation, before any file is opened.
"""

import re
from dataclasses import dataclass, field

from modeling_slam.common.numbers import check_numbers


@dataclass
class DataArguments:
    """Which speech to read, and which of its clips to use."""

    dataset: list[str] = field(
        metadata={
            "help": "One or more, read as one: Common Voice folders or .tar.gz, tables of clips (csv, tsv, "
            "json, jsonl, parquet) or directories of them, Hub ids, mdc:<id>."
        }
    )
    dataset_config: str | None = field(
        default=None, metadata={"help": "Configuration name of a Hub dataset that has several."}
    )
    language: str | None = field(
        default=None,
        metadata={"help": "ISO code such as da, nl or en: picks text rules and the Common Voice folder."},
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
    audio_column: str = field(
        default="audio", metadata={"help": "Column of the audio; by default the one of a usual name."}
    )
    text_column: str = field(
        default="text", metadata={"help": "Column of the transcript; by default the one of a usual name."}
    )
    id_column: str | None = field(
        default=None,
        metadata={"help": "Column with a unique clip id; by default the file name or row number."},
    )
    speaker_column: str | None = field(
        default=None, metadata={"help": "Column of the speaker; by default the one of a usual name."}
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
        if self.language is not None and not re.fullmatch(r"[a-z]{2,3}(-[A-Za-z0-9-]+)?", self.language):
            raise ValueError(
                f"`language` must be an ISO code such as da, nl or sv-SE, got {self.language!r}."
            )
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

    @property
    def recorded_dataset(self) -> str | list[str]:
        """`dataset` as files of settings record it: one by its name alone, as older files do."""
        return self.dataset[0] if len(self.dataset) == 1 else self.dataset
