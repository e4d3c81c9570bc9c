"""The axes of a study: what its runs may differ in, one row each.

A row says where the axis' values stand in the study file, what a value changes about a run's flags, how it is
written in a run's name, and what the column or the plot's axis is called. Any flag of `train.py` that the
study does not give itself becomes an axis by one row, named as the flag; a study file then spans it by that
name, and its values are a column of the index:

    "learning_rate": Axis("learning rate", "lr{:g}")          the row
    learning_rate: [1.0e-4, 3.0e-4]                           a study file that spans it

The axis `llm` takes names, each with its model, and `variant` is over anything: names, each with the flags
that it changes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modeling_slam.study.grid import Pair
    from modeling_slam.study.study_file import StudyFile

Chosen = Mapping[str, Any]  # axis -> value, of one run


@dataclass(frozen=True)
class Axis:
    """One thing that the runs of a study may differ in, under its name in `AXES`.

    Attributes:
        title: for people, as a table's column or a plot's axis.
        label: a value in a run's name, as a format.
        values: of a study file, given what is chosen on the axes before it. Without, they are the list that
            stands in the file under the axis' name, and a file need not span the axis.
        flags: what a value sets for `train.py`, for an encoder on a dataset. Without, the flag of that name.
    """

    title: str
    label: str
    values: Callable[["StudyFile", Chosen], Sequence[Any]] | None = None
    flags: Callable[[Any, "Pair"], dict[str, Any]] | None = None


# In the order of a run's name: base-4L-lora-en-5h-s42, base-4L-top_down-smollm-lora-en-s42.
AXES: dict[str, Axis] = {
    "encoder": Axis(
        "encoder", "{}",
        values=lambda file, chosen: list(file.encoders),
        flags=lambda name, pair: {"encoder": pair.encoder.model},
    ),
    "keep_layers": Axis(
        "encoder layers kept", "{}L",
        values=lambda file, chosen: depths(file, chosen["encoder"], chosen["language"]),
    ),
    "layer_choice": Axis("choice of layers", "{}"),
    "llm": Axis("LLM", "{}", flags=lambda name, pair: {"llm": pair.llms[name]}),
    "keep_llm_layers": Axis("LLM layers kept", "llm{}"),
    "mode": Axis(
        "trained", "{}",
        values=lambda file, chosen: file.modes,
        flags=lambda mode, pair: pair.lora_flags(mode),
    ),
    "encoder_lora_rank": Axis("rank of the encoder's LoRA", "e{}"),
    "projector_type": Axis("projector", "{}"),
    "projector_stack": Axis("frames per audio token", "stack{}"),
    "language": Axis(
        "language", "{}",
        values=lambda file, chosen: list(file.datasets),
        flags=lambda language, pair: {"dataset": pair.recorded_dataset, "language": language},
    ),
    "max_train_hours": Axis("hours of training speech", "{:g}h"),
    "variant": Axis("variant", "{}", flags=lambda name, pair: pair.variants[name]),
    "seed": Axis("seed", "s{}", values=lambda file, chosen: file.seeds),
}  # fmt: skip
# Chosen first, the outermost first; the others follow in the table's order, the last one changing fastest.
FIRST = ("seed", "language", "encoder")
# Spanned only by the files that name them.
FURTHER = [name for name, axis in AXES.items() if axis.values is None]


def combinations(file: "StudyFile") -> Iterator[dict[str, Any]]:
    """What is chosen for each run of the grid, by axis.

    Raises:
        ValueError: an axis has no values, or one twice.
    """
    spanned: list[dict[str, Any]] = [{}]
    for name in (*FIRST, *(name for name in AXES if name not in FIRST)):
        if name in FURTHER and name not in file.axes:
            continue
        spanned = [chosen | {name: value} for chosen in spanned for value in values_of(name, file, chosen)]
    return iter(spanned)


def values_of(name: str, file: "StudyFile", chosen: Chosen) -> list[Any]:
    values = AXES[name].values
    found = file.axes[name] if values is None else list(values(file, chosen))
    where = f"{chosen['encoder']} on {chosen['language']}: " if "encoder" in chosen else ""
    check_list(f"{where}{name}", found)
    return list(found)


def check_list(name: str, values: Any) -> None:
    if (
        not isinstance(values, list | dict)
        or not values
        or None in values
        or len(set(map(repr, values))) < len(values)
    ):
        raise ValueError(f"`{name}` must name at least one, each once; got {values}.")


def depths(file: "StudyFile", encoder: str, language: str) -> list[int]:
    """The encoder's depths, or those of them that the dataset allows."""
    allowed = file.datasets[language].keep_layers
    return [depth for depth in file.encoders[encoder].keep_layers if allowed is None or depth in allowed]


def name_of(chosen: Chosen) -> str:
    """The name of a run: the labels of the axes that its study spans."""
    return "-".join(axis.label.format(chosen[name]) for name, axis in AXES.items() if name in chosen)


def flags_of(chosen: Chosen, pair: "Pair") -> dict[str, Any]:
    """What the chosen values set for `train.py`."""
    flags: dict[str, Any] = {}
    for name, value in chosen.items():
        own = AXES[name].flags
        flags |= {name: value} if own is None else own(value, pair)
    return flags
