"""What a trained model's own run says of it: where nobody says otherwise, that is what is meant."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modeling_slam.common.command_line import as_flags
from modeling_slam.common.files import read_json
from modeling_slam.data.arguments import EACH

RUN_FILE = "run.json"
# Which clips there are, and which of them are the test set. What limits training is no part of that.
OF_THE_DATA = (
    "dataset", *EACH, "train_split", "validation_split", "test_split", "validation_share", "test_share",
    "subset_seed",
)  # fmt: skip


def settings_of_run(model: str | os.PathLike, group: str) -> dict[str, Any]:
    """A group of the settings that a checkpoint's run was started with, such as `data`.

    The run's file lies beside the weights, for `checkpoint-600` in the directory above. A model without one,
    such as one on the Hub, has none of these.

    Raises:
        ValueError: the file is damaged.
    """
    directory = Path(model)
    for place in (directory, directory.parent) if directory.name.startswith("checkpoint-") else (directory,):
        if (place / RUN_FILE).is_file():
            run = read_json(place / RUN_FILE)
            settings = run.get(group, {}) if isinstance(run, dict) else None
            if not isinstance(settings, dict):
                raise ValueError(
                    f"{place / RUN_FILE} holds no settings of a run under `{group}`. Restore it from a copy, "
                    "or take it away and give the flags yourself."
                )
            return settings
    return {}


def data_of_run(model: str | os.PathLike) -> dict[str, Any]:
    """The data settings that a checkpoint's run was started with, without those that it left open.

    Raises:
        ValueError: the run's file is damaged.
    """
    data = settings_of_run(model, "data")
    return {name: data[name] for name in OF_THE_DATA if data.get(name) is not None}


def language_of_run(model: str | os.PathLike) -> str | None:
    """The one language that a model was trained on; None if there are several, or nothing says so."""
    language = data_of_run(model).get("language")
    return language if isinstance(language, str) else None


def flags_of_run(argv: Sequence[str]) -> list[str]:
    """Flags of the data that a command line of `eval.py` leaves out and the run of its `--model` states.

    Columns and splits go with the dataset: beside another one they are left out. A file of settings as the
    first argument says all by itself.

    Raises:
        ValueError: the run's file is damaged.
    """
    names = [word.partition("=") for word in argv]
    given = {name.replace("-", "_").lstrip("_") for name, *_ in names if name.startswith("--")}
    if "model" not in given or not argv[0].startswith("-"):
        return []
    model = next(
        value if equals else following
        for (name, equals, value), following in zip(names, [*argv[1:], ""], strict=True)
        if name == "--model"
    )
    data = data_of_run(model)
    if "dataset" in given:
        data = {name: data[name] for name in ("language",) if isinstance(data.get(name), str)}
    return as_flags({name: value for name, value in data.items() if name not in given})
