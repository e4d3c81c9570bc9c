"""How many encoder layers does a language need? An answer in minutes, without the LLM.

    python -m modeling_slam.training.depth_probe recipes/digits-en.yaml --output_dir runs/probe

The encoder runs once over the clips and gives the frames of all depths; then projector and CTC head are
aligned at each depth (`alignment.py`), and what the head reads of the validation clips is scored. A table and
a plot come out. Stopped, the same command goes on. With another `--layer_choice` than top_down the layers of
a depth are those it keeps, and the encoder runs once for each depth.
"""

import contextlib
import copy
import io
import logging
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import matplotlib

matplotlib.use("agg")  # files only, so a machine without a screen will do

from accelerate import PartialState
from matplotlib import pyplot as plt
from transformers import set_seed

from modeling_slam import SlamAsrProcessor
from modeling_slam.common.command_line import clear_errors, parse_arguments, program
from modeling_slam.common.files import read_json, write_bytes, write_json, write_text
from modeling_slam.common.stopping import ends_in_one_line
from modeling_slam.data import DataArguments, load_speech
from modeling_slam.data.collator import SpeechCollator, check_lengths
from modeling_slam.data.mixing import with_shares
from modeling_slam.data.text import in_style
from modeling_slam.training.alignment import AlignmentArguments, align, wants_head
from modeling_slam.training.arguments import LoraArguments, ModelArguments, RunArguments
from modeling_slam.training.assembly import build_config, build_processor, encoding_of
from modeling_slam.training.augmentation import AugmentationArguments, augment
from modeling_slam.training.calibration import ClipCalibration, refitted
from modeling_slam.training.feature_cache import CacheArguments, FeatureCache
from modeling_slam.training.layer_choice import choose_layers
from modeling_slam.training.run_directory import ALIGNMENT, ALIGNMENT_FILE, held
from modeling_slam.training.run_settings import Settings, changes, record
from modeling_slam.training.sampling import with_lengths
from modeling_slam.training.trained_parts import trained_parts_of

DESCRIPTION = "Error rate of the CTC head at every depth of the encoder: which depths are worth a full run?"
PROGRAM = "modeling_slam.training.depth_probe"
USUAL = {
    "depths", "encoder", "llm", "dataset", "language", "max_train_hours", "align_epochs", "align_batch_size",
    "align_learning_rate", "projector_type", "projector_stack", "cache_features", "output_dir", "seed",
}  # fmt: skip
SETTINGS_FILE = "settings.json"
ALIGN_EPOCHS = 6.0  # where the recipe does not align


@dataclass
class ProbeArguments:
    """Which depths are tried"""

    depths: list[int] = field(
        default_factory=list, metadata={"help": "Numbers of kept layers to try; every one if not given."}
    )


def main(argv: list[str] | None = None) -> None:
    argv = list(sys.argv[1:] if argv is None else argv)
    groups = (
        ProbeArguments, ModelArguments, LoraArguments, DataArguments, CacheArguments, AugmentationArguments,
        AlignmentArguments, RunArguments,
    )  # fmt: skip
    usage = f"{program(PROGRAM)} [RECIPE] [--flag value ...]"
    arguments = parse_arguments(*groups, description=DESCRIPTION, argv=argv, usage=usage, usual=USUAL)
    logging.basicConfig(
        level=logging.INFO if PartialState().is_main_process else logging.WARNING, format="%(message)s"
    )
    with ends_in_one_line(lambda: "The same command goes on where it stopped."), clear_errors():
        directory = Path(arguments[-1].output_dir)
        with held(directory) if PartialState().is_main_process else contextlib.nullcontext():
            probe(*arguments)


def probe(
    probe_args: ProbeArguments,
    model_args: ModelArguments,
    lora_args: LoraArguments,
    data_args: DataArguments,
    cache_args: CacheArguments,
    augment_args: AugmentationArguments,
    align_args: AlignmentArguments,
    run_args: RunArguments,
) -> list[dict[str, Any]]:
    """One row a depth, from the deepest: `layers`, `wer`, `cer` and `loss` of the head on validation clips.

    Raises:
        ValueError: a depth that the encoder does not have, or settings that cannot be aligned.
    """
    if not run_args.validates:
        raise ValueError("The probe scores the validation clips: leave out `eval_strategy no`.")
    if align_args.align_augmented:
        raise ValueError("The probe aligns on encoder frames that are cached: leave out `align_augmented`.")
    align_args.align_epochs = align_args.align_epochs or ALIGN_EPOCHS
    config = build_config(model_args, lora_args)
    wants_head(config, align_args, run_args)
    depths = sorted(probe_args.depths or range(1, config.num_encoder_layers + 1), reverse=True)
    config.num_encoder_layers = depths[0]  # so many there must be
    processor = build_processor(model_args, config)
    data = read_splits(("train", "validation"), model_args, data_args, run_args, processor)
    directory = Path(run_args.output_dir)
    settings = record(model=model_args, data=data_args, align=align_args, augment=augment_args, run=run_args)
    check_settings(directory / SETTINGS_FILE, settings)
    calibration = ClipCalibration(
        model_args, align_args, cache_args, run_args, config, processor, data["train"]
    )
    own_frames = cache_args.cache_features is None
    cache_args.cache_features = cache_args.cache_features or str(directory / "frames")
    is_nested = model_args.layer_choice == "top_down"  # the layers of a depth are the lowest of a larger one
    rows, cache, cached = [], None, {}
    for depth in depths:
        pruned, run = copy.deepcopy(config), copy.copy(run_args)
        if is_nested:
            pruned.num_encoder_layers = depth
        else:
            chosen = choose_layers(model_args.layer_choice, calibration.stack, depth)
            pruned.kept_encoder_layers = chosen.layers
        if cache is None or not is_nested:
            cache_args.depths = depths if is_nested else []
            cache = FeatureCache(cache_args, pruned, processor, encoding_of(model_args, run_args, pruned))
            cached, _ = cache.fill(data, run_args.dataloader_num_workers)
        frames = cache.store.reader(cache.spaces[depth])
        run.output_dir = str(directory / f"{depth:02d}-layers")
        fitted = refitted(calibration, pruned)
        set_seed(run.seed)
        parts = trained_parts_of(pruned, processor.tokenizer, data["train"]["text"], True, fitted)
        collator, clips, epochs = augment(
            augment_args, SpeechCollator(processor, frames, parts.vocabulary), cached["train"], run
        )
        align(pruned, parts, align_args, run, cached | {"train": clips}, collator, epochs)
        figures = read_json(Path(run.output_dir, ALIGNMENT, ALIGNMENT_FILE))
        rows.append(
            {
                "layers": depth,
                "kept": pruned.kept_encoder_layers,
                **figures["best"],
                "seconds": figures["seconds"],
            }
        )
    if PartialState().is_main_process:
        write_results(rows, directory)
        if own_frames:
            shutil.rmtree(str(cache_args.cache_features), ignore_errors=True)
    return rows


def read_splits(
    splits: Iterable[Literal["train", "validation"]],
    model_args: ModelArguments,
    data_args: DataArguments,
    run_args: RunArguments,
    processor: SlamAsrProcessor,
) -> dict[str, Any]:
    """The clips of each split, in the run's text style, with lengths, and shares where it trains on them."""
    data = {}
    for split in splits:
        data[split], report = load_speech(data_args, split)
        logging.getLogger("slam-asr").info(report.summary())
        check_lengths(data[split], processor)
        data[split] = in_style(data[split], model_args.text_style)
        data[split] = with_lengths(data[split], run_args.length_column_name)
    data["train"] = with_shares(data["train"], data_args)
    return data


def check_settings(file: Path, settings: Settings) -> None:
    """A probe goes on with the settings that it began with; other depths may join.

    Raises:
        ValueError: the directory holds a probe with others.
    """
    changed = changes(read_json(file), settings) if file.exists() else {}
    if changed:
        raise ValueError(
            f"`output_dir` {file.parent} holds a probe with other settings: {', '.join(sorted(changed))}. "
            "Name another directory."
        )
    if PartialState().is_main_process:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, settings)


def write_results(rows: list[dict[str, Any]], directory: Path) -> None:
    """depth_probe.json, .md and .png in `directory`; the table goes to standard output too."""
    write_json(directory / "depth_probe.json", rows)
    lines = ["| layers kept | WER of the CTC head | CER | loss a token |", "|---|---|---|---|"]
    lines += [
        f"| {row['layers']} | {100 * row['wer']:.1f} % | {100 * row['cer']:.1f} % | {row['loss']:.3f} |"
        for row in rows
    ]
    write_text(directory / "depth_probe.md", "\n".join(lines) + "\n")
    print("\n".join(lines))
    figure, axis = plt.subplots(figsize=(5, 3.5), layout="constrained")
    layers = [row["layers"] for row in rows]
    axis.plot(layers, [100 * row["wer"] for row in rows], color="tab:red", marker="o")
    axis.set(xlabel="encoder layers kept", ylim=(0, None))
    axis.set_ylabel("WER of the CTC head, validation (%)", color="tab:red")
    axis.invert_xaxis()
    loss_axis = axis.twinx()
    loss_axis.plot(layers, [row["loss"] for row in rows], color="tab:blue", marker="s", linestyle="--")
    loss_axis.set_ylabel("CTC loss a token", color="tab:blue")
    loss_axis.set_ylim(0, None)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    write_bytes(directory / "depth_probe.png", picture.getvalue())
    plt.close(figure)


if __name__ == "__main__":
    main()
