"""Settings of a training run, typed and checked on creation; the defaults are the paper's.

Architecture settings are handed to `SlamAsrConfig`, which explains and checks them. `RunArguments` are
transformers' `Seq2SeqTrainingArguments` with the paper's values as defaults.

Source: https://huggingface.co/papers/2603.27981, sections 4.2 and 4.3; epochs and learning-rate floor from
its code
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from transformers import Seq2SeqTrainingArguments
from transformers.trainer_utils import HubStrategy
from transformers.utils import is_torch_bf16_gpu_available

from modeling_slam.model.audio_lengths import MAX_TOKENS_PER_SECOND
from modeling_slam.model.processing_slam import INSTRUCTION


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
        metadata={"help": "Whisper whose encoder is used: a Hub id or a directory."},
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
        default=None, metadata={"help": "Encoder layers to keep, counted from the bottom; all if not given."}
    )
    kept_layer_indices: list[int] | None = field(
        default=None,
        metadata={
            "help": "Indices of the encoder layers to keep, for other strategies than cutting the top."
        },
    )
    projector_type: str = field(
        default="stack_mlp", metadata={"help": "Projector: stack_mlp, conv or qformer."}
    )
    projector_stack: int = field(default=5, metadata={"help": "Encoder frames of 20 ms per audio token."})
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
    instruction: str = field(
        default=INSTRUCTION,
        metadata={"help": "What the LLM reads between audio and transcript."},
    )
    pad_to_seconds: float | None = field(
        default=None,
        metadata={"help": "Pad every clip to this length; its own length if not given, 30 is Whisper's way."},
    )
    frozen_dtype: Literal["auto", "float32", "bfloat16"] = field(
        default="auto",
        metadata={"help": "Type of the frozen weights; auto is bfloat16 when training in bf16."},
    )
    attn_implementation: str | None = field(
        default=None, metadata={"help": "Attention of encoder and LLM: sdpa, eager, flash_attention_2."}
    )


@dataclass
class LoraArguments:
    """LoRA: which LLM weights learn beside the projector (https://huggingface.co/papers/2106.09685)"""

    lora_rank: int = field(default=16, metadata={"help": "Rank of the update; 0 trains the projector alone."})
    lora_alpha: int = field(default=32, metadata={"help": "The update is scaled by alpha / rank."})
    lora_dropout: float = field(default=0.1, metadata={"help": "Dropout before LoRA's first matrix."})
    lora_target_modules: list[str] = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj"],
        metadata={"help": "Linear layers of the LLM that LoRA adapts."},
    )


@dataclass
class RunArguments(Seq2SeqTrainingArguments):
    """Training run"""

    output_dir: str = field(  # ty: ignore[incompatible-mutable-override] (a run has a directory)
        default="", metadata={"help": "Directory of the run: checkpoints, logs, the best model."}
    )
    learning_rate: float = field(default=1e-4, metadata={"help": "Peak learning rate of AdamW."})
    weight_decay: float = field(default=0.01, metadata={"help": "AdamW's weight decay."})
    max_grad_norm: float = field(default=1.0, metadata={"help": "Gradients are clipped to this norm."})
    lr_scheduler_type: str = field(default="cosine_with_min_lr", metadata={"help": "Learning-rate schedule."})
    lr_scheduler_kwargs: dict | str | None = field(
        default_factory=lambda: {"min_lr_rate": 0.1},
        metadata={"help": "Its settings: a floor of 10 %% of the peak."},
    )
    warmup_steps: float = field(
        default=0.05, metadata={"help": "Linear warm-up: steps, or a share of all if below 1."}
    )
    num_train_epochs: float = field(default=6.0, metadata={"help": "Passes over the training data."})
    max_steps: int = field(default=-1, metadata={"help": "Optimizer steps; overrides the number of epochs."})
    per_device_train_batch_size: int = field(default=4, metadata={"help": "Clips per device and step."})
    batch_seconds: float | None = field(
        default=None,
        metadata={"help": "Seconds of speech per device and step, instead of a number of clips."},
    )
    per_device_eval_batch_size: int = field(default=8, metadata={"help": "Clips per device in validation."})
    gradient_accumulation_steps: int = field(default=1, metadata={"help": "Batches per optimizer step."})
    train_sampling_strategy: str = field(
        default="group_by_length",
        metadata={"help": "How clips are put into batches; by length saves padding."},
    )
    bf16: bool | None = field(  # ty: ignore[incompatible-attribute-override] (until checked)
        default=None, metadata={"help": "bf16 autocast; by default on GPUs that compute in it."}
    )
    dataloader_num_workers: int = field(
        default=2, metadata={"help": "Processes that decode audio and compute mel."}
    )
    dataloader_persistent_workers: bool = field(
        default=True, metadata={"help": "Keep these processes from one epoch to the next."}
    )
    eval_strategy: str = field(default="epoch", metadata={"help": "When to validate: no, steps or epoch."})
    eval_steps: float | None = field(
        default=None, metadata={"help": "Steps between validations (eval_strategy steps)."}
    )
    generation_num_beams: int | None = field(default=1, metadata={"help": "Beams in validation."})
    generation_max_new_tokens: int = field(
        default=200, metadata={"help": "Longest transcript in validation, in tokens."}
    )
    generation_max_tokens_per_second: int = field(
        default=MAX_TOKENS_PER_SECOND,
        metadata={"help": "Longest transcript in validation, in tokens per second of its clip."},
    )
    save_strategy: str = field(
        default="epoch", metadata={"help": "When to save a checkpoint: no, steps, epoch or best."}
    )
    save_steps: float = field(
        default=500, metadata={"help": "Steps between checkpoints (save_strategy steps)."}
    )
    save_total_limit: int | None = field(
        default=2, metadata={"help": "Checkpoints kept, the best one among them."}
    )
    load_best_model_at_end: bool = field(
        default=True, metadata={"help": "Finish with the checkpoint of lowest WER."}
    )
    metric_for_best_model: str | None = field(
        default="wer", metadata={"help": "Validation metric: wer, cer or loss."}
    )
    greater_is_better: bool | None = field(
        default=False, metadata={"help": "Whether a higher metric is better."}
    )
    early_stopping_patience: int = field(
        default=3, metadata={"help": "Stop after this many validations without a better one; 0 never does."}
    )
    logging_steps: float = field(default=10, metadata={"help": "Steps between log lines."})
    report_to: str | list[str] = field(  # ty: ignore[incompatible-mutable-override] (the list makes flags)
        default_factory=lambda: ["none"],
        metadata={"help": "Trackers that transformers knows: tensorboard, wandb and others."},
    )
    resume_from_checkpoint: str | None = field(
        default=None, metadata={"help": "A checkpoint directory, or `last` for the newest one in output_dir."}
    )
    push_to_hub: bool = field(
        default=False,
        metadata={"help": "Publish the model on the Hub, with its card; see docs/publishing.md."},
    )
    hub_model_id: str | None = field(
        default=None, metadata={"help": "owner/name on the Hub, such as me/slam-medium-22L-lora-nl."}
    )
    hub_strategy: str = field(
        default="every_save", metadata={"help": "When to push: every_save (checkpoints too) or end."}
    )
    seed: int = field(default=42, metadata={"help": "Seed of initialisation, order and dropout."})
    predict_with_generate: bool = field(default=True, metadata={"help": "Validate by transcribing."})
    restore_callback_states_from_checkpoint: bool = field(
        default=True, metadata={"help": "A resumed run remembers how long it has waited for a better score."}
    )
    # What follows is how this project's datasets and model work, not a choice.
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Must stay off: the collator reads the columns."}
    )
    label_names: list[str] | None = field(
        default_factory=lambda: ["labels"], metadata={"help": "Names of the targets."}
    )
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "Frozen weights need no search."}
    )

    def __post_init__(self):
        if not self.output_dir:
            raise ValueError("`output_dir` is missing: name a directory for the run.")
        if self.early_stopping_patience < 0:
            raise ValueError(
                f"`early_stopping_patience` must be 0 or more, got {self.early_stopping_patience}."
            )
        if self.batch_seconds is not None and self.batch_seconds <= 0:
            raise ValueError(f"`batch_seconds` must be positive, got {self.batch_seconds}.")
        if self.bf16 is None:
            self.bf16 = bf16_is_native() and not self.use_cpu
        if self.bf16 and not torch.accelerator.is_available():
            self.use_cpu = True  # or transformers takes bf16 for a setting of GPUs
        self.dataloader_persistent_workers = self.dataloader_persistent_workers and bool(
            self.dataloader_num_workers
        )
        if self.eval_strategy == "no":
            self.load_best_model_at_end = False
        if self.save_strategy == "no":
            self.load_best_model_at_end = False
        super().__post_init__()
        if self.label_smoothing_factor:
            raise ValueError(
                "`label_smoothing_factor` is not supported: the loss is computed at labels alone."
            )
        if self.validates and not self.predict_with_generate and self.metric_for_best_model in ("wer", "cer"):
            raise ValueError(
                "Without `predict_with_generate` there is no WER; set `metric_for_best_model loss`."
            )
        self._check_push()
        if self.remove_unused_columns:
            raise ValueError("`remove_unused_columns` must stay off: the collator reads audio and text.")

    def _check_push(self) -> None:
        if self.hub_token is not None:
            raise ValueError(
                "`hub_token` would be stored in the run's files. Log in by `hf auth login`, or set HF_TOKEN."
            )
        if self.push_to_hub and self.hub_model_id is None:
            raise ValueError("`push_to_hub` needs `hub_model_id`: owner/name on the Hub.")
        if self.push_to_hub and self.hub_strategy not in (HubStrategy.END, HubStrategy.EVERY_SAVE):
            raise ValueError(
                f"`hub_strategy` must be every_save or end, got {HubStrategy(self.hub_strategy).value}: "
                "whole checkpoints hold pickled optimizer state, which is not published."
            )

    @property
    def validates(self) -> bool:
        return self.eval_strategy != "no"
