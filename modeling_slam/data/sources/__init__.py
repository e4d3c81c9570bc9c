"""Sources of speech, and the table that names them.

A source module says what it accepts (`DESCRIPTION`, `recognises`) and lists the clips of a split
(`open_source`). To add one: write the module and put it in `SOURCES`; the first that recognises wins.
"""

from pathlib import Path
from types import ModuleType

from modeling_slam.data.clips import DataError
from modeling_slam.data.sources import common_voice, hf_datasets, local_tables, mozilla

SOURCES: tuple[ModuleType, ...] = (mozilla, common_voice, hf_datasets, local_tables)


def find_source(dataset: str) -> ModuleType:
    """The module that reads `dataset`."""
    for source in SOURCES:
        if source.recognises(dataset):
            return source
    accepted = "".join(f"\n  - {source.DESCRIPTION}" for source in SOURCES)
    there = "there is nothing of that name" if not Path(dataset).expanduser().exists() else "not recognised"
    raise DataError(f"`dataset` is {dataset!r}: {there}. Expected one of:{accepted}")
