"""`python -m benchmarks.whisper_finetuning`: Whisper fine-tuned on the same clips for the same wall clock.

    python -m benchmarks.whisper_finetuning --model DIR --dataset DIR --language en --minutes 60 --output_dir runs/tuned
    python eval.py --model runs/tuned --baseline whisper --num_beams 1 --dataset DIR --language en --output_dir ...

What a researcher would do instead of SLAM-ASR: transformers' own Seq2SeqTrainer trains all weights of encoder
and decoder on the transcripts as ours are (lower case, no punctuation), behind Whisper's prompt for language
and task. AdamW at 1e-5 without weight decay, 16 clips a step, warm-up, linear decay, bf16 on GPUs that have it.

The clock decides: training ends when the time is up, validations on the way included, and the learning rate
follows the share of the time that has passed, so it has decayed whatever a step takes. The clock starts with
the first step, and the last validation comes after it. The weights of the best WER in validation are kept.

Every clip is padded to 30 s, because transformers' Whisper refuses other lengths: a step costs the same for
short clips. Sources: https://huggingface.co/papers/2212.04356, https://huggingface.co/blog/fine-tune-whisper
(rate, batch, labels).
"""  # noqa: E501 (commands to be copied)

import functools
import json
import logging
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import (
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
    WhisperFeatureExtractor,
    set_seed,
)
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from modeling_slam.common.command_line import clear_errors, parse_arguments
from modeling_slam.common.files import check_writable, write_json
from modeling_slam.common.numbers import check_numbers
from modeling_slam.common.stopping import ends_in_one_line
from modeling_slam.data import DataArguments, load_speech
from modeling_slam.data.collator import check_clip_lengths
from modeling_slam.evaluation.arguments import EvaluationArguments
from modeling_slam.evaluation.report import package_versions
from modeling_slam.evaluation.settings import check_checkpoint
from modeling_slam.evaluation.whisper_baseline import WhisperRecogniser, check_baseline, whisper_features
from modeling_slam.model.audio_io import load_audio
from modeling_slam.training.arguments import bf16_is_native
from modeling_slam.training.validation import ValidationMetrics, decode_tokens

DESCRIPTION = "Fine-tune a whole Whisper with transformers' Seq2SeqTrainer until the wall clock ends it."
USAGE = "python -m benchmarks.whisper_finetuning [SETTINGS.yaml] --model DIR --dataset DIR --minutes N [...]"
NO_END = 10**9  # steps: the clock ends training and asks for validations


@dataclass
class FinetuningArguments:
    """Which Whisper is fine-tuned, how, and how long"""

    model: str = field(metadata={"help": "Whisper: a Hub id or a directory."})
    output_dir: str = field(metadata={"help": "Receives the checkpoint, for eval.py, and finetuning.json."})
    minutes: float = field(metadata={"help": "Wall clock of training, validations on the way included."})
    validate_minutes: float = field(
        default=10.0, metadata={"help": "Minutes of training between two validations."}
    )
    batch_size: int = field(default=16, metadata={"help": "Clips per step."})
    learning_rate: float = field(default=1e-5, metadata={"help": "Peak learning rate of AdamW."})
    warmup: float = field(default=0.1, metadata={"help": "Share of the time in which the rate rises."})
    seed: int = field(default=42, metadata={"help": "Seed of the order of clips and of dropout."})
    num_workers: int = field(
        default=1, metadata={"help": "Processes that read audio and make features; 0 for none of their own."}
    )

    def __post_init__(self):
        check_numbers(self, ("minutes", "validate_minutes", "learning_rate"), above=0)
        check_numbers(self, ("batch_size",), at_least=1)
        check_numbers(self, ("warmup",), at_least=0, below=1)
        check_numbers(self, ("num_workers",), at_least=0)


class WallClock(TrainerCallback):
    """Ends training when its time is up, asks for validations on the way, and sets the learning rate."""

    def __init__(self, minutes: float, validate_minutes: float, warmup: float):
        self.seconds, self.interval, self.warmup = 60 * minutes, 60 * validate_minutes, warmup
        self.started: float | None = None
        self.next_validation = self.interval

    @property
    def elapsed(self) -> float:
        """Seconds since training began."""
        return 0.0 if self.started is None else time.monotonic() - self.started

    def rate_factor(self, step: int) -> float:
        """What the peak learning rate is multiplied by now, at whatever step."""
        share = self.elapsed / self.seconds
        return share / self.warmup if share < self.warmup else max(0.0, (1 - share) / (1 - self.warmup))

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.started = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = self.elapsed >= self.seconds
        control.should_evaluate = control.should_training_stop or self.elapsed >= self.next_validation

    def on_evaluate(self, *args: Any, **kwargs: Any) -> None:
        self.next_validation = self.elapsed + self.interval


class TimedTrainer(Seq2SeqTrainer):
    """transformers' trainer, whose learning rate follows a clock instead of steps."""

    def __init__(self, clock: WallClock, **kwargs: Any):
        super().__init__(callbacks=[clock], **kwargs)
        self.clock = clock

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LRScheduler:
        scheduled: Any = self.optimizer if optimizer is None else optimizer
        self.lr_scheduler = LambdaLR(scheduled, self.clock.rate_factor)
        return self.lr_scheduler


@dataclass
class WhisperCollator:
    """Rows of `load_speech` in, batches for Whisper out.

    Labels are prompt, transcript and end-of-text without the first token, (B, L), -100 behind each;
    `decoder_input_ids` the same without the last. Made here, because `config.json` of a converted checkpoint
    may name another start token than its generation settings do.
    """

    feature_extractor: WhisperFeatureExtractor
    tokenizer: Any  # its prefix is the prompt

    def token_ids(self, texts: list[str]) -> list[list[int]]:
        # Whisper writes a space before the first word too; without it the model would have to unlearn that.
        return self.tokenizer([f" {text}" for text in texts])["input_ids"]

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        features = whisper_features(self.feature_extractor, [load_audio(row["audio"]) for row in rows])
        written = [torch.tensor(ids) for ids in self.token_ids([row["text"] for row in rows])]
        read, labels = [ids[:-1] for ids in written], [ids[1:] for ids in written]
        return {
            "input_features": features["input_features"],
            "decoder_input_ids": pad_sequence(read, True, self.tokenizer.eos_token_id),
            "labels": pad_sequence(labels, True, -100),
        }


def main(argv: list[str] | None = None) -> None:
    arguments, data_args = parse_arguments(
        FinetuningArguments, DataArguments, description=DESCRIPTION, argv=argv, usage=USAGE
    )
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with ends_in_one_line(lambda: f"The best weights so far are below {arguments.output_dir}."):
        finetune(arguments, data_args)


def finetune(arguments: FinetuningArguments, data_args: DataArguments) -> None:
    directory = Path(arguments.output_dir)
    # Decodes as `eval.py` will, with weights that can be trained.
    decoding = EvaluationArguments(
        arguments.model, arguments.output_dir, baseline="whisper", num_beams=1, dtype="float32"
    )
    with clear_errors():
        check_writable(directory, "output_dir")
        if directory.is_dir() and any(directory.iterdir()):
            raise ValueError(f"`output_dir` {directory} is not empty, and no run goes on. Name another.")
        if data_args.dataset_weights or data_args.dataset_temperature:
            raise ValueError("Every clip is met once an epoch here; leave out weights and temperature.")
        check_checkpoint(arguments.model, "whisper")
        data, reports = {}, {}
        for split in ("train", "validation"):
            data[split], reports[split] = load_speech(data_args, split)
            logging.info(reports[split].summary())
            check_clip_lengths(data[split])
            if len(set(data[split]["language"])) > 1:
                raise ValueError("A Whisper is fine-tuned on one language here; name its datasets alone.")
            language = check_baseline(decoding, data[split])
        recogniser = WhisperRecogniser(decoding, torch.device("cpu"), language)  # the trainer moves it
        prepare(recogniser)
        collator = WhisperCollator(recogniser.feature_extractor, recogniser.tokenizer)
        for clips in data.values():
            check_transcripts(clips, collator, recogniser.model.config.max_target_positions)

    set_seed(arguments.seed)
    clock = WallClock(arguments.minutes, arguments.validate_minutes, arguments.warmup)
    decode = functools.partial(decode_tokens, collator.tokenizer)
    trainer = TimedTrainer(
        clock,
        model=recogniser.model,
        args=trainer_arguments(arguments, decoding.max_new_tokens),
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        data_collator=collator,
        processing_class=recogniser.tokenizer,
        compute_metrics=ValidationMetrics(decode, data["validation"]),
    )
    trainer.train()
    facts = {
        "settings": asdict(arguments),
        "seconds": round(clock.elapsed, 1),
        **figures(trainer.state),
        "parameters": recogniser.parameter_counts(),
        "versions": package_versions(),
        "data": {split: report.to_dict() for split, report in reports.items()},
    }
    trainer.save_model()
    recogniser.feature_extractor.save_pretrained(directory)
    for left in directory.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        shutil.rmtree(left)
    write_json(directory / "finetuning.json", facts)
    logging.info(
        "The best of %d steps, by validation, is in %s: %s",
        trainer.state.global_step, directory, json.dumps(facts["best"]),
    )  # fmt: skip


def prepare(recogniser: WhisperRecogniser) -> None:
    """Settings that transformers would take from files which some converters leave out."""
    tokenizer, model = recogniser.tokenizer, recogniser.model
    tokenizer.set_prefix_tokens(**recogniser.prompt)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    # The trainer would put 20 where there is no limit, and save that.
    settings = {"max_length": model.config.max_target_positions, **recogniser.prompt}
    for name, value in settings.items():  # `update` knows no language
        setattr(model.generation_config, name, value)


def trainer_arguments(arguments: FinetuningArguments, max_new_tokens: int) -> Seq2SeqTrainingArguments:
    return Seq2SeqTrainingArguments(
        output_dir=arguments.output_dir,
        max_steps=NO_END,
        per_device_train_batch_size=arguments.batch_size,
        per_device_eval_batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        seed=arguments.seed,
        bf16=bf16_is_native(),
        eval_strategy="steps",
        eval_steps=NO_END,
        predict_with_generate=True,
        generation_max_length=max_new_tokens,
        save_strategy="best",
        save_only_model=True,
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="wer",
        greater_is_better=False,
        dataloader_num_workers=arguments.num_workers,
        remove_unused_columns=False,
        label_names=["labels"],
        logging_steps=10,
        disable_tqdm=True,
        report_to="none",
    )


def check_transcripts(clips: Any, collator: WhisperCollator, most: int) -> None:
    """Say before training which transcript Whisper's decoder cannot write.

    Raises:
        ValueError: a transcript with its prompt has more than `most` tokens.
    """
    for clip, ids in zip(clips["id"], collator.token_ids(clips["text"][:]), strict=True):
        if len(ids) > most:
            raise ValueError(
                f"The transcript of {clip} has {len(ids)} tokens and Whisper's decoder writes at most "
                f"{most}. Correct the transcript, or leave the clip out."
            )


def figures(state: Any) -> dict[str, Any]:
    """How far training came, and what its validations gave."""
    found = [entry for entry in state.log_history if "eval_wer" in entry]
    validations = [
        {name: entry[f"eval_{name}"] for name in ("wer", "cer", "loss")}
        | {"step": entry["step"], "seconds": entry["eval_runtime"]}
        for entry in found
    ]
    return {
        "steps": state.global_step,
        "epochs": state.epoch,
        "best": min(validations, key=lambda validation: validation["wer"]),
        "validations": validations,
    }


if __name__ == "__main__":
    main()
