"""Settings of a training run, typed and checked on creation; the defaults are the paper's.

Architecture settings are handed to `SlamAsrConfig`, which explains and checks them. `RunArguments` are
transformers' `Seq2SeqTrainingArguments` with the paper's values as defaults.

Source: https://huggingface.co/papers/2603.27981, sections 4.2 and 4.3; epochs and learning-rate floor from
its code
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from transformers import SchedulerType, Seq2SeqTrainingArguments
from transformers.utils import is_torch_bf16_gpu_available

from modeling_slam.common.command_line import fixed
from modeling_slam.common.numbers import check_numbers
from modeling_slam.common.quantization import Quantization
from modeling_slam.model.audio_lengths import MAX_TOKENS_PER_SECOND
from modeling_slam.model.configuration_slam import FINAL_LAYER_NORMS, LLM_INPUTS, TextStyle
from modeling_slam.model.processing_slam import INSTRUCTION
from modeling_slam.model.projectors import PROJECTORS
from modeling_slam.training.by_projector import by_projector, settle
from modeling_slam.training.layer_choice import LAYER_CHOICES
from modeling_slam.training.llm_layers import LLM_LAYER_CHOICES
from modeling_slam.training.run_checks import (
    VALIDATION_METRICS,
    check_run_numbers,
    check_validation,
    schedule_settings,
)


def bf16_is_native() -> bool:
    """Whether there is an accelerator that computes in bf16; CPUs and older GPUs emulate it, slowly."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.accelerator.is_available() and is_torch_bf16_gpu_available()


@dataclass
class ModelArguments:
    """Base models, pruning and projector"""

    encoder: str = field(
        default="openai/whisper-medium",
        metadata={"help": "Model whose speech encoder is used: a Hub id or a directory."},
    )
    llm: str = field(
        default="Qwen/Qwen2.5-3B", metadata={"help": "Causal LM that writes: a Hub id or a directory."}
    )
    encoder_revision: str | None = field(
        default=None, metadata={"help": "Revision of the encoder; the newest is pinned if none is given."}
    )
    llm_revision: str | None = field(
        default=None, metadata={"help": "Revision of the LLM; the newest is pinned if none is given."}
    )
    keep_layers: int | None = field(
        default=None, metadata={"help": "Encoder layers to keep; all if not given."}
    )
    layer_choice: str = field(
        default="top_down",
        metadata={
            "help": "Which layers are kept: top_down cuts from the top, so the lowest are; see "
            "docs/layer-choice.md.",
            "choices": LAYER_CHOICES,
        },
    )
    kept_encoder_layers: list[int] | None = field(
        default=None, metadata={"help": "The layers to keep, by index, instead of a choice."}
    )
    final_layer_norm: str = field(
        default="as_is",
        metadata={
            "help": "The encoder's final LayerNorm, fitted to the last layer: as it is, refitted on "
            "calibration clips, or trained with the projector.",
            "choices": FINAL_LAYER_NORMS,
        },
    )
    calibration_minutes: float = field(
        default=5.0,
        metadata={"help": "Training speech that layers are chosen by, or the LayerNorm refitted on."},
    )
    calibration_seed: int = field(default=0, metadata={"help": "Seed of the draw of these clips."})
    keep_llm_layers: int | None = field(
        default=None, metadata={"help": "LLM layers to keep; all if not given."}
    )
    llm_layer_choice: str = field(
        default="top_down",
        metadata={
            "help": "Which LLM layers are kept: the lowest, or all but the block that turns its input least.",
            "choices": LLM_LAYER_CHOICES,
        },
    )
    kept_llm_layers: list[int] | None = field(
        default=None, metadata={"help": "The LLM layers to keep, by index, instead of a choice."}
    )
    projector_type: str = field(default="stack_mlp", metadata={"help": "Projector.", "choices": PROJECTORS})
    projector_stack: int = field(default=4, metadata={"help": "Encoder frames of 20 ms per audio token."})
    projector_tail: Literal["pad", "drop"] = field(
        default="pad",
        metadata={"help": "Pad the last audio token, or drop frames that do not fill it (the paper's code)."},
    )
    projector_hidden_size: int | None = field(
        default=None,
        metadata={"help": "Width inside the projector; if not given its own: 2048, for a qformer 768."},
    )
    projector_dropout: float = field(default=0.1, metadata={"help": "Dropout inside the projector."})
    projector_queries: int | None = field(
        default=None, metadata={"help": "Audio tokens per clip of a qformer projector."}
    )
    projector_layers: int = field(default=8, metadata={"help": "Transformer layers of a qformer projector."})
    projector_context: int | None = by_projector(
        "projector_context", "Audio tokens that a stack_mlp projector sees around each; 1 is the paper's."
    )
    projector_frame_dropout: float = field(
        default=0.0, metadata={"help": "Share of encoder frames hidden from the projector while training."}
    )
    projector_scale: float | None = field(
        default=None,
        metadata={"help": "Factor on its output; by default that of the LLM's embeddings, 1 is the paper's."},
    )
    llm_input: str | None = by_projector(
        "llm_input",
        "What the LLM reads: the projector's output, the CTC head's expected embedding, or both by a gate.",
        choices=LLM_INPUTS,
    )
    drop_blanks: float | None = by_projector(
        "drop_blanks",
        "Leave out audio tokens that the CTC head holds for blank above this probability; 1 keeps all.",
    )
    instruction: str = field(
        default=INSTRUCTION,
        metadata={"help": "What the LLM reads between audio and transcript."},
    )
    text_style: TextStyle = field(
        default="normalized",
        metadata={"help": "What the model learns to write: normalized text, or as it is written."},
    )
    pad_to_seconds: float | None = field(
        default=None,
        metadata={"help": "Pad every clip to this length; its own length if not given, 30 is Whisper's way."},
    )
    frozen_dtype: Literal["auto", "float32", "bfloat16"] = field(
        default="auto",
        metadata={"help": "Type of the frozen weights; auto is bfloat16 when training in bf16."},
    )
    quantization: Quantization | None = field(
        default=None,
        metadata={"help": "Linear layers of the frozen LLM in fewer bits, by bitsandbytes (QLoRA)."},
    )
    attn_implementation: str | None = field(
        default=None, metadata={"help": "Attention of encoder and LLM: sdpa, eager, flash_attention_2."}
    )

    def __post_init__(self):
        check_numbers(self, ("calibration_minutes",), above=0)
        check_numbers(self, ("calibration_seed",), at_least=0, below=2**32)
        settle(self.projector_type, self)


@dataclass
class LoraArguments:
    """What is trained beside the projector, by LoRA (https://huggingface.co/papers/2106.09685) or itself"""

    lora_rank: int = field(default=16, metadata={"help": "Rank of the LLM's update; 0 is without."})
    lora_alpha: int = field(default=32, metadata={"help": "The update is scaled by alpha / rank."})
    lora_dropout: float = field(default=0.1, metadata={"help": "Dropout before LoRA's first matrix."})
    lora_target_modules: list[str] = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj"],
        metadata={"help": "Linear layers of the LLM that LoRA adapts."},
    )
    encoder_lora_rank: int = field(
        default=0, metadata={"help": "Rank of the encoder's update; 0 is without."}
    )
    encoder_lora_alpha: int = field(
        default=32, metadata={"help": "The encoder's update is scaled by alpha / rank."}
    )
    encoder_lora_dropout: float = field(default=0.1, metadata={"help": "Dropout before its first matrix."})
    encoder_lora_target_modules: list[str] = field(
        default_factory=lambda: ["q_proj", "v_proj"],
        metadata={"help": "Linear layers of the encoder that LoRA adapts."},
    )
    train_encoder_layers: int = field(
        default=0, metadata={"help": "So many of the topmost kept encoder layers are trained themselves."}
    )
    train_llm: bool = field(default=False, metadata={"help": "Train the LLM itself; needs --lora_rank 0."})


@dataclass
class RunArguments(Seq2SeqTrainingArguments):
    """Training run"""

    help_sections: ClassVar[dict[str, str]] = {
        "learning_rate": "Optimizer and learning rate",
        "per_device_train_batch_size": "Batches",
        "eval_strategy": "Validation",
        "save_strategy": "Checkpoints, and which of them the run ends with",
        "logging_steps": "Log",
    }

    output_dir: str = field(  # ty: ignore[incompatible-mutable-override] (a run has a directory)
        default="", metadata={"help": "Directory of the run: checkpoints, logs, the best model."}
    )
    resume_from_checkpoint: str | None = field(
        default=None, metadata={"help": "A checkpoint directory, or `last` for the newest one in output_dir."}
    )
    init_from: str | None = field(
        default=None,
        metadata={
            "help": "A model whose projector, CTC head and LoRA a new run begins with, where they fit."
        },
    )
    resume_anyway: bool = field(
        default=False,
        metadata={"help": "Go on with other settings than the run began with; run.json records the change."},
    )
    seed: int = field(default=42, metadata={"help": "Seed of initialisation, order and dropout."})
    num_train_epochs: float = field(default=6.0, metadata={"help": "Passes over the training data."})
    max_steps: int = field(default=-1, metadata={"help": "Optimizer steps; overrides the number of epochs."})
    bf16: bool | None = field(  # ty: ignore[incompatible-attribute-override] (until checked)
        default=None, metadata={"help": "bf16 autocast; by default on GPUs that compute in it."}
    )
    learning_rate: float = field(default=1e-4, metadata={"help": "Peak learning rate of AdamW."})
    projector_learning_rate: float | None = field(
        default=None, metadata={"help": "Peak rate of the projector, if it is another one."}
    )
    ctc_learning_rate: float | None = field(
        default=None, metadata={"help": "Peak rate of the CTC head, if it is another one."}
    )
    lora_learning_rate: float | None = field(
        default=None, metadata={"help": "Peak rate of the LLM's LoRA, if it is another one."}
    )
    encoder_lora_learning_rate: float | None = field(
        default=None, metadata={"help": "Peak rate of the encoder's LoRA, if it is another one."}
    )
    encoder_learning_rate: float | None = field(
        default=None, metadata={"help": "Peak rate of trained encoder layers, if it is another one."}
    )
    llm_learning_rate: float | None = field(
        default=None, metadata={"help": "Peak rate of a trained LLM, if it is another one."}
    )
    freeze_projector_steps: int = field(
        default=0, metadata={"help": "Steps for which projector and CTC head stay as they are."}
    )
    train_depths: list[int] = field(
        default_factory=list,
        metadata={"help": "Each batch is heard at one of these numbers of kept layers, drawn by the seed."},
    )
    ctc_weight: float | None = by_projector("ctc_weight", "Weight of the CTC head's loss beside the LLM's.")
    lr_scheduler_type: str = field(
        default="cosine_with_min_lr",
        metadata={"help": "Learning-rate schedule.", "choices": [kind.value for kind in SchedulerType]},
    )
    lr_scheduler_kwargs: dict | str | None = field(
        default=None,
        metadata={"help": "Its settings; where it has a floor, that is 10 %% of the peak if not given."},
    )
    warmup_steps: float = field(
        default=0.05, metadata={"help": "Linear warm-up: steps, or a share of all if below 1."}
    )
    weight_decay: float = field(default=0.01, metadata={"help": "AdamW's weight decay."})
    clip_by_part: bool = field(
        default=True, metadata={"help": "Clip projector, CTC head, LoRA and the rest each by itself."}
    )
    max_grad_norm: float = field(default=1.0, metadata={"help": "Gradients are clipped to this norm."})
    per_device_train_batch_size: int = field(default=4, metadata={"help": "Clips per device and step."})
    batch_seconds: float | None = field(
        default=None,
        metadata={"help": "Seconds of speech per device and step, instead of a number of clips."},
    )
    gradient_accumulation_steps: int = field(default=1, metadata={"help": "Batches per optimizer step."})
    loss_positions: int | None = field(
        default=None, metadata={"help": "Labels whose logits are in memory at once; all if not given."}
    )
    train_sampling_strategy: Literal["group_by_length", "random", "sequential"] = field(  # ty: ignore[incompatible-mutable-override]
        default="group_by_length",
        metadata={"help": "How clips are put into batches; by length saves padding."},
    )
    dataloader_num_workers: int = field(
        default=2, metadata={"help": "Processes that decode audio and compute mel."}
    )
    dataloader_persistent_workers: bool = field(
        default=True, metadata={"help": "Keep these processes from one epoch to the next."}
    )
    eval_strategy: Literal["no", "steps", "epoch"] = field(  # ty: ignore[incompatible-mutable-override]
        default="epoch", metadata={"help": "When to validate."}
    )
    eval_steps: float | None = field(
        default=None, metadata={"help": "Steps between validations (eval_strategy steps)."}
    )
    per_device_eval_batch_size: int = field(default=8, metadata={"help": "Clips per device in validation."})
    predict_with_generate: bool = field(
        default=True, metadata={"help": "Validate by transcribing; else there is a loss and no WER."}
    )
    generation_num_beams: int | None = field(default=1, metadata={"help": "Beams in validation."})
    generation_max_new_tokens: int = field(
        default=200, metadata={"help": "Longest transcript in validation, in tokens."}
    )
    generation_max_tokens_per_second: int = field(
        default=MAX_TOKENS_PER_SECOND,
        metadata={"help": "Longest transcript in validation, in tokens per second of its clip."},
    )
    save_strategy: Literal["no", "steps", "epoch", "best"] = field(  # ty: ignore[incompatible-mutable-override]
        default="epoch", metadata={"help": "When to save a checkpoint."}
    )
    save_steps: float = field(
        default=500, metadata={"help": "Steps between checkpoints (save_strategy steps)."}
    )
    save_total_limit: int | None = field(
        default=2, metadata={"help": "Checkpoints kept, the best one among them."}
    )
    load_best_model_at_end: bool = field(
        default=True, metadata={"help": "Finish with the checkpoint of the best metric."}
    )
    metric_for_best_model: str = field(  # ty: ignore[incompatible-mutable-override]
        default="wer",
        metadata={"help": "Which validation metric is best when lowest.", "choices": VALIDATION_METRICS},
    )
    early_stopping_patience: int = field(
        default=3, metadata={"help": "Stop after this many validations without a better one; 0 never does."}
    )
    logging_steps: float = field(default=10, metadata={"help": "Steps between log lines."})
    report_to: str | list[str] = field(  # ty: ignore[incompatible-mutable-override] (the list makes flags)
        default_factory=lambda: ["none"],
        metadata={"help": "Trackers that transformers knows: tensorboard, wandb and others."},
    )
    # How this project's data and model work is no choice; what would do nothing, or harm, is none either.
    remove_unused_columns: bool = fixed(False, "must stay off: the collator reads audio and text.")
    label_names: list[str] | None = field(
        init=False, default_factory=lambda: ["labels"], metadata={"refused": "follow from the model."}
    )
    length_column_name: str = fixed("length", "follows from the data.")
    ddp_find_unused_parameters: bool | None = fixed(False, "must stay off: frozen weights need no search.")
    restore_callback_states_from_checkpoint: bool = fixed(True, "must stay on: early stopping goes on.")
    ignore_data_skip: bool = fixed(False, "must stay off: a resumed run meets the clips it had not met.")
    dataloader_in_order: bool = fixed(True, "must stay on: the order of clips follows from the seed.")
    logging_nan_inf_filter: bool = fixed(False, "must stay off: a loss that is not finite ends the run.")
    save_only_model: bool = fixed(False, "must stay off: a run goes on from its optimizer's state.")
    enable_jit_checkpoint: bool = fixed(
        False, "would let a stopped run look finished; `save_strategy steps` keeps what was trained."
    )
    greater_is_better: bool | None = fixed(None, "follows from `metric_for_best_model`.")
    prediction_loss_only: bool = fixed(False, "is `predict_with_generate false` here.")
    generation_max_length: int | None = fixed(None, "is `generation_max_new_tokens` here.")
    generation_config: Any = field(
        init=False, default=None, metadata={"refused": "does nothing; see the settings `generation_...`."}
    )
    label_smoothing_factor: float = fixed(0.0, "is not supported: the loss is computed at labels alone.")
    use_cache: bool = fixed(False, "does nothing in training; validation keeps a cache by itself.")
    use_liger_kernel: bool = fixed(False, "does nothing here: Liger does not know this model.")
    liger_kernel_config: dict | None = field(
        init=False, default=None, metadata={"refused": "does nothing here, as `use_liger_kernel` does."}
    )
    torch_compile: bool = fixed(False, "is not supported: each length of a batch would be compiled anew.")
    torch_compile_backend: str | None = fixed(None, "is not supported, as `torch_compile` is not.")
    torch_compile_mode: str | None = fixed(None, "is not supported, as `torch_compile` is not.")
    auto_find_batch_size: bool = fixed(
        False, "is not supported: the batch decides the result, so set `per_device_train_batch_size`."
    )
    optim_target_modules: Any = field(
        init=False, default=None, metadata={"refused": "does nothing: the LLM's matrices are frozen."}
    )
    parallelism_config: Any = field(init=False, default=None, metadata={"refused": "is not supported."})
    include_for_metrics: list[str] = field(
        init=False, default_factory=list, metadata={"refused": "does nothing: metrics read transcripts."}
    )
    batch_eval_metrics: bool = fixed(False, "is not supported: error rates are those of all clips together.")
    eval_do_concat_batches: bool = fixed(True, "must stay on: error rates are those of all clips together.")
    eval_use_gather_object: bool = fixed(False, "does nothing here.")
    fp16_full_eval: bool = fixed(False, "does nothing here: validation computes as training does.")
    bf16_full_eval: bool = fixed(False, "does nothing here: validation computes as training does.")
    debug: Any = field(
        init=False, default="", metadata={"refused": "is not supported: its search does not know masks."}
    )
    sortish_sampler: bool = fixed(False, "does nothing; see `train_sampling_strategy`.")
    do_train: bool = fixed(False, "does nothing: train.py trains.")
    do_eval: bool = fixed(False, "does nothing; see `eval_strategy`.")
    do_predict: bool = fixed(False, "does nothing: eval.py tests.")
    # The trainer pushes nothing: `PushArguments` and a callback of `publishing` do.
    push_to_hub: bool = fixed(False)
    hub_model_id: str | None = fixed(None)
    hub_strategy: str = fixed("every_save")
    hub_private_repo: bool | None = fixed(None)
    hub_always_push: bool = fixed(False)
    hub_revision: str | None = fixed(None)
    hub_token: str | None = fixed(
        None, "would be stored in the run's files. Log in by `hf auth login`, or set HF_TOKEN."
    )

    def __post_init__(self):
        if not self.output_dir:
            raise ValueError("`output_dir` is missing: name a directory for the run.")
        check_run_numbers(self)
        check_validation(self)
        if self.bf16 is None:
            self.bf16 = bf16_is_native() and not self.use_cpu
        if self.bf16 and not torch.accelerator.is_available():
            self.use_cpu = True  # or transformers takes bf16 for a setting of GPUs
        self.dataloader_persistent_workers = self.dataloader_persistent_workers and bool(
            self.dataloader_num_workers
        )
        if "no" in (self.eval_strategy, self.save_strategy):
            self.load_best_model_at_end = False
        self.greater_is_better = False  # of an error rate or a loss
        self.lr_scheduler_kwargs = schedule_settings(self)
        super().__post_init__()

    def rate_of(self, part: str) -> float:
        """Peak learning rate of one of the `PARTS` of model/lora.py."""
        own = {
            "projector": self.projector_learning_rate,
            "ctc_head": self.ctc_learning_rate,
            "lora": self.lora_learning_rate,
            "encoder_lora": self.encoder_lora_learning_rate,
            "encoder": self.encoder_learning_rate,
            "llm": self.llm_learning_rate,
        }
        rate = own[part]
        return self.learning_rate if rate is None else rate

    @property
    def validates(self) -> bool:
        return self.eval_strategy != "no"
