"""SLAM-ASR: a frozen, pruned Whisper encoder, a trained projector, a frozen causal LM with or without LoRA.

    audio -> mel -> Whisper encoder, first N layers -> projector -> LLM + LoRA -> text
                    frozen                             trained      frozen   trained

The prompt holds one placeholder per audio token; the projector's outputs take their places. `B` clips, `F`
mel frames, `T` encoder frames, `A` audio tokens of the longest clip, `L` prompt or sequence length.

Source: SLAM-ASR, https://huggingface.co/papers/2402.08846; layer pruning,
https://huggingface.co/papers/2603.27981
"""

import copy
import functools
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    GenerationMixin,
    LogitsProcessorList,
)
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import CausalLMOutputWithPast

from .adapters import is_trained
from .audio_lengths import ENCODER_STRIDE, MAX_TOKENS_PER_SECOND, transcript_budget
from .beam_search import TranscriptGuard, is_covered, search
from .checkpoints import SlamAsrPreTrainedModel
from .configuration_slam import SlamAsrConfig
from .frozen_linear import FrozenLinear, freeze_linears
from .label_loss import LabelLoss
from .llm_traits import LlmTraits, traits_of
from .projectors import PROJECTORS
from .whisper_encoder import PrunedWhisperEncoder

if TYPE_CHECKING:  # never imported here: this line makes `save_pretrained` copy the pipeline's file too
    from .pipeline_slam import SlamAsrPipeline  # noqa: F401


class SlamAsrForConditionalGeneration(SlamAsrPreTrainedModel, GenerationMixin):  # ty: ignore[incompatible-method-override]
    """Speech in, text out. Train `model.projector` and the LLM's LoRA; everything else stays frozen."""

    base_model_prefix = ""
    main_input_name = "input_features"
    input_modalities = ["audio", "text"]  # noqa: RUF012 (transformers declares a list)
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _no_split_modules = ["WhisperEncoderLayer"]  # noqa: RUF012 (transformers declares a list)
    # The loss divides by `num_items_in_batch` itself, so accumulated and distributed batches weigh every
    # label alike.
    accepts_loss_kwargs = True

    def __init__(self, config: SlamAsrConfig):
        super().__init__(config)
        # The encoder is no `PreTrainedModel` that would choose for itself.
        if config.audio_config._attn_implementation is None:
            config.audio_config._attn_implementation = config._attn_implementation
        self.loss_type = None  # by the class name Trainer would count the labels as if they were shifted
        self.encoder = PrunedWhisperEncoder(config.audio_config, len(config.encoder_layer_indices))
        self.projector = PROJECTORS[config.projector_type](config)
        self.language_model = AutoModelForCausalLM.from_config(config.text_config)
        freeze_linears(self.language_model)
        if config.trained_in_float32:
            self._keep_in_fp32_modules_strict = {"projector", "lora_"}
        self.post_init()
        if config.adds_lora:
            self._inject_lora()
        self.freeze()

    # ---------------------------------------------------------------- what learns

    def freeze(self) -> None:
        """Leave gradients to the projector and LoRA; loading turns them on everywhere and calls this."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(is_trained(name))
        self._keys_to_ignore_on_save = self._left_out()  # Trainer looks it up when it resumes

    def train(self, mode: bool = True) -> "SlamAsrForConditionalGeneration":
        """Training mode for what learns; the frozen parts stay as they are, their dropout never acts."""
        super().train(mode)
        self.encoder.eval()
        for name, module in self.language_model.named_modules():
            recomputes = isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing
            module.training = mode and ("lora_" in name or recomputes)
        return self

    def parameter_counts(self) -> dict[str, int]:
        """Parameters by part; `encoder_removed` is what the full encoder has beyond the kept layers."""
        layer = sum(p.numel() for p in self.encoder.layers[0].parameters())
        removed_layers = self.config.audio_config.encoder_layers - len(self.encoder.layers)
        counts = {
            "encoder_kept": sum(p.numel() for p in self.encoder.parameters()),
            "encoder_removed": layer * removed_layers,
            "projector": sum(p.numel() for p in self.projector.parameters()),
            "lora": sum(p.numel() for n, p in self.language_model.named_parameters() if ".lora_" in n),
            "llm": sum(p.numel() for n, p in self.language_model.named_parameters() if ".lora_" not in n),
            "trainable": sum(p.numel() for p in self.parameters() if p.requires_grad),
        }
        counts["total"] = counts["encoder_kept"] + counts["projector"] + counts["lora"] + counts["llm"]
        return counts

    # ---------------------------------------------------------------- forward

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.get_output_embeddings()

    def audio_embeddings(
        self,
        input_features: torch.Tensor | None,
        input_features_mask: torch.Tensor | None = None,
        encoder_frames: torch.Tensor | None = None,
        encoder_frames_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, M, F) log-mel, or the encoder's (B, T, D_enc) frames of it, -> (B, A, D_llm) audio tokens, and
        the (B,) number of them that are real.
        """
        if encoder_frames is None:
            with torch.no_grad():
                encoder_frames, encoder_frames_mask = self.encoder(input_features, input_features_mask)
        elif encoder_frames_mask is None:
            encoder_frames_mask = encoder_frames.new_ones(encoder_frames.shape[:2], dtype=torch.bool)
        # The trained weights may be kept in another dtype than the frozen ones.
        frames = encoder_frames.to(next(self.projector.parameters()).dtype)
        return self.projector(frames, encoder_frames_mask), self.config.audio_tokens(
            encoder_frames_mask.sum(dim=1)
        )

    def prompt_embeddings(
        self,
        input_ids: torch.Tensor,
        input_features: torch.Tensor | None = None,
        input_features_mask: torch.Tensor | None = None,
        encoder_frames: torch.Tensor | None = None,
        encoder_frames_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(B, L) ids with placeholders -> (B, L, D_llm) with the clips' audio tokens in their places.

        Raises:
            ValueError: a row does not hold one placeholder per audio token of its clip.
        """
        is_audio = input_ids == self.config.audio_token_id  # (B, L)
        embeddings = self.get_input_embeddings()(input_ids.masked_fill(is_audio, 0))
        if input_features is None and encoder_frames is None:
            if is_audio.any():
                raise ValueError("`input_ids` holds audio placeholders but there are no `input_features`.")
            return embeddings
        tokens, counts = self.audio_embeddings(
            input_features, input_features_mask, encoder_frames, encoder_frames_mask
        )
        slots = is_audio.sum(dim=1)
        if not torch.equal(slots, counts):
            raise ValueError(
                f"`input_ids` holds {slots.tolist()} audio placeholders but the projector made "
                f"{counts.tolist()} audio tokens. Prepare text and audio with the checkpoint's own processor."
            )
        is_real = torch.arange(tokens.shape[1], device=tokens.device) < counts[:, None]  # (B, A)
        return embeddings.masked_scatter(is_audio[..., None], tokens[is_real].to(embeddings.dtype))

    def forward(
        self,
        input_ids: torch.Tensor,
        input_features: torch.Tensor | None = None,
        input_features_mask: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        encoder_frames: torch.Tensor | None = None,
        encoder_frames_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """One pass over prompt and transcript.

        Args:
            input_ids: (B, L) audio placeholders, instruction, transcript.
            input_features: (B, M, F) log-mel of the clips.
            input_features_mask: (B, F), True on real mel frames; all are by default.
            attention_mask: (B, L), 1 on real tokens.
            labels: (B, L) the ids to predict, at their own places, -100 elsewhere. The LLM then computes no
                padding (if it can do without) and the vocabulary at these places alone; the output holds the
                loss and no logits.
            num_items_in_batch: the loss is the summed cross-entropy over this number; without it, the mean.
            logits_to_keep: without labels, as in transformers' causal LMs; 0 gives (B, L, V).
            encoder_frames: (B, T, D_enc) the encoder's output, from a cache; then no log-mel is needed.
            encoder_frames_mask: (B, T), True on real frames; all are by default.
        """
        embeddings = self.prompt_embeddings(
            input_ids, input_features, input_features_mask, encoder_frames, encoder_frames_mask
        )
        if attention_mask is not None:
            # Positions count real tokens, so padding on either side changes nothing.
            kwargs["position_ids"] = (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)
        if labels is None:
            return self.language_model(
                inputs_embeds=embeddings,
                attention_mask=attention_mask,
                logits_to_keep=logits_to_keep,
                **kwargs,
            )
        next_labels = nn.functional.pad(labels[:, 1:], (0, 1), value=-100)  # due at each place
        if self._llm_traits.keeps_clips_apart:
            mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            positions, is_real = mask.long().cumsum(dim=1) - 1, mask.bool()
            embeddings, next_labels = (
                embeddings[is_real][None],
                next_labels[is_real][None],
            )  # (1, N, D), (1, N)
            attention_mask, kwargs["position_ids"] = None, positions[is_real][None]
        inputs = kwargs | {"inputs_embeds": embeddings, "attention_mask": attention_mask, "use_cache": False}
        loss = self._summed_loss(inputs, next_labels)
        due = (next_labels != -100).sum() if num_items_in_batch is None else num_items_in_batch
        return CausalLMOutputWithPast(loss=loss / due)

    def _summed_loss(self, inputs: dict[str, Any], labels: torch.Tensor) -> torch.Tensor:
        """Summed cross-entropy of the LLM's predictions; `labels` are the ids due at each position."""
        due = labels != -100
        head = self.get_output_embeddings()
        is_frozen = not any(parameter.requires_grad for parameter in head.parameters())
        if type(head) in (nn.Linear, FrozenLinear) and is_frozen and self._llm_traits.head_comes_last:
            hidden = self.language_model.base_model(**inputs).last_hidden_state
            return LabelLoss.apply(hidden[due], head.weight, head.bias, labels[due])
        logits = self.language_model(logits_to_keep=due, **inputs).logits
        return nn.functional.cross_entropy(logits.float(), labels[due], reduction="sum")

    @functools.cached_property
    def _llm_traits(self) -> LlmTraits:
        training = self.training
        self.eval()
        traits = traits_of(self.language_model)
        self.train(training)
        return traits

    @torch.no_grad()
    def generate(  # ty: ignore[incompatible-method-override] (the prompt has two parts)
        self,
        input_ids: torch.Tensor,
        input_features: torch.Tensor | None = None,
        input_features_mask: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        generation_config: Any = None,
        max_tokens_per_second: int | None = MAX_TOKENS_PER_SECOND,
        encoder_frames: torch.Tensor | None = None,
        encoder_frames_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Transcribe left-padded prompts; takes what the LLM's `generate` takes (`num_beams=2`, ...).

        Each transcript ends at the latest where its own clip cannot hold more, at `max_tokens_per_second`: a
        guard against endless repetition that, unlike `max_new_tokens`, knows the clip's length. `None`: none.

        Returns: the (B, N) new tokens, without the prompt.
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        settings = copy.deepcopy(generation_config or self.generation_config)
        others = settings.update(**kwargs)
        # The prompt is no part of the output, so both limits mean the same here.
        if settings.max_new_tokens is None or kwargs.get("max_length") is not None:
            settings.max_new_tokens = settings.max_length
        settings.max_length = None
        if is_covered(settings, others, self.language_model):
            others["custom_generate"] = search
        guarded = max_tokens_per_second is not None and settings.eos_token_id is not None
        mel_frames = None if input_features_mask is None else input_features_mask.sum(dim=1)
        if encoder_frames_mask is not None:
            mel_frames = encoder_frames_mask.sum(dim=1) * ENCODER_STRIDE
        if guarded and mel_frames is not None:
            budgets = transcript_budget(mel_frames, max_tokens_per_second)
            guard = TranscriptGuard(budgets, settings.num_beams or 1, settings.eos_token_id)
            others["logits_processor"] = LogitsProcessorList([*others.get("logits_processor", []), guard])
        return self.language_model.generate(
            inputs_embeds=self.prompt_embeddings(
                input_ids, input_features, input_features_mask, encoder_frames, encoder_frames_mask
            ),
            attention_mask=attention_mask,
            generation_config=settings,
            **others,
        )

    def _init_weights(self, module: nn.Module) -> None:
        """The projector starts as torch's layers do, as in the paper's code; the rest as in transformers."""
        if isinstance(module, nn.Linear | nn.Conv1d | nn.LayerNorm):
            module.reset_parameters()
        else:
            super()._init_weights(module)
