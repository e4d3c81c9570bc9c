"""The trainer: transformers' Seq2SeqTrainer, validating by transcription, each clip counted once.

Batches come in an order of their own too, so that a resumed run meets the clips it had not met.
Everything else (loop, logging, mixed precision, DDP/FSDP, resuming) is transformers'.
"""

import contextlib
import functools
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import DataLoader, Sampler
from transformers import Seq2SeqTrainer, TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_pt_utils import LengthGroupedSampler

from modeling_slam.data.collator import FOLD
from modeling_slam.data.mixing import mixture_of
from modeling_slam.evaluation.fast_search import transcribe
from modeling_slam.model.lora import part_of
from modeling_slam.model.processing_slam import SlamAsrProcessor
from modeling_slam.training.arguments import RunArguments
from modeling_slam.training.cross_fitting import CrossFitted
from modeling_slam.training.even_batches import REPEATED, EachClipOnce
from modeling_slam.training.run_checks import check_warmup
from modeling_slam.training.run_health import WatchedTrainer
from modeling_slam.training.sampling import (
    Draw,
    DrawnClips,
    SeededLengthGroups,
    SpeechBudgetBatches,
)
from modeling_slam.training.sharding import whole

LISTENING = ("projector", "ctc_head")  # what `freeze_projector_steps` freezes


class SlamTrainer(WatchedTrainer, EachClipOnce, Seq2SeqTrainer):
    """Trains on the transcript's tokens; validates with `generate` on the prompt alone."""

    args: RunArguments
    processing_class: SlamAsrProcessor

    def __init__(self, *args: Any, cross_fitted: CrossFitted | None = None, **kwargs: Any):
        with seen_as_unpacked(kwargs["model"]):
            super().__init__(*args, **kwargs)
        self.cross_fitted = None if cross_fitted is None else cross_fitted.to(self.args.device)
        head = getattr(self.model, "ctc_head", None)
        if head is not None and not self.reads_head:
            head.requires_grad_(False)  # or DDP would wait for its gradients
        # From torch 2.11 on, cuDNN's attention has gradients of NaN for some lengths under a mask on an H100;
        # flash and memory-efficient attention take its place. https://github.com/pytorch/pytorch/issues/196678
        torch.backends.cuda.enable_cudnn_sdp(False)
        self._positions = [0, 0]  # of the batches since the last log line: real ones, and all

    @property
    def reads_head(self) -> bool:
        """Whether a loss reaches the CTC head."""
        model: Any = self.model
        return bool(self.args.ctc_weight) or model.config.llm_input != "projector"

    def get_train_dataloader(self) -> DataLoader:
        if self.args.batch_seconds is None:
            return super().get_train_dataloader()
        dataset: Any = self.train_dataset
        lengths = dataset[self.args.length_column_name][:]  # in hundredths of a second
        batches = SpeechBudgetBatches(
            100 * self.args.batch_seconds, lengths, self._data_seed, self._epoch, self._draw
        )
        loader = DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            persistent_workers=self.args.dataloader_persistent_workers,
            prefetch_factor=self.args.dataloader_prefetch_factor,
            multiprocessing_context=self.args.dataloader_multiprocessing_context or None,
            pin_memory=self.args.dataloader_pin_memory,
            generator=self._worker_seeds(),
        )
        return self.accelerator.prepare(loader)

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> DataLoader:
        loader: Any = super()._get_dataloader(*args, **kwargs)
        loader.base_dataloader.generator = self._worker_seeds()
        return loader

    def _worker_seeds(self) -> torch.Generator:
        """What a loader draws the seed of its workers from: never the random state that dropout draws from.

        How often a loader starts depends on its workers, on validations, and on whether the run was resumed.
        """
        return torch.Generator().manual_seed(self._data_seed)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler | None:
        sampler = self._seeded(super()._get_train_sampler(train_dataset), self._epoch, self._draw)
        if self._draw is None or isinstance(sampler, SeededLengthGroups):
            return sampler
        clips: Any = self.train_dataset
        in_order = self.args.train_sampling_strategy == "sequential"
        return DrawnClips(len(clips), self._data_seed, self._epoch, self._draw, in_order)

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler | None:
        return self._seeded(super()._get_eval_sampler(eval_dataset), lambda: 0)

    def _seeded(
        self, sampler: Sampler | None, epoch: Callable[[], int], draw: Draw | None = None
    ) -> Sampler | None:
        if not isinstance(sampler, LengthGroupedSampler):
            return sampler
        return SeededLengthGroups(sampler.batch_size, list(sampler.lengths), self._data_seed, epoch, draw)

    @functools.cached_property
    def _draw(self) -> Draw | None:
        """Which clips an epoch has, where datasets are mixed by shares."""
        mixture = mixture_of(self.train_dataset, self._data_seed)
        return None if mixture is None else mixture.draw

    @property
    def _data_seed(self) -> int:
        return self.args.seed if self.args.data_seed is None else self.args.data_seed

    def _epoch(self) -> int:
        return int(self.state.epoch or 0)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """As in transformers; each part of what is trained is a group of its own, with its rate."""
        if self.optimizer is None:
            trained: Any = self.model if model is None else model
            decayed = set(self.get_decay_parameter_names(trained))
            groups: dict[tuple[str, bool], list[torch.nn.Parameter]] = {}
            for name, parameter in trained.named_parameters():
                if parameter.requires_grad:
                    part = part_of(name)
                    is_decayed = name in decayed and part != "ctc_head"  # blank, temperature and gate
                    groups.setdefault((part, is_decayed), []).append(parameter)
            optimizer_class, settings = self.get_optimizer_cls_and_kwargs(self.args, trained)
            self.optimizer = optimizer_class(
                [
                    {
                        "params": parameters,
                        "part": part,
                        "lr": self.args.rate_of(part),
                        "weight_decay": self.args.weight_decay if is_decayed else 0.0,
                    }
                    for (part, is_decayed), parameters in groups.items()
                ],
                **settings,
            )
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, *args: Any, **kwargs: Any) -> LRScheduler:
        """As in transformers; projector and head wait for `freeze_projector_steps`."""
        is_new = self.lr_scheduler is None
        check_warmup(self.args, num_training_steps)
        schedule: Any = super().create_scheduler(num_training_steps, *args, **kwargs)
        frozen = self.args.freeze_projector_steps
        if is_new and frozen:
            groups = schedule.optimizer.param_groups
            schedule.lr_lambdas = [
                functools.partial(later, scale, frozen) if group["part"] in LISTENING else scale
                for group, scale in zip(groups, schedule.lr_lambdas, strict=True)
            ]
            for group, rate, scale in zip(groups, schedule.base_lrs, schedule.lr_lambdas, strict=True):
                group["lr"] = rate * scale(0)
        return schedule

    def _clip_grad_norm(self, model: torch.nn.Module) -> torch.Tensor | None:
        """Each part to `max_grad_norm` by itself: the projector's gradient would else starve LoRA's."""
        if self.is_deepspeed_enabled or not self.args.clip_by_part:  # DeepSpeed clips whole models
            return super()._clip_grad_norm(model)
        parts: dict[str, list[torch.nn.Parameter]] = {}
        for name, parameter in self.accelerator.unwrap_model(model).named_parameters():
            if parameter.requires_grad:
                parts.setdefault(part_of(name), []).append(parameter)
        limit = self.args.max_grad_norm
        norms = [self.accelerator.clip_grad_norm_(parameters, limit) for parameters in parts.values()]
        return torch.linalg.vector_norm(torch.stack([torch.as_tensor(whole(norm)) for norm in norms]))

    def compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        fold = inputs.pop(FOLD, None)
        if not model.training:
            return super().compute_loss(model, inputs, *args, **kwargs)
        if self.args.ctc_weight:
            inputs = {**inputs, "ctc_weight": self.args.ctc_weight}
        is_frozen = self.state.global_step < self.args.freeze_projector_steps
        if self.cross_fitted is None or not is_frozen:
            return super().compute_loss(model, inputs, *args, **kwargs)
        unwrapped = self.accelerator.unwrap_model(model)
        inputs = {**inputs, "audio": self.cross_fitted.read(unwrapped, fold, inputs)}
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        # The frozen parts get a gradient of 0, or DDP would wait for one.
        frozen = [
            p for name, p in unwrapped.named_parameters() if p.requires_grad and part_of(name) in LISTENING
        ]
        return loss + 0.0 * sum(parameter.sum() for parameter in frozen)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """As in transformers, which compares with names of the constants of packed weights too."""
        if load_result.missing_keys:  # none are in the alignment stage, whose model leaves nothing out
            model: Any = self.accelerator.unwrap_model(self.model)
            model._keys_to_ignore_on_save = model.left_out() & set(load_result.missing_keys)
        super()._issue_warnings_after_load(load_result)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Moments and the schedule's place are the checkpoint's; rates and decay are those of the settings.

        They are the same unless the run goes on with changed settings, which would have no effect.
        """
        optimizer: Any = self.optimizer
        schedule: Any = self.lr_scheduler
        asked = [dict(group) for group in optimizer.param_groups]
        peaks = list(getattr(schedule, "base_lrs", ()))
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        for group, settings in zip(optimizer.param_groups, asked, strict=True):
            group |= {name: value for name, value in settings.items() if name not in ("params", "lr")}
        if not isinstance(schedule, LambdaLR):  # a rate that follows validations is part of its state
            return
        schedule.base_lrs = peaks
        rates = [
            peak * scale(schedule.last_epoch) for peak, scale in zip(peaks, schedule.lr_lambdas, strict=True)
        ]
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        schedule._last_lr = rates

    def restore_ended(self, checkpoint: str) -> None:
        """Take up what a run gave that had ended in this checkpoint: its best model, or else its last."""
        self.state = TrainerState.load_from_json(str(Path(checkpoint, TRAINER_STATE_NAME)))
        self._load_from_checkpoint(checkpoint)
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint is not None:
            self._load_best_model()

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *args, **kwargs) -> torch.Tensor:
        mask = inputs["attention_mask"]
        self._positions[0] += mask.sum()
        self._positions[1] += mask.numel()
        return super().training_step(model, inputs, *args, **kwargs)

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """Adds the share of padding since the last line, and each part's learning rate where they differ."""
        if "learning_rate" in logs and self.optimizer is not None:
            groups = self.optimizer.param_groups
            rates = {f"learning_rate_{group['part']}": group["lr"] for group in groups if "part" in group}
            if len(set(rates.values())) > 1:  # transformers' own is the first group's, be that frozen
                logs |= {"learning_rate": max(rates.values()), **rates}
        real, positions = self._positions
        if "loss" in logs and positions:
            logs["padding"] = round(1 - int(real) / positions, 4)
            self._positions = [0, 0]
        super().log(logs, *args, **kwargs)

    def evaluation_loop(self, *args, **kwargs):
        # Seq2SeqTrainer keeps the clips that pad the last batch of a distributed run; they would be counted
        # twice.
        self.gather_function = self.accelerator.gather_for_metrics
        return super().evaluation_loop(*args, **kwargs)

    def prediction_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor | Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
        **gen_kwargs: Any,
    ) -> tuple[Any, torch.Tensor | None, Any]:
        """Loss of a batch, its transcripts as new tokens (B, N), and its labels as `labelled` has them."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            clips: Any = self.eval_dataset
            own = self.own_clips_of(inputs, len(clips), self.args.eval_batch_size)
            is_repeated = own.pop(REPEATED, False)  # its loss is left out when all are gathered
            loss = model(**(inputs if is_repeated else own)).loss
            self.note_loss(loss)
            if prediction_loss_only or not self.args.predict_with_generate:
                return loss, None, None
            tokens = transcribe(
                self.accelerator.unwrap_model(model),
                **prompts_of(inputs, self.processing_class.pad_token_id),
                num_beams=self.args.generation_num_beams or 1,
                max_new_tokens=self.args.generation_max_new_tokens,
                max_tokens_per_second=self.args.generation_max_tokens_per_second,
            )
        return loss, tokens, self.labelled(inputs["labels"])

    def labelled(self, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Labels (B, L) of the batch at hand, and the rows (B, 1) of the validation that they are of."""
        rows = [self._validation_rows[clip] for clip in self._clips]
        return labels, torch.tensor(rows, device=labels.device)[:, None]

    @functools.cached_property
    def _validation_rows(self) -> dict[str, int]:
        clips: Any = self.eval_dataset
        return {clip: row for row, clip in enumerate(clips["id"])}


@contextlib.contextmanager
def seen_as_unpacked(model: Any) -> Generator[None]:
    """transformers refuses a packed model without PEFT's adapters around it; ours trains parts of its own."""
    is_packed = vars(model).pop("is_quantized", None)
    try:
        yield
    finally:
        if is_packed is not None:
            model.is_quantized = is_packed


def later(scale: Callable[[int], float], frozen_steps: int, step: int) -> float:
    """A schedule that is 0 for the first steps."""
    return 0.0 if step < frozen_steps else scale(step)


class BeginsRun(TrainerCallback):
    """Records a run when it really begins: `begin` is called once.

    A run that goes on with changed settings (`changed`) begins with its first step, so that a start that
    fails before it leaves the record of the settings as it was.
    """

    def __init__(self, begin: Callable[[], None], changed: bool):
        self.begin, self.waits = begin, changed

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self.waits:
            self.begin()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.waits:
            self.begin()
            self.waits = False


def prompts_of(inputs: dict[str, torch.Tensor], pad_token_id: int) -> dict[str, torch.Tensor]:
    """The prompts of a training batch, left-padded: what comes before the first label of each row."""
    lengths = (inputs["labels"] != -100).int().argmax(dim=1)
    rows = [ids[:length] for ids, length in zip(inputs["input_ids"], lengths, strict=True)]
    masks = [torch.ones_like(row) for row in rows]
    text = {"input_ids", "attention_mask", "labels", "ctc_targets"}
    return {name: tensor for name, tensor in inputs.items() if name not in text} | {
        "input_ids": pad_sequence(rows, batch_first=True, padding_value=pad_token_id, padding_side="left"),
        "attention_mask": pad_sequence(masks, batch_first=True, padding_side="left"),
    }
