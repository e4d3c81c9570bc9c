"""SLAM-ASR: a frozen, pruned speech encoder, a trained projector, a frozen causal LM with or without LoRA.

    audio -> features -> encoder, kept layers -> projector (-> CTC head) -> LLM + LoRA -> text
                         frozen                  trained       trained      frozen   trained

LoRA may be on the encoder too, and its upper layers, or the LLM, may be trained themselves. The prompt holds
one placeholder per audio token; what the LLM reads of the audio takes their positions: the projector's
output, or what the CTC head makes of it. `B` clips, `F` features (log-mel frames or samples), `T` encoder
frames, `A` audio tokens of the longest clip, `L` prompt or sequence length.

Source: SLAM-ASR, https://huggingface.co/papers/2402.08846; layer pruning,
https://huggingface.co/papers/2603.27981
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import (
    GenerationMixin,
    LogitsProcessor,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
)
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from .audio_encoders import ENCODERS, pruned_llm
from .audio_lengths import MAX_TOKENS_PER_SECOND
from .checkpoints import SlamAsrPreTrainedModel
from .configuration_slam import SlamAsrConfig
from .ctc_head import BLANK, CtcHead, ctc_loss
from .lora import PARTS, is_trained, part_of
from .projectors import PROJECTORS, audio_tokens_of


@dataclass
class AudioEmbeddings:
    """What the LLM reads of some clips: `embeddings` (B, A, D_llm), of which `counts` (B,) are real.

    `ctc_logits` (B, A, 1 + V), and `is_kept` (B, A): where the LLM reads at all.
    """

    embeddings: torch.Tensor
    counts: torch.Tensor
    ctc_logits: torch.Tensor | None
    is_kept: torch.Tensor | None


class TranscriptGuard(LogitsProcessor):
    """Leaves only end-of-text to a clip that has used up its budget of tokens."""

    def __init__(self, budgets: torch.Tensor, eos_token_id: int | list[int]):
        """`budgets` (B,): the longest transcript of each clip, in tokens."""
        self.budgets, self.eos_token_id = budgets, eos_token_id

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """(R, new tokens so far) and scores (R, V) -> scores; a clip has R / B rows, one after the other."""
        spent = input_ids.shape[1] >= self.budgets.repeat_interleave(len(scores) // len(self.budgets))
        if not spent.any():
            return scores
        ended = torch.full_like(scores, -torch.inf)
        ended[:, self.eos_token_id] = 0.0
        return torch.where(spent[:, None], ended, scores)


class SlamAsrForConditionalGeneration(SlamAsrPreTrainedModel, GenerationMixin):  # ty: ignore[incompatible-method-override]
    """Speech in, text out. Trained are projector, CTC head and LoRA, and what the config names; no other."""

    base_model_prefix = ""
    main_input_name = "input_features"
    input_modalities = ["audio", "text"]  # noqa: RUF012 (transformers declares a list)
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    accepts_loss_kwargs = True  # `num_items_in_batch`: every label weighs alike in accumulated batches

    def __init__(self, config: SlamAsrConfig):
        super().__init__(config)
        self.loss_type = None  # by the class name Trainer would count the labels as if they were shifted
        encoder_class = ENCODERS[config.audio_config.model_type]
        self.encoder = encoder_class(config.audio_config, config.num_encoder_layers)
        self.projector = PROJECTORS[config.projector_type](config)
        self.ctc_head = CtcHead(config) if config.has_ctc_head else None
        self.language_model, self.llm_removed = pruned_llm(config)
        if config.trained_in_float32:
            # Of the head its parameters: the ids of its tokens must stay integers.
            head = () if self.ctc_head is None else self.ctc_head.named_parameters()
            self._keep_in_fp32_modules_strict = {"projector", *(f"ctc_head.{name}" for name, _ in head)}
            # A part that is trained itself is of one type: its layers hand their states on to each other.
            whole = {"encoder": bool(config.trained_encoder_layers), "language_model": config.train_llm}
            self._keep_in_fp32_modules_strict |= {part for part, is_trained in whole.items() if is_trained}
        self.post_init()
        self.put_in_own_lora()

    # ---------------------------------------------------------------- what is trained

    def freeze(self) -> None:
        """Leave gradients to what is trained, and put new layers into the mode of the rest."""
        for name, parameter in self.named_parameters():
            if parameter.is_floating_point():  # quantised weights cannot have gradients
                parameter.requires_grad_(is_trained(name, self.config))
        self.train(self.training)
        self._keys_to_ignore_on_save = self.left_out()  # Trainer looks it up when it resumes

    def train(self, mode: bool = True) -> "SlamAsrForConditionalGeneration":
        """Training mode for what is trained; the frozen parts stay as they are, their dropout never acts."""
        super().train(mode)
        for name, module in self.named_modules():
            if name.startswith(("encoder", "language_model")):
                # It recomputes in training mode alone; the encoder would then have its dropout too.
                recomputes = getattr(module, "gradient_checkpointing", False) and "language_model" in name
                # These have no dropout, and others ask for their mode: NEFTune, bitsandbytes' products.
                is_plain = isinstance(module, nn.Linear | nn.Embedding)
                module.training = mode and ("lora_" in name or recomputes or is_plain)
        return self

    def parameter_counts(self) -> dict[str, int]:
        """Parameters by part; `encoder_removed` and `llm_removed` are those of the layers not kept.

        `lora` is all LoRA, `encoder_lora` that of the encoder; `encoder_trained` and `llm_trained` are their
        own weights that are trained.
        """

        def size(module: nn.Module, of_lora: bool = False) -> int:
            return sum(elements(p) for name, p in module.named_parameters() if (".lora_" in name) is of_lora)

        trained = dict.fromkeys(PARTS, 0)
        for name, parameter in self.named_parameters():
            trained[part_of(name)] += parameter.numel() * parameter.requires_grad
        removed_layers = self.config.audio_config.num_hidden_layers - len(self.encoder.layers)
        return {
            "encoder_kept": size(self.encoder),
            "encoder_removed": size(self.encoder.layers[-1]) * removed_layers,
            "projector": size(self.projector),
            "ctc_head": 0 if self.ctc_head is None else size(self.ctc_head),
            "lora": size(self, of_lora=True),
            "encoder_lora": size(self.encoder, of_lora=True),
            "llm": size(self.language_model),
            "llm_removed": self.llm_removed,
            "encoder_trained": trained["encoder"],
            "llm_trained": trained["llm"],
            "trainable": sum(p.numel() for p in self.parameters() if p.requires_grad),
            "total": sum(map(elements, self.parameters())),
        }

    # ---------------------------------------------------------------- the LLM's embeddings

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.language_model.set_output_embeddings(new_embeddings)

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> Any:
        """As in transformers, of the LLM; the next checkpoint is then a full one."""
        embeddings = self.language_model.resize_token_embeddings(*args, **kwargs)
        self.config.text_config.vocab_size = self.language_model.config.vocab_size
        self.freeze()
        return embeddings

    # ---------------------------------------------------------------- forward

    def get_encoder_frames(
        self,
        input_features: torch.Tensor | None = None,
        input_features_mask: torch.Tensor | None = None,
        encoder_frames: torch.Tensor | None = None,
        encoder_frames_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, T, D_enc) frames and their (B, T) mask: those given, or the encoder's of the features."""
        if encoder_frames is None:
            learns = any(parameter.requires_grad for parameter in self.encoder.parameters())
            with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
                return self.encoder(input_features, input_features_mask)
        if encoder_frames_mask is None:
            encoder_frames_mask = encoder_frames.new_ones(encoder_frames.shape[:2], dtype=torch.bool)
        return encoder_frames, encoder_frames_mask

    def encoded(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Inputs with the encoder's frames of the clips in the place of their features."""
        frames, mask = self.get_encoder_frames(inputs["input_features"], inputs.get("input_features_mask"))
        others = {name: inputs[name] for name in inputs if not name.startswith("input_features")}
        return others | {"encoder_frames": frames, "encoder_frames_mask": mask}

    def get_audio_embeddings(self, *args: Any, **kwargs: Any) -> AudioEmbeddings:
        """What `get_encoder_frames` takes -> what the LLM reads, and how it came about."""
        return self.read_frames(
            *self.get_encoder_frames(*args, **kwargs), projector=self.projector, ctc_head=self.ctc_head
        )

    def read_frames(
        self, frames: torch.Tensor, frame_mask: torch.Tensor, projector: Any, ctc_head: Any
    ) -> AudioEmbeddings:
        """(B, T, D_enc) frames, (B, T) mask -> what the LLM reads by this projector and this head, if any."""
        projected, counts = audio_tokens_of(self.config, projector, frames, frame_mask)
        if ctc_head is None:
            return AudioEmbeddings(projected, counts, None, None)
        # Not by a call: hooks such as NEFTune's are for the embeddings of text.
        used = self.get_input_embeddings().forward(ctc_head.token_ids).to(projected.device)
        logits = ctc_head(projected, used)
        if self.config.llm_input != "projector":
            projected = ctc_head.llm_input(logits, projected, used)
        return AudioEmbeddings(projected, counts, logits, self._kept(logits, counts))

    def _kept(self, ctc_logits: torch.Tensor, counts: torch.Tensor) -> torch.Tensor | None:
        """(B, A), False where the head holds a token for blank; a clip keeps at least one."""
        if self.config.drop_blanks is None:
            return None
        blank = ctc_logits.detach().softmax(dim=-1)[..., BLANK]
        is_real = torch.arange(blank.shape[1], device=blank.device) < counts.to(blank.device)[:, None]
        blank = blank.masked_fill(~is_real, 2.0)  # above any probability
        least = nn.functional.one_hot(blank.argmin(dim=1), blank.shape[1]).bool()
        return (blank <= self.config.drop_blanks) | least

    def get_audio_features(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """What `get_encoder_frames` takes -> (B, A, D_llm) audio tokens, and the (B,) number of real ones."""
        audio = self.get_audio_embeddings(*args, **kwargs)
        return audio.embeddings, audio.counts

    def get_ctc_logits(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """What `get_encoder_frames` takes -> (B, A, 1 + V) logits, and the (B,) number of real audio tokens.

        Class 0 is the blank, class i + 1 the token `ctc_head.token_ids[i]`. The LLM does not run.

        Raises:
            ValueError: the model has no CTC head.
        """
        if self.ctc_head is None:
            raise ValueError("This model has no CTC head: train one with `train.py --align_epochs`.")
        audio = self.get_audio_embeddings(*args, **kwargs)
        assert audio.ctc_logits is not None
        return audio.ctc_logits, audio.counts

    def get_placeholder_mask(self, input_ids: torch.Tensor, audio_tokens: torch.Tensor) -> torch.Tensor:
        """(B, L) ids and the (B,) audio tokens of their clips -> (B, L), True where a placeholder stands.

        Raises:
            ValueError: a row does not hold one placeholder per audio token of its clip.
        """
        is_audio = input_ids == self.config.audio_token_id
        placeholders = is_audio.sum(dim=1)
        if not torch.equal(placeholders, audio_tokens.to(placeholders)):
            raise ValueError(
                f"`input_ids` holds {placeholders.tolist()} audio placeholders but the projector made "
                f"{audio_tokens.tolist()} audio tokens. Prepare text and audio with the checkpoint's own "
                "processor."
            )
        return is_audio

    def prompt_embeddings(self, input_ids: torch.Tensor | None, *args: Any, **kwargs: Any) -> torch.Tensor:
        """(B, L) ids with placeholders, and what `get_encoder_frames` takes -> (B, L, D_llm).

        The clips' audio tokens stand in their positions, those that `config.drop_blanks` leaves out too.

        Raises:
            ValueError: there are no ids, or a row does not hold one placeholder per audio token of its clip.
        """
        return self.read_prompt(input_ids, *args, **kwargs)[0]

    def read_prompt(
        self,
        input_ids: torch.Tensor | None,
        input_features: torch.Tensor | None = None,
        input_features_mask: torch.Tensor | None = None,
        encoder_frames: torch.Tensor | None = None,
        encoder_frames_mask: torch.Tensor | None = None,
        audio: AudioEmbeddings | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None, AudioEmbeddings | None]:
        """(B, L) ids with placeholders -> (B, L, D_llm) with the clips' audio tokens in their positions.

        Returns: the embeddings; (B, L), False where an audio token is left out before the LLM, or `None` for
        none; and the audio tokens.

        Raises:
            ValueError: there are no ids, or a row does not hold one placeholder per audio token of its clip.
        """
        if input_ids is None or not len(input_ids):
            raise ValueError(
                "`input_ids` is missing or empty: the checkpoint's processor makes it. In a pipeline pass "
                "`processor=...` to `SlamAsrPipeline(model, processor)`; transformers' own speech pipeline "
                "cannot prepare this model's prompt."
            )
        if audio is None and input_features is None and encoder_frames is None:
            if (input_ids == self.config.audio_token_id).any():
                raise ValueError("`input_ids` holds audio placeholders but there are no `input_features`.")
            return self.get_input_embeddings()(input_ids), None, None
        if audio is None:
            audio = self.get_audio_embeddings(
                input_features, input_features_mask, encoder_frames, encoder_frames_mask
            )
        is_audio = self.get_placeholder_mask(input_ids, audio.counts)
        # A placeholder may lie outside the vocabulary: its embedding is never looked up.
        embeddings = self.get_input_embeddings()(input_ids.masked_fill(is_audio, 0))
        is_real = torch.arange(audio.embeddings.shape[1], device=audio.counts.device) < audio.counts[:, None]
        is_real = is_real.to(audio.embeddings.device)  # (B, A)
        embeddings = embeddings.masked_scatter(
            is_audio[..., None].to(embeddings.device), audio.embeddings[is_real].to(embeddings)
        )
        if audio.is_kept is None:
            return embeddings, None, audio
        is_kept = torch.ones_like(is_audio).masked_scatter(
            is_audio, audio.is_kept[is_real].to(is_audio.device)
        )
        return embeddings, is_kept.to(embeddings.device), audio

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        input_features_mask: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        encoder_frames: torch.Tensor | None = None,
        encoder_frames_mask: torch.Tensor | None = None,
        ctc_targets: torch.Tensor | None = None,
        ctc_weight: float = 0.0,
        audio: AudioEmbeddings | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """One pass over prompt and transcript.

        Args:
            input_ids: (B, L) audio placeholders, instruction, transcript.
            input_features: (B, M, F) log-mel of the clips, or their samples (B, F), as the encoder takes
                them.
            input_features_mask: (B, F), True on real features; all are by default.
            attention_mask: (B, L), 1 on real tokens.
            labels: (B, L) the ids to predict, at their own positions, -100 elsewhere. The vocabulary is then
                computed at these positions alone, and the output holds the loss and no logits.
            num_items_in_batch: the loss is the summed cross-entropy over this number; without it, the mean.
            logits_to_keep: without labels, as in transformers' causal LMs; 0 gives (B, L, V).
            encoder_frames: (B, T, D_enc) the encoder's output, from a cache; then no features are needed.
            encoder_frames_mask: (B, T), True on real frames; all are by default.
            ctc_targets: (B, N) the transcripts as classes of the CTC head, -100 behind each; with `labels`.
            ctc_weight: weight of the CTC head's loss, which is then added to the LLM's.
            audio: what the LLM reads of the clips, from elsewhere; then no features and frames are needed.

        Where `config.drop_blanks` is set, audio tokens are left out: the logits are then of the positions
        that remain, padded on the right.
        """
        embeddings, is_kept, audio = self.read_prompt(
            input_ids, input_features, input_features_mask, encoder_frames, encoder_frames_mask, audio
        )
        inputs, labels = self._llm_inputs(embeddings, is_kept, attention_mask, labels)
        inputs = kwargs | inputs
        if labels is None:
            return self.language_model(logits_to_keep=logits_to_keep, **inputs)
        losses, _ = self._label_losses(labels, inputs, reduction="sum")
        count = int((labels[:, 1:] != -100).sum()) if num_items_in_batch is None else num_items_in_batch
        count = count.to(losses.device) if isinstance(count, torch.Tensor) else count
        loss = losses / count
        if not ctc_weight or ctc_targets is None or audio is None or audio.ctc_logits is None:
            return CausalLMOutputWithPast(loss=loss)
        return CausalLMOutputWithPast(
            loss=loss + ctc_weight * ctc_loss(audio.ctc_logits, audio.counts, ctc_targets, count)
        )

    def _llm_inputs(
        self,
        embeddings: torch.Tensor,
        is_kept: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        labels: torch.Tensor | None,
    ) -> tuple[dict[str, Any], torch.Tensor | None]:
        """What `read_prompt` gives -> what the LLM takes, and the labels of the positions that remain."""
        if is_kept is not None:
            embeddings, attention_mask, labels = without_positions(
                is_kept, "right", embeddings, attention_mask, labels
            )
        inputs: dict[str, Any] = {"inputs_embeds": embeddings, "attention_mask": attention_mask}
        if attention_mask is not None:
            # Positions count real tokens, so padding on either side changes nothing.
            inputs["position_ids"] = (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)
        return inputs, labels

    def _label_losses(
        self, labels: Any, inputs: dict[str, Any], reduction: str
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy of the labels, (n,) with reduction "none", and the row of each."""
        next_labels = nn.functional.pad(labels[:, 1:], (0, 1), value=-100)  # due at each position
        due = next_labels != -100
        logits = self.language_model(logits_to_keep=due, use_cache=False, **inputs).logits
        if logits.shape[:-1] == due.shape:  # of an LLM that does not know `logits_to_keep`
            logits = logits[due]
        wanted = next_labels[due].to(logits.device)
        losses = nn.functional.cross_entropy(logits.flatten(0, -2).float(), wanted, reduction=reduction)
        return losses, due.nonzero()[:, 0].to(losses.device)

    @torch.no_grad()
    def get_text_scores(
        self,
        labels: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        audio: AudioEmbeddings,
    ) -> torch.Tensor:
        """(B,) log-probabilities of transcripts by the LLM.

        Args:
            labels: (B, N) tokens of each, end-of-text the last, -100 behind it.
            input_ids: (B, L) the prompts that `generate` takes, with their `attention_mask`.
            audio: what the LLM reads of the clips.
        """
        real = labels != -100
        input_ids = torch.cat([input_ids, labels.where(real, 0)], dim=1)
        attention_mask = torch.cat([attention_mask, real.to(attention_mask)], dim=1)
        labels = nn.functional.pad(labels, (input_ids.shape[1] - labels.shape[1], 0), value=-100)
        embeddings, is_kept, _ = self.read_prompt(input_ids, audio=audio)
        inputs, due = self._llm_inputs(embeddings, is_kept, attention_mask, labels)
        losses, rows = self._label_losses(due, inputs, reduction="none")
        return losses.new_zeros(len(labels)).index_add(0, rows, -losses)

    @torch.no_grad()
    def generate(
        self,
        input_ids: torch.Tensor | None = None,
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
        if encoder_frames is not None or (input_features is not None and len(input_features)):
            encoder_frames, encoder_frames_mask = self.get_encoder_frames(
                input_features, input_features_mask, encoder_frames, encoder_frames_mask
            )
        embeddings, is_kept, _ = self.read_prompt(
            input_ids, encoder_frames=encoder_frames, encoder_frames_mask=encoder_frames_mask
        )
        if attention_mask is None:
            attention_mask = embeddings.new_ones(embeddings.shape[:2], dtype=torch.long)
        if is_kept is not None:
            embeddings, attention_mask, _ = without_positions(is_kept, "left", embeddings, attention_mask)
        settings = copy.deepcopy(generation_config or self.generation_config)
        others = settings.update(**kwargs)
        # The prompt is no part of the output, so both limits mean the same; the first comes first.
        given = kwargs.get("max_new_tokens") or kwargs.get("max_length")
        settings.max_new_tokens = given or settings.max_new_tokens or settings.max_length
        settings.max_length = None
        processors = [*(others.pop("logits_processor", None) or [])]
        if (penalty := settings.repetition_penalty) not in (None, 1.0):
            # transformers would spare as many new tokens as the prompt has positions, padding among them.
            processors.append(RepetitionPenaltyLogitsProcessor(penalty))
            settings.repetition_penalty = None
        has_limit = max_tokens_per_second is not None and settings.eos_token_id is not None
        if has_limit and encoder_frames_mask is not None:
            frames = encoder_frames_mask.sum(dim=1).to(embeddings.device)
            budgets = self.config.audio_geometry.transcript_budget(frames, max_tokens_per_second)
            processors.append(TranscriptGuard(budgets, settings.eos_token_id))
        return self.language_model.generate(
            inputs_embeds=embeddings,
            attention_mask=attention_mask,
            generation_config=settings,
            logits_processor=LogitsProcessorList(processors),
            **others,
        )

    def _init_weights(self, module: nn.Module) -> None:
        """The projector starts as torch's layers do, as in the paper's code; the rest as in transformers."""
        if isinstance(module, nn.Linear | nn.Conv1d | nn.LayerNorm):
            module.reset_parameters()
        else:
            super()._init_weights(module)


def elements(weight: torch.Tensor) -> int:
    """How many a weight has, or stands for if bitsandbytes has packed it in 4 bits."""
    packed = getattr(weight, "quant_state", None)
    return weight.numel() if packed is None else math.prod(packed.shape)


def without_positions(
    is_kept: torch.Tensor,
    padding_side: str,
    embeddings: torch.Tensor,
    attention_mask: torch.Tensor | None,
    labels: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Leave out the positions where `is_kept` (B, L) is False, and pad the rows anew on one side.

    Returns: (B, L', D) embeddings, (B, L') attention mask and (B, L') labels.
    """
    if attention_mask is not None:
        is_kept = is_kept & attention_mask.bool().to(is_kept.device)
    longest = int(is_kept.sum(dim=1).max())
    order = is_kept.to(torch.uint8).argsort(dim=1, descending=padding_side == "right", stable=True)
    order = order[:, :longest] if padding_side == "right" else order[:, -longest:]
    mask = is_kept.gather(1, order).long()
    embeddings = embeddings.gather(1, order[..., None].expand(-1, -1, embeddings.shape[-1]))
    if labels is not None:
        labels = labels.gather(1, order.to(labels.device)).masked_fill(mask.to(labels.device) == 0, -100)
    return embeddings, mask, labels


# Trainer shifts the labels for label smoothing by one position for the classes of this table.
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[SlamAsrConfig.model_type] = SlamAsrForConditionalGeneration.__name__
