"""Which layers does each choice keep, and why? A picture and a table in a minute, without a training.

    python -m modeling_slam.training.compare_layers recipes/digits-en.yaml --output_dir runs/layers --keep 4 3

Some minutes of the training data go through the unpruned encoder once. Out come the similarities between its
layers and what each row of `LAYER_CHOICES` keeps, with its scores. `ctc_greedy` aligns a CTC head for each
layer that it drops, which takes minutes on a CPU: leave it out by `--choices`. What is computed is kept for
the runs that share `--cache_features`.
"""

import contextlib
import dataclasses
import io
import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")  # files only, so a machine without a screen will do

from accelerate import PartialState
from matplotlib import pyplot as plt

from modeling_slam.common.command_line import clear_errors, parse_arguments
from modeling_slam.common.files import write_bytes, write_json, write_text
from modeling_slam.common.stopping import ends_in_one_line
from modeling_slam.data import DataArguments
from modeling_slam.training.alignment import AlignmentArguments
from modeling_slam.training.arguments import LoraArguments, ModelArguments, RunArguments
from modeling_slam.training.assembly import build_config, build_processor
from modeling_slam.training.augmentation import AugmentationArguments
from modeling_slam.training.calibration import ClipCalibration
from modeling_slam.training.depth_probe import read_splits
from modeling_slam.training.feature_cache import CacheArguments
from modeling_slam.training.layer_choice import LAYER_CHOICES, choose_layers
from modeling_slam.training.layer_similarity import MEASURES
from modeling_slam.training.run_directory import held

DESCRIPTION = "Similarity between the layers of an encoder, and what each choice of layers keeps."
USAGE = "python -m modeling_slam.training.compare_layers [RECIPE.yaml] [--flag value ...]"
FILE = "layer_choices"


@dataclass
class CompareArguments:
    """What is compared"""

    keep: list[int] = field(
        default_factory=list, metadata={"help": "Numbers of layers to keep; half of them if not given."}
    )
    choices: list[str] = field(
        default_factory=list, metadata={"help": "Choices to compare; every one if not given."}
    )

    def __post_init__(self):
        if unknown := [name for name in self.choices if name not in LAYER_CHOICES]:
            raise ValueError(f"`choices` must be among {', '.join(LAYER_CHOICES)}, got {unknown[0]!r}.")


def main(argv: list[str] | None = None) -> None:
    argv = list(sys.argv[1:] if argv is None else argv)
    groups = (
        CompareArguments, ModelArguments, LoraArguments, DataArguments, CacheArguments,
        AugmentationArguments, AlignmentArguments, RunArguments,
    )  # fmt: skip
    arguments = parse_arguments(*groups, description=DESCRIPTION, argv=argv, usage=USAGE)
    logging.basicConfig(
        level=logging.INFO if PartialState().is_main_process else logging.WARNING, format="%(message)s"
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(ends_in_one_line(lambda: "The same command goes on where it stopped."))
        stack.enter_context(clear_errors())
        if PartialState().is_main_process:
            stack.enter_context(held(Path(arguments[-1].output_dir)))
        compare(*arguments)


def compare(
    compare_args: CompareArguments,
    model_args: ModelArguments,
    lora_args: LoraArguments,
    data_args: DataArguments,
    cache_args: CacheArguments,
    _augment_args: AugmentationArguments,
    align_args: AlignmentArguments,
    run_args: RunArguments,
) -> dict[str, Any]:
    """What layer_choices.json holds: similarities, and for each number of layers what each choice keeps.

    Raises:
        ValueError: a number of layers that the encoder does not have.
    """
    model_args.keep_layers, model_args.layer_choice = None, "top_down"
    model_args.kept_encoder_layers = None
    config = build_config(model_args, lora_args)
    layers = config.num_encoder_layers
    if wrong := [n for n in compare_args.keep if not 1 <= n <= layers]:
        raise ValueError(f"`keep` must be between 1 and {layers}, the layers of the encoder, got {wrong[0]}.")
    processor = build_processor(model_args, config)
    train = read_splits(("train",), model_args, data_args, run_args, processor)["train"]
    calibration = ClipCalibration(model_args, align_args, cache_args, run_args, config, processor, train)
    similarities = calibration.similarities()
    choices = {
        str(n): {
            name: dataclasses.asdict(choose_layers(name, calibration.stack, n))
            for name in compare_args.choices or LAYER_CHOICES
        }
        for n in compare_args.keep or [max(1, layers // 2)]
    }
    result = {
        "encoder": model_args.encoder,
        "layers": layers,
        **calibration.describe(),
        "similarities": similarities,
        "choices": choices,
    }
    if PartialState().is_main_process:
        write_results(result, Path(run_args.output_dir))
    return result


def write_results(result: dict[str, Any], directory: Path) -> None:
    """layer_choices.json, .md and .png in `directory`; the table goes to standard output too."""
    write_json(directory / f"{FILE}.json", result)
    lines = ["| choice | " + " | ".join(f"{n} layers kept" for n in result["choices"]) + " | scores |"]
    lines += ["|---" * (len(result["choices"]) + 2) + "|"]
    for name in next(iter(result["choices"].values())):
        kept = [layer_names(chosen[name]["layers"]) for chosen in result["choices"].values()]
        scores = "; ".join(scores_line(chosen[name]["scores"]) for chosen in result["choices"].values())
        lines.append(f"| {name} | {' | '.join(kept)} | {scores.strip('; ')} |")
    write_text(directory / f"{FILE}.md", "\n".join(lines) + "\n")
    print("\n".join(lines))
    figure = drawn(result)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    write_bytes(directory / f"{FILE}.png", picture.getvalue())
    plt.close(figure)


def layer_names(kept: list[Any]) -> str:
    """`0 1+2 3`: merged layers with a plus between them."""
    return " ".join("+".join(map(str, layer)) if isinstance(layer, list) else str(layer) for layer in kept)


def scores_line(scores: dict[str, Any]) -> str:
    """The numbers that decided, each behind its layer, those of a greedy choice step by step."""
    tables = [step["loss_without_layer"] for step in scores.get("steps", ())]
    tables += [table for name, table in scores.items() if name != "steps"]
    return "; ".join(" ".join(f"{layer}: {value:.4f}" for layer, value in table.items()) for table in tables)


def drawn(result: dict[str, Any]) -> Any:
    """Heat maps of the measures between states above, the layers that each choice keeps below."""
    choices, layers = result["choices"], result["layers"]
    names = [*next(iter(choices.values()))]
    rows = 1 + len(choices)
    figure = plt.figure(figsize=(13, 3.4 + 0.6 * len(choices) + 0.24 * len(names) * len(choices)))
    grid = figure.add_gridspec(
        rows, len(MEASURES), height_ratios=[3.0] + [0.6 + 0.24 * len(names)] * len(choices), hspace=0.45
    )
    for place, name in enumerate(MEASURES):
        axis = figure.add_subplot(grid[0, place])
        image = axis.imshow(result["similarities"][name], origin="lower", cmap="viridis")
        axis.set(title=name.replace("_", " "), xlabel="state above layer", ylabel="state above layer")
        ticks = range(0, layers + 1, max(1, layers // 8))
        labels = ["in", *(str(tick - 1) for tick in ticks if tick)]
        axis.set_xticks([*ticks], labels)
        axis.set_yticks([*ticks], labels)
        figure.colorbar(image, ax=axis, fraction=0.046)
    for place, (n, chosen) in enumerate(choices.items(), start=1):
        axis = figure.add_subplot(grid[place, :])
        for row, name in enumerate(names):
            for layer in chosen[name]["layers"]:
                group = layer if isinstance(layer, list) else [layer]
                axis.barh(row, len(group) - 0.1, left=group[0] - 0.45, height=0.8, color="tab:blue")
        axis.set(xlim=(-0.6, layers - 0.4), title=f"{n} layers kept", xlabel="layer")
        axis.set_xticks(range(layers))
        axis.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
        axis.invert_yaxis()
    figure.subplots_adjust(left=0.12, right=0.97, top=0.95, bottom=0.07, wspace=0.45)
    return figure


if __name__ == "__main__":
    main()
