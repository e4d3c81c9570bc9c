"""Train a SLAM-ASR model: recipe in, checkpoint out.

accelerate launch train.py --keep_layers 22
python train.py recipes/en-small.yaml --keep_layers 10
accelerate launch train.py recipes/nl-medium.yaml --dataset my-speech --output_dir runs/mine
"""

import contextlib
import functools
import logging
import shutil
import signal
import sys
from pathlib import Path
from typing import Any, Literal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback of the imports that Ctrl-C meets

from accelerate import PartialState
from tqdm.contrib.logging import logging_redirect_tqdm
from transformers import EarlyStoppingCallback, TrainerCallback, set_seed

from modeling_slam.common.command_line import clear_errors, parse_arguments
from modeling_slam.common.quantization import check_quantization
from modeling_slam.common.stopping import ends_in_one_line
from modeling_slam.data import DataArguments, DataReport, load_for_run
from modeling_slam.data.collator import SpeechCollator, check_lengths
from modeling_slam.data.mixing import mixture_of, with_shares
from modeling_slam.data.text import in_style, word_counts
from modeling_slam.paper.table1 import beside_paper
from modeling_slam.publishing.arguments import PushArguments
from modeling_slam.publishing.default_run import with_default_recipe
from modeling_slam.publishing.trainer_push import ReleaseCallback, check_destination
from modeling_slam.training.alignment import AlignmentArguments, align, align_folds, wants_head
from modeling_slam.training.any_depth import check_any_depth, hear_any_depth
from modeling_slam.training.arguments import LoraArguments, ModelArguments, RunArguments
from modeling_slam.training.assembly import (
    build_config,
    build_model,
    build_processor,
    check_model,
    encoding_of,
    usual_length,
)
from modeling_slam.training.augmentation import AugmentationArguments, augment
from modeling_slam.training.by_projector import settle
from modeling_slam.training.cross_fitting import dealt
from modeling_slam.training.feature_cache import CacheArguments, FeatureCache
from modeling_slam.training.init_from import fitting, read_start, report, take_trained
from modeling_slam.training.label_loss import check_loss_positions, use_loss_positions
from modeling_slam.training.layers_by_data import choose_by_data
from modeling_slam.training.run_checks import check_best, check_installed
from modeling_slam.training.run_directory import how_to_go_on, run_directory
from modeling_slam.training.run_health import RunError, RunHealth, describe_best
from modeling_slam.training.run_settings import record
from modeling_slam.training.sampling import with_lengths
from modeling_slam.training.sharding import build_whole, check_sharding
from modeling_slam.training.trained_parts import trained_parts_of
from modeling_slam.training.trainer import BeginsRun, SlamTrainer
from modeling_slam.training.upper_layers import layers_to_skip, read_states
from modeling_slam.training.validation import ValidationMetrics, decode_tokens, find_allowed_doubt

logger = logging.getLogger("slam-asr")
GROUPS = {
    "model": ModelArguments, "lora": LoraArguments, "data": DataArguments, "cache": CacheArguments,
    "augment": AugmentationArguments, "align": AlignmentArguments, "run": RunArguments, "push": PushArguments,
}  # fmt: skip
DESCRIPTION = "Train projector and LoRA of a SLAM-ASR model with a pruned Whisper encoder."
USUAL = {
    "encoder", "llm", "keep_layers", "lora_rank", "text_style", "dataset", "language", "text_column",
    "max_train_hours", "augment", "align_epochs", "output_dir", "resume_from_checkpoint", "num_train_epochs",
    "learning_rate", "per_device_train_batch_size", "push_to_hub",
    "hub_model_id",
}  # fmt: skip
DEFAULT_RECIPE = Path(__file__).parent / "recipes" / "nl-medium.yaml"


def main(argv: list[str] | None = None) -> None:
    parse = functools.partial(parse_arguments, *GROUPS.values(), description=DESCRIPTION, usual=USUAL)
    with clear_errors():
        argv = with_default_recipe(list(sys.argv[1:] if argv is None else argv), DEFAULT_RECIPE, parse)
    arguments = parse(argv=argv)
    model_args, lora_args, data_args, cache_args, augment_args, align_args, run_args, push_args = arguments
    logging.basicConfig(
        level=logging.INFO if PartialState().is_main_process else logging.WARNING, format="%(message)s"
    )
    build_whole()
    with contextlib.ExitStack() as stack:
        stack.enter_context(logging_redirect_tqdm())
        stack.enter_context(ends_in_one_line(lambda: how_to_go_on(run_args.output_dir)))
        with clear_errors():
            # Everything that can be wrong with the settings shows before the first data are read.
            check_installed(run_args)
            check_best(run_args, model_args.text_style)
            check_quantization(model_args.quantization, run_args.device)
            check_sharding(run_args, align_args.align_folds, model_args.quantization)
            settle(model_args.projector_type, align_args, run_args)
            augment_args.check_cache(cache_args.cache_features)
            augment_args.check_alignment(align_args.align_augmented)
            settings = record(**dict(zip(GROUPS, arguments, strict=True)))
            run = stack.enter_context(run_directory(run_args, settings))
            config = build_config(model_args, lora_args, run.checkpoint)
            processor = build_processor(model_args, config)
            check_model(config, model_args)
            has_head = wants_head(config, align_args, run_args)
            check_any_depth(config, run_args, augment_args)
            check_loss_positions(run_args.loss_positions, config)
            skipped = layers_to_skip(
                config, cache_args.cache_features, bool(align_args.align_epochs), augment_args.groups
            )
            start = {}
            if run_args.init_from is not None and run.checkpoint is None:
                start = read_start(run_args.init_from, config)
            check_destination(push_args, config, data_args.one_language)

            data, reports, words = {}, {}, {}
            for split in ("train", "validation") if run_args.validates else ("train",):
                data[split], reports[split] = load_split(data_args, run_args, split)
                words = words or word_counts(data["train"]["text"])  # before they are written otherwise
                data[split] = in_style(data[split], model_args.text_style)
                check_lengths(data[split], processor)
            data["train"] = with_shares(data["train"], data_args)
            if (mixture := mixture_of(data["train"], run_args.seed)) is not None:
                logger.info(mixture.describe())
            fitted = {}
            if run.checkpoint is None:
                fitted, run.chosen = choose_by_data(
                    model_args, align_args, cache_args, run_args, config, processor, data["train"]
                )
                if start and run.chosen:  # which layers both models have is known now
                    start = read_start(run_args.init_from, config)
            languages = {language for clips in data.values() for language in clips["language"]}
            usual_seconds = usual_length(data["train"]["duration"])
            processor = build_processor(model_args, config, usual_seconds, languages)
            frames, states, cache = None, None, None
            cache_args.depths = run_args.train_depths or cache_args.depths
            needs_cache = bool(align_args.align_epochs or run_args.train_depths)
            own_cache = needs_cache and cache_args.cache_features is None
            if own_cache:
                cache_args.cache_features = str(Path(run_args.output_dir, "frames"))
            if cache_args.cache_features is not None:
                own = (cache_args, config, processor, encoding_of(model_args, run_args, config))
                cache = FeatureCache(*own)
                if align_args.align_epochs or not config.trains_encoder:
                    heard_anew = {"train"} if align_args.align_augmented else set()
                    kept = {split: clips for split, clips in data.items() if split not in heard_anew}
                    fill = cache.fill if run_args.train_depths else cache.fill_what_fits
                    kept, frames = fill(kept, run_args.dataloader_num_workers)
                    data |= kept
                if skipped:
                    below = FeatureCache(*own, states_at=skipped)
                    data, states = below.fill_what_fits(data, run_args.dataloader_num_workers)
            set_seed(run_args.seed)
            parts = trained_parts_of(
                config, processor.tokenizer, data["train"]["text"], has_head, start | fitted, run.checkpoint
            )
            probed = data.get("validation", data["train"])
            collator, data["train"], epochs = augment(
                augment_args, SpeechCollator(processor, frames, parts.vocabulary), data["train"], run_args
            )
            if run_args.train_depths and cache is not None:
                collator, data["train"], epochs = hear_any_depth(run_args, cache, collator, data["train"])
            callbacks = [BeginsRun(lambda: run.begin(reports, words), bool(run.changed)), *epochs]
            cross_fitted = None
            if align_args.align_epochs and (run.checkpoint is None or align_args.align_folds > 1):
                anew = frames is None or align_args.align_augmented
                encoder = cache.encoder() if cache is not None and anew else None
                stage = (config, parts, align_args, run_args, data, collator, callbacks, encoder)
                if align_args.align_folds > 1:
                    data["train"] = dealt(data["train"], align_args.align_folds)
                    cross_fitted = align_folds(*stage)
                if run.checkpoint is None:
                    parts.weights = align(*stage)
                set_seed(run_args.seed)
            model = build_model(config, processor, model_args, bool(run_args.bf16), parts.weights)
            use_loss_positions(model, run_args.loss_positions)
            if start:
                taken = [*fitting(start, parts.weights or {}), *take_trained(model, start)]
                report(str(run_args.init_from), start, taken, model)
            if config.trains_encoder:
                collator = read_states(model, collator, states, skipped)
            releases = ReleaseCallback(push_args)
            health = RunHealth(probed, collator, bool(align_args.align_epochs))
            trainer = SlamTrainer(
                model=model,
                args=run_args,
                train_dataset=data["train"],
                eval_dataset=data.get("validation"),
                data_collator=collator,
                processing_class=processor,
                compute_metrics=ValidationMetrics(
                    functools.partial(decode_tokens, processor),
                    probed,
                    model_args.text_style,
                ),
                callbacks=[*callbacks, health, releases, *early_stopping(run_args)],
                cross_fitted=cross_fitted,
            )
        logger.info(describe_parameters(model.parameter_counts()))
        logger.info("Processes: %d", run_args.world_size)

        with clear_errors((RunError,)):
            metrics = None
            if run.checkpoint is not None and run.has_ended(run_args.max_steps):
                trainer.restore_ended(run.checkpoint)
                logger.info("The run had ended at step %d; no step is added.", trainer.state.global_step)
            else:
                metrics = trainer.train(resume_from_checkpoint=run.checkpoint).metrics
            processor.max_doubt = find_allowed_doubt(trainer)
            trainer.save_model()
            if metrics is not None:
                trainer.save_metrics("train", metrics)
        trainer.save_state()
        if own_cache and run_args.process_index == 0:
            shutil.rmtree(str(cache_args.cache_features), ignore_errors=True)
        with clear_errors():
            releases.push_result(run_args.output_dir)
    if best := describe_best(trainer.state.log_history, run_args):
        logger.info(best)
    logger.info("The model is in %s. Next: slam-asr eval --help", run_args.output_dir)


def load_split(
    data_args: DataArguments, run_args: RunArguments, split: Literal["train", "validation"]
) -> tuple[Any, DataReport]:
    """One split, with a `length` column to group batches by, and its report, which also goes to the log."""
    # One process of a machine unpacks an archive; the others find it unpacked.
    with PartialState().local_main_process_first():
        directory = run_args.output_dir if PartialState().is_main_process else None
        dataset, report = load_for_run(data_args, split, directory)
    logger.info(report.summary() + beside_paper(report))
    return with_lengths(dataset, run_args.length_column_name), report


def describe_parameters(counts: dict[str, int]) -> str:
    parts = ("encoder_kept", "encoder_removed", "projector", "llm", "llm_removed", "lora")
    parts += tuple(name for name in ("encoder_lora", "encoder_trained", "llm_trained") if counts[name])
    return "Parameters: " + ", ".join(
        f"{name.replace('_', ' ')} {counts[name] / 1e6:.2f} M" for name in (*parts, "trainable")
    )


def early_stopping(run_args: RunArguments) -> list[TrainerCallback]:
    if not run_args.early_stopping_patience or not run_args.load_best_model_at_end:
        return []
    return [EarlyStoppingCallback(run_args.early_stopping_patience)]


if __name__ == "__main__":
    main()
