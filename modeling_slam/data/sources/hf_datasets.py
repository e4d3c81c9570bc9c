"""What only the `datasets` library opens: Hub ids, `save_to_disk` directories, local Arrow files.

A Hub dataset whose rows name their audio (a repository of loose files with a metadata.csv, a csv of paths) is
fetched as it stands and read like any local folder; `datasets` would ask for torchcodec to open it.
"""

from pathlib import Path

import datasets
from datasets.exceptions import DatasetGenerationError
from huggingface_hub import snapshot_download

from modeling_slam.common.hub_ids import is_hub_id
from modeling_slam.data.arguments import OneDataset
from modeling_slam.data.arrow_tables import KIND, source_of
from modeling_slam.data.clips import DataError, Source
from modeling_slam.data.sources import local_tables
from modeling_slam.data.splits import pick_split
from modeling_slam.data.tables import READERS

__all__ = ["DESCRIPTION", "KIND", "open_source", "recognises"]
DESCRIPTION = "a Hub id such as owner/name, or a directory that `save_to_disk` wrote"
SAVED_NAMES = ("dataset_dict.json", "state.json")
# The builders of `datasets` whose rows name files.
LOOSE = tuple(f"datasets.packaged_modules.{name}." for name in ("audiofolder", "csv", "json"))


def recognises(dataset: str) -> bool:
    path = Path(dataset).expanduser()
    if path.is_dir():
        return any((path / name).is_file() for name in SAVED_NAMES) or any(path.rglob("*.arrow"))
    return not path.exists() and is_hub_id(dataset) and path.suffix.lower() not in READERS


def open_source(dataset: str, arguments: OneDataset, split: str) -> Source:
    path = Path(dataset).expanduser()
    if any((path / name).is_file() for name in SAVED_NAMES):
        return _open_saved(path, arguments, split)
    try:
        builder = datasets.load_dataset_builder(
            str(path) if path.exists() else dataset, arguments.dataset_config
        )
        if not path.exists() and type(builder).__module__.startswith(LOOSE):
            return local_tables.open_source(snapshot_download(dataset, repo_type="dataset"), arguments, split)
        splits = builder.config.data_files or builder.info.splits
        if splits and not {"[", "+"} & set(split):  # train[:10%] and train+test are for `datasets` to read
            split = pick_split(split, map(str, splits), dataset)
        if arguments.streaming:
            table = builder.as_streaming_dataset(split)
        else:
            builder.download_and_prepare()
            table = builder.as_dataset(split)
    except DataError:
        raise
    except (ValueError, OSError, DatasetGenerationError) as error:
        kind = "a local directory" if path.exists() else "no local path, so taken for a Hub id"
        raise DataError(
            f"`datasets` could not open {dataset!r} ({kind}), configuration {arguments.dataset_config}, "
            f"split {split!r}: {error.__cause__ or error}. Check the name, --dataset_config, and "
            "--train_split, --validation_split or --test_split."
        ) from error
    where = f"{dataset}, split {split}"
    return source_of(table, arguments, split, where, split)  # ty: ignore[invalid-argument-type] (of a single split)


def _open_saved(path: Path, arguments: OneDataset, split: str) -> Source:
    """What `save_to_disk` wrote; a table without a split is a dataset without any."""
    saved = datasets.load_from_disk(path)
    tables = saved if isinstance(saved, datasets.DatasetDict) else {str(saved.split or ""): saved}
    name = "" if "" in tables else pick_split(split, map(str, tables), path)
    table = tables[name].to_iterable_dataset() if arguments.streaming else tables[name]
    where = f"{path}, split {name}" if name else str(path)
    return source_of(table, arguments, name or None, where, split)
