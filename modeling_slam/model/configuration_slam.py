"""Configuration of a SLAM-ASR model: every architecture choice, validated once.

Composite in the way of transformers: a speech encoder's config, a causal LM's, and what stands between them.
Run settings (learning rate, data, ...) are not here; derived values are properties. To add a knob: a field,
a line in the docstring and, where it can be wrong, a check in `__post_init__`. Nothing here needs torch.

Source: SLAM-ASR, https://huggingface.co/papers/2402.08846; layer pruning,
https://huggingface.co/papers/2603.27981
"""

import copy
from typing import Any, Literal

from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .audio_lengths import AudioGeometry, Count, TailRule, audio_geometry, audio_token_count

# Written into every checkpoint: which class of the files beside the weights each auto class loads.
AUTO_MAP = {
    "AutoConfig": "configuration_slam.SlamAsrConfig",
    "AutoModel": "modeling_slam.SlamAsrForConditionalGeneration",
    "AutoModelForSpeechSeq2Seq": "modeling_slam.SlamAsrForConditionalGeneration",
    "AutoModelForMultimodalLM": "modeling_slam.SlamAsrForConditionalGeneration",
}
# Likewise which class `pipeline` builds; without it transformers would take the model for CTC by its name.
CUSTOM_PIPELINES = {
    "automatic-speech-recognition": {
        "impl": "pipeline_slam.SlamAsrPipeline",
        "pt": ["AutoModelForSpeechSeq2Seq"],
        "type": "multimodal",
    }
}
# Parts of the model that may get LoRA, and what the names of its four fields begin with.
LORA_PARTS = {"language_model": "lora_", "encoder": "encoder_lora_"}
LORA_FIELDS = ("rank", "alpha", "dropout", "target_modules")
# Encoders whose layer 0 holds the position embedding of all layers.
FIRST_LAYER_NEEDED_BY = ("wavlm",)
# Layers of an encoder whose weights are read without a call: LoRA around them would never act.
NEVER_CALLED = {"wavlm": ("q_proj", "k_proj", "v_proj", "out_proj")}


# Of each class in projectors.py, what a config has that names none: its `projector_hidden_size`,
PROJECTOR_WIDTHS = {"stack_mlp": 2048, "conv": 2048, "qformer": 768}
# and its `projector_queries`, where it does not make a token per `projector_stack` frames: its tokens have no
# order in time.
PROJECTOR_QUERIES = {"qformer": 64}
TextStyle = Literal["normalized", "written"]
LLM_INPUTS = ("projector", "expected", "gated")
FINAL_LAYER_NORMS = ("as_is", "refitted", "trained")


class SlamAsrConfig(PreTrainedConfig):
    r"""
    Args:
        audio_config (`PreTrainedConfig` or `dict`, defaults to a Whisper config):
            The unpruned encoder's, of a type in `GEOMETRIES`. Fields that are not the encoder's are kept, but
            nothing is built from them.
        text_config (`PreTrainedConfig` or `dict`, defaults to a Qwen2 config):
            The unpruned LLM's: any causal LM that takes `inputs_embeds`.
        num_encoder_layers (`int`, *optional*):
            Encoder layers kept, counted from the bottom (of `kept_encoder_layers` where that is given). All
            by default. Fewer make the model smaller and faster and its error rate higher. The config itself
            holds the list; this is its length, and setting it keeps the lowest so many.
        kept_encoder_layers (`list[int | list[int]]`, *optional*):
            Indices of the layers to keep, ascending, for other choices than the lowest. A list of indices in
            the place of one, as in `[[0, 1], 2]`, is one layer: the mean of their weights.
        num_llm_layers (`int`, *optional*), kept_llm_layers (`list[int]`, *optional*):
            The same of the LLM's layers. What is left of an LLM must usually be healed, by its LoRA.
        final_layer_norm (`str`, defaults to `"as_is"`):
            Scale and shift of the LayerNorm behind the last kept layer, which was fitted to the last of all:
            `"as_is"`, `"refitted"` on clips before training, or `"trained"` with the projector, which holds
            them in the last two cases.
        projector_type (`str`, defaults to `"stack_mlp"`): A name in `PROJECTOR_WIDTHS`.
        projector_stack (`int`, defaults to 5):
            Encoder frames (20 ms each) per audio token. 5 gives 10 tokens per second of speech; a larger
            value shortens the prompt and blurs fast speech.
        projector_tail (`"pad"` or `"drop"`, defaults to `"pad"`):
            What becomes of frames beyond a multiple of `projector_stack`; `"drop"` reproduces the paper's
            code.
        projector_hidden_size (`int`, *optional*):
            Width inside the projector; by default the projector's own (2048, and 768 for `"qformer"`).
        projector_dropout (`float`, defaults to 0.1): Dropout inside the projector while training.
        projector_queries (`int`, *optional*):
            Audio tokens of any clip; only for projectors that resample to a fixed number (`"qformer"`: 64).
        projector_layers (`int`, defaults to 8): Transformer layers of the `"qformer"` projector.
        projector_context (`int`, defaults to 1):
            Audio tokens that the convolution inside a `"stack_mlp"` projector sees around each one, an odd
            number; 1 is none, as in the paper.
        projector_frame_dropout (`float`, defaults to 0.0): Share of encoder frames hidden while training.
        projector_norm (`bool`, defaults to `False`):
            A `"conv"` projector ends in a LayerNorm, as the others do; older checkpoints have none.
        projector_scale (`float`, *optional*, defaults to 1.0):
            Factor on the projector's output; 1 is the paper's. `None` makes it, when a model is built from
            base models, that which gives an audio token the mean length of the LLM's embeddings.
        ctc_vocab_size (`int`, defaults to 0): Used tokens of the CTC head; 0 is a model without one.
        llm_input (`str`, defaults to `"projector"`):
            What the LLM reads of the audio: the scaled output of the projector, the `"expected"` embedding
            that the CTC head makes of it, or that and the output through a gate (`"gated"`).
        drop_blanks (`float`, *optional*):
            Audio tokens that the CTC head holds for blank with a higher probability than this are left out
            before the LLM. With 1, as by default, none are.
        text_style (`str`, defaults to `"normalized"`):
            What the model writes: `"normalized"` text, lower case without punctuation, or text as it is
            `"written"`.
        lora_rank (`int`, defaults to 0): Rank of the LLM's LoRA update; 0 leaves the LLM as it is.
        lora_alpha (`int`, defaults to 32): The update is scaled by `lora_alpha / lora_rank`.
        lora_dropout (`float`, defaults to 0.1): Dropout before LoRA's first matrix while training.
        lora_target_modules (`list[str]`, defaults to the q, k, v and o projections):
            Linear layers of the LLM that LoRA adapts, by the ends of their names, as those of the encoder.
        encoder_lora_rank (`int`, defaults to 0): Rank of the encoder's LoRA update; 0 is without.
        encoder_lora_alpha (`int`, defaults to 32): As `lora_alpha`.
        encoder_lora_dropout (`float`, defaults to 0.1): As `lora_dropout`.
        encoder_lora_target_modules (`list[str]`, defaults to the q and v projections):
            Linear layers of the encoder that LoRA adapts, by the ends of their names: `"q_proj"` of every
            kept layer, `"layers.5.self_attn.q_proj"` of one, counted among the kept ones.
        trained_encoder_layers (`list[int]`, *optional*):
            Indices of the kept layers whose own weights are trained, and so stand in every checkpoint; none
            by default.
        train_llm (`bool`, defaults to `False`): The LLM's own weights are trained, and stand there too.
        quantization (`"4bit"` or `"8bit"`, *optional*):
            In how many bits the frozen LLM's linear layers were while the rest was trained: a record. It
            loads in full precision, or packed where `from_pretrained` is given a `quantization_config`.
        audio_model_id, text_model_id (`str`, *optional*):
            Hub ids or directories of the base models. Where both are given, checkpoints leave the base
            weights out and `from_pretrained` fetches them from there.
        audio_model_revision, text_model_revision (`str`, *optional*): Their pinned revisions.
        audio_model_digest, text_model_digest (`str`, *optional*):
            Digests of the weights read from them, set when a model is built. Other weights under the same
            name are then refused; `None` takes what is there.
        self_contained (`bool`, defaults to `False`):
            Checkpoints hold every weight although base models are named: a full checkpoint, which only says
            where its weights came from.
        trained_in_float32 (`bool`, defaults to `False`):
            What is trained is float32 beside frozen weights of another dtype, as training in bf16 leaves it.
            Where the own weights of encoder layers or of the LLM are trained, all of that part is. Set on
            saving.
        audio_token_id (`int`, *optional*):
            Placeholder in the prompt, replaced by one projector output each. May lie outside the LLM's
            vocabulary: its embedding is never looked up. Defaults to the first id after the vocabulary.
        initializer_range (`float`, defaults to 0.02):
            Standard deviation of random weights without an initialiser of their own.

    Raises:
        ValueError: a field is out of its range; the message says what was expected.
    """

    model_type = "slam_asr"
    sub_configs_defaults = {  # noqa: RUF012 (transformers reads this class attribute)
        "audio_config": SubConfigSpec(config_class=AutoConfig, model_type="whisper"),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="qwen2"),
    }

    audio_config: Any = None
    text_config: Any = None
    kept_encoder_layers: Any = None  # list[int | list[int]], once constructed
    kept_llm_layers: Any = None  # list[int], once constructed
    final_layer_norm: str = "as_is"
    projector_type: str = "stack_mlp"
    projector_stack: int = 5
    projector_tail: TailRule = "pad"
    projector_hidden_size: int | None = None
    projector_dropout: float = 0.1
    projector_queries: int | None = None
    projector_layers: int = 8
    projector_context: int = 1
    projector_frame_dropout: float = 0.0
    projector_norm: bool = False
    projector_scale: float | None = 1.0
    ctc_vocab_size: int = 0
    llm_input: str = "projector"
    drop_blanks: float | None = None
    text_style: TextStyle = "normalized"
    lora_rank: int = 0
    lora_alpha: int = 32
    lora_dropout: float = 0.1
    lora_target_modules: list[str] | tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    encoder_lora_rank: int = 0
    encoder_lora_alpha: int = 32
    encoder_lora_dropout: float = 0.1
    encoder_lora_target_modules: list[str] | tuple[str, ...] = ("q_proj", "v_proj")
    trained_encoder_layers: Any = None  # list[int], once constructed
    train_llm: bool = False
    quantization: str | None = None
    audio_model_id: str | None = None
    audio_model_revision: str | None = None
    text_model_id: str | None = None
    text_model_revision: str | None = None
    audio_model_digest: str | None = None
    text_model_digest: str | None = None
    self_contained: bool = False
    trained_in_float32: bool = False
    audio_token_id: int | None = None
    initializer_range: float = 0.02

    def __post_init__(
        self, num_encoder_layers: int | None = None, num_llm_layers: int | None = None, **kwargs
    ):
        super().__post_init__(**kwargs)
        self.auto_map = dict(AUTO_MAP)
        self.custom_pipelines = copy.deepcopy(CUSTOM_PIPELINES)
        audio_geometry(self.audio_config)  # an encoder that is not supported shows here
        self._check_layers()
        self._check_llm_layers()
        if num_encoder_layers is not None:
            self.num_encoder_layers = num_encoder_layers
        if num_llm_layers is not None:
            self.num_llm_layers = num_llm_layers
        self._check_projector()
        self._check_ctc()
        if self.final_layer_norm not in FINAL_LAYER_NORMS:
            raise ValueError(
                f"`final_layer_norm` must be one of {[*FINAL_LAYER_NORMS]}, got {self.final_layer_norm!r}."
            )
        if self.text_style not in ("normalized", "written"):
            raise ValueError(f"`text_style` must be normalized or written, got {self.text_style!r}.")
        for part in LORA_PARTS:
            self._check_lora(part)
        self._check_trained()
        if self.audio_token_id is None:
            self.audio_token_id = self.text_config.vocab_size

    def _check_lora(self, part: str) -> None:
        prefix = LORA_PARTS[part]
        rank, alpha, dropout, target_modules = self.lora_settings(part).values()
        if rank < 0:
            raise ValueError(f"`{prefix}rank` must be 0 (no LoRA) or positive, got {rank}.")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"`{prefix}dropout` must lie in [0, 1), got {dropout}.")
        if rank and not alpha > 0:
            raise ValueError(f"`{prefix}alpha` must be positive, got {alpha}.")
        if rank and not target_modules:
            raise ValueError(f"`{prefix}target_modules` is empty; name layers, or set `{prefix}rank` to 0.")
        model_type = self.audio_config.model_type if part == "encoder" else None
        silent = [
            name for name in target_modules if name.rpartition(".")[2] in NEVER_CALLED.get(model_type, ())
        ]
        if rank and silent:
            raise ValueError(
                f"`{prefix}target_modules` names {silent[0]!r}, and LoRA there has no effect: the attention "
                f"of this encoder ({model_type}) reads the weights of the layer and does not call it. Name "
                "others, such as `intermediate_dense output_dense`."
            )
        setattr(self, f"{prefix}target_modules", list(target_modules))

    def _check_trained(self) -> None:
        """Layers in `trained_encoder_layers` that are not kept have no effect: fewer may have been loaded."""
        layers = self.trained_encoder_layers or []
        is_merged = any(isinstance(layer, list) for layer in self.kept_encoder_layers)
        if is_merged and (layers or self.encoder_lora_rank):
            trained = "trained_encoder_layers" if layers else "encoder_lora_rank"
            raise ValueError(
                f"`{trained}` cannot stand beside merged layers, {self.kept_encoder_layers}: what would be "
                "trained belongs to no layer of the base encoder. Choose another `layer_choice`."
            )
        layers = sorted(set(layers))
        total = self.audio_config.num_hidden_layers
        if layers and not 0 <= layers[0] <= layers[-1] < total:
            raise ValueError(f"`trained_encoder_layers` must lie between 0 and {total - 1}, got {layers}.")
        self.trained_encoder_layers = layers
        if layers and self.encoder_lora_rank:
            raise ValueError(
                f"`encoder_lora_rank` is {self.encoder_lora_rank} and `trained_encoder_layers` "
                f"(`--train_encoder_layers`) {layers}: LoRA is for frozen weights; leave one of them out."
            )
        if self.quantization not in (None, "4bit", "8bit"):
            raise ValueError(f"`quantization` must be 4bit, 8bit or left out, got {self.quantization!r}.")
        if self.train_llm and self.quantization:
            raise ValueError(
                f"`train_llm` trains the LLM's own weights, and `quantization` {self.quantization} packs "
                "them, which leaves them frozen; leave one of them out."
            )
        if self.train_llm and self.lora_rank:
            raise ValueError(
                f"`train_llm` trains the LLM's own weights, and `lora_rank` is {self.lora_rank}: LoRA is for "
                "frozen ones; set it to 0."
            )

    def _check_layers(self) -> None:
        total = self.audio_config.num_hidden_layers
        kept = list(range(total)) if self.kept_encoder_layers is None else list(self.kept_encoder_layers)
        groups = [layers if isinstance(layers, list) else [layers] for layers in kept]
        each = [layer for layers in groups for layer in layers]
        if not all(groups) or not each or each != sorted(set(each)) or each[0] < 0 or each[-1] >= total:
            raise ValueError(f"`kept_encoder_layers` must be ascending between 0 and {total - 1}: {kept}.")
        kept = [layers[0] if len(layers) == 1 else layers for layers in groups]
        if each[0] != 0 and self.audio_config.model_type in FIRST_LAYER_NEEDED_BY:
            raise ValueError(
                "`kept_encoder_layers` must begin with 0: layer 0 of this encoder "
                f"({self.audio_config.model_type}) holds the position embedding of all layers. Got {kept}."
            )
        self.kept_encoder_layers = kept

    def _check_llm_layers(self) -> None:
        total = self.text_config.num_hidden_layers
        kept = list(range(total)) if self.kept_llm_layers is None else list(self.kept_llm_layers)
        if not kept or kept != sorted(set(kept)) or kept[0] < 0 or kept[-1] >= total:
            raise ValueError(f"`kept_llm_layers` must be ascending between 0 and {total - 1}: {kept}.")
        self.kept_llm_layers = kept

    def _check_projector(self) -> None:
        if self.projector_type not in PROJECTOR_WIDTHS:
            raise ValueError(
                f"`projector_type` must be one of {sorted(PROJECTOR_WIDTHS)}, got {self.projector_type!r}."
            )
        if self.projector_tail not in ("pad", "drop"):
            raise ValueError(f'`projector_tail` must be "pad" or "drop", got {self.projector_tail!r}.')
        if self.projector_hidden_size is None:
            self.projector_hidden_size = PROJECTOR_WIDTHS[self.projector_type]
        queries = PROJECTOR_QUERIES.get(self.projector_type)
        if queries is None and self.projector_queries is not None:
            raise ValueError(
                f"`projector_queries` is {self.projector_queries}, but {self.projector_type!r} makes a token "
                "per `projector_stack` frames; leave it out."
            )
        if self.projector_queries is None:
            self.projector_queries = queries
        for name in ("projector_stack", "projector_hidden_size", "projector_layers", "projector_queries"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}.")
        if self.projector_context < 1 or self.projector_context % 2 == 0:
            raise ValueError(f"`projector_context` must be odd and positive, got {self.projector_context}.")
        if self.projector_context > 1 and self.projector_type != "stack_mlp":
            raise ValueError(
                "`projector_context` belongs to a stack_mlp projector; set it to 1 for "
                f"{self.projector_type}."
            )
        for name in ("projector_dropout", "projector_frame_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"`{name}` must lie in [0, 1), got {getattr(self, name)}.")
        if self.projector_scale is not None and not self.projector_scale > 0:
            raise ValueError(f"`projector_scale` must be positive, got {self.projector_scale}.")

    def _check_ctc(self) -> None:
        if self.llm_input not in LLM_INPUTS:
            raise ValueError(f"`llm_input` must be one of {[*LLM_INPUTS]}, got {self.llm_input!r}.")
        if self.drop_blanks is not None and not 0.0 < self.drop_blanks <= 1.0:
            raise ValueError(f"`drop_blanks` must lie in (0, 1], or be left out; got {self.drop_blanks}.")
        if self.drop_blanks == 1.0:
            self.drop_blanks = None
        if self.ctc_vocab_size < 0:
            raise ValueError(
                f"`ctc_vocab_size` must be 0 (no CTC head) or positive, got {self.ctc_vocab_size}."
            )
        if self.has_ctc_head and self.projector_queries is not None:
            raise ValueError(
                f"A CTC head cannot read a {self.projector_type} projector, whose tokens have no order in "
                "time; `ctc_vocab_size` must be 0."
            )

    @property
    def has_ctc_head(self) -> bool:
        """Whether the model has a CTC head."""
        return self.ctc_vocab_size > 0

    @property
    def num_encoder_layers(self) -> int:
        """How many encoder layers are kept."""
        return len(self.kept_encoder_layers)

    @num_encoder_layers.setter
    def num_encoder_layers(self, count: int) -> None:
        self.kept_encoder_layers = lowest("encoder", "--keep_layers", self.kept_encoder_layers, count)

    @property
    def num_llm_layers(self) -> int:
        """How many layers of the LLM are kept."""
        return len(self.kept_llm_layers)

    @num_llm_layers.setter
    def num_llm_layers(self, count: int) -> None:
        self.kept_llm_layers = lowest("llm", "--keep_llm_layers", self.kept_llm_layers, count)

    @property
    def prunes_llm(self) -> bool:
        """Whether layers of the LLM are left out."""
        return self.num_llm_layers < self.text_config.num_hidden_layers

    @property
    def audio_geometry(self) -> AudioGeometry:
        """How the encoder counts: samples, features, frames."""
        return audio_geometry(self.audio_config)

    def lora_settings(self, part: str) -> dict[str, Any]:
        """Rank, alpha, dropout and target modules of the LoRA of one of `LORA_PARTS`."""
        return {name: getattr(self, LORA_PARTS[part] + name) for name in LORA_FIELDS}

    def lora_ranks(self) -> dict[str, int]:
        """The field of each rank, and its value."""
        return {name: getattr(self, name) for name in (f"{prefix}rank" for prefix in LORA_PARTS.values())}

    def without_lora(self) -> "SlamAsrConfig":
        """A copy that describes the model before LoRA is put in."""
        plain = copy.deepcopy(self)
        plain.update(dict.fromkeys(self.lora_ranks(), 0))
        return plain

    @property
    def adds_lora(self) -> bool:
        return any(self.lora_ranks().values())

    @property
    def trains_encoder(self) -> bool:
        """Whether anything of the encoder is trained, so that its frames change."""
        trained = any(layer in self.trained_encoder_layers for layer in self.kept_encoder_layers)
        return bool(self.encoder_lora_rank) or trained

    @property
    def is_lean(self) -> bool:
        """Whether checkpoints leave the frozen weights to the base models."""
        has_base_models = self.audio_model_id is not None and self.text_model_id is not None
        return has_base_models and not self.self_contained

    def audio_tokens(self, encoder_frames: Count) -> Count:
        """Audio tokens that the projector makes of a clip of `encoder_frames`."""
        return audio_token_count(
            encoder_frames, self.projector_stack, self.projector_tail, self.projector_queries
        )

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any):
        """As in transformers; what `kwargs` change about the kept layers is checked with the rest.

        `num_encoder_layers=N` and `num_llm_layers=N` keep the lowest N of those that the file keeps.
        """
        names = {f"{which}_{part}_layers" for which in ("num", "kept") for part in ("encoder", "llm")}
        layers = {name: kwargs.pop(name) for name in names & kwargs.keys()}
        if "kept_encoder_layers" in layers:
            config_dict = {**config_dict, "num_encoder_layers": None}
        return super().from_dict({**config_dict, **layers}, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """As in transformers, without the directories that the base configs happened to be read from."""
        output = super().to_dict()
        output["num_encoder_layers"] = self.num_encoder_layers  # for people, and for older code
        # `pipeline` puts classes in the place of names, which no file can hold.
        output["custom_pipelines"] = copy.deepcopy(CUSTOM_PIPELINES)
        for key in self.sub_configs:
            output[key].pop("_name_or_path", None)
        return output


def lowest(part: str, flag: str, kept: list[int], count: int) -> list[int]:
    """The lowest `count` of the kept layers of encoder or LLM."""
    if not 1 <= count <= len(kept):
        raise ValueError(
            f"`num_{part}_layers` (`{flag}`) must be between 1 and {len(kept)}, the layers that can be kept "
            f"({kept}), got {count}."
        )
    return kept[:count]
