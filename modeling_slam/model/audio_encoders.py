"""Speech encoders, on the layers that a model keeps and on each clip's own length; and the LLM on its own.

`B` clips, `F` features (log-mel frames or samples), `T` encoder frames. What the rest of the model knows of
an encoder:

    Encoder(config, num_layers)           of the full encoder's config; built of transformers' own layers
    forward(features, mask)               (B, ..., F) and (B, F), True on real features -> (B, T, D) frames,
                                          zero where their (B, T) mask is False, and that mask
    at_depths(features, mask, depths)     what encoders of fewer layers would give, in one pass
    checkpoint_names(names, kept_layers)  which tensors of a base checkpoint it takes, and what it calls them
    layers, layer_prefix                  the kept layers, and how their tensors' names begin

and, where layers can be run without those below them (of these, Whisper's):

    states(features, mask, depths)        as at_depths, what the layers hand up, before a last LayerNorm
    enters_at                             the depth of such states that it takes as its features; 0 is none

Padding is masked, so a clip's frames do not depend on what else is in its batch. To add an encoder, write the
class, name it in `ENCODERS` by the `model_type` of its config, and say in audio_lengths.py how it counts.
An LLM needs no class: its layers are found and cut by `pruned_llm`.

Source: Whisper, https://huggingface.co/papers/2212.04356; wav2vec 2.0,
https://huggingface.co/papers/2006.11477; HuBERT, https://huggingface.co/papers/2106.07447; WavLM,
https://huggingface.co/papers/2110.13900
"""

import copy
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedConfig, WhisperConfig
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from .audio_lengths import audio_geometry


class PrunedWhisperEncoder(WhisperEncoder):
    """The lowest `num_layers` layers of a Whisper encoder, for clips of any length up to its 30 s.

    transformers' own forward insists on 30 s and ignores masks. On 3000 mel frames this one gives the same.
    """

    layer_prefix: ClassVar[str] = "layers."

    def __init__(self, config: WhisperConfig, num_layers: int):
        super().__init__(config)
        self.geometry = audio_geometry(config)
        self.enters_at = 0
        del self.layers[num_layers:]

    @classmethod
    def checkpoint_names(cls, names: Iterable[str], kept_layers: list[int]) -> dict[str, str]:
        """Name in a Whisper checkpoint -> name in here, where layer `kept_layers[i]` is `layers.i`."""
        inner = {name: f".{name}".partition(".encoder.")[2] for name in names}
        return renumbered(
            {name: own for name, own in inner.items() if own}, cls.layer_prefix, places(kept_layers)
        )

    def forward(
        self, features: torch.Tensor, mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, M, F) log-mel and (B, F), True on real frames -> (B, T, D) frames and their (B, T) mask."""
        (frames,), frame_mask = self.at_depths(features, mask, [len(self.layers)])
        return frames, frame_mask

    def at_depths(
        self, features: torch.Tensor, mask: torch.Tensor | None, depths: list[int]
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """What encoders of the lowest `depths` layers would give, in one pass: frames each, and the mask."""
        by_depth, frame_mask = self.states(features, mask, depths)
        is_padding = ~frame_mask[..., None]
        return [self.layer_norm(states).masked_fill(is_padding, 0) for states in by_depth], frame_mask

    def states(
        self, features: torch.Tensor, mask: torch.Tensor | None, depths: list[int]
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """What the lowest `depths` layers hand up, (B, T, D) each, and the (B, T) mask of real frames.

        Where `enters_at` is above 0, the features are the states (B, T, D) of that depth.
        """
        if self.enters_at:
            hidden = features.to(self.dtype)
            frame_mask = hidden.new_ones(hidden.shape[:2]).bool() if mask is None else mask.bool()
        else:
            hidden, frame_mask = self._below_layers(features, mask)
        attention_mask = create_bidirectional_mask(self.config, hidden, frame_mask)
        by_depth = {}
        for depth in range(self.enters_at + 1, max(depths) + 1):
            hidden = self.layers[depth - 1](hidden, attention_mask)
            if depth in depths:
                by_depth[depth] = hidden
        return [by_depth[depth] for depth in depths], frame_mask

    def _below_layers(
        self, features: torch.Tensor, mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, M, F) log-mel, (B, F) -> (B, T, D) what the lowest layer reads, and the (B, T) mask.

        Raises:
            ValueError: mel bins other than the model's, or more frames than it has positions for (30 s).
        """
        stride = self.geometry.stride
        batch, mel_bins, mel_frames = features.shape
        limit = self.config.max_source_positions * stride
        if mel_bins != self.config.num_mel_bins or not 0 < mel_frames <= limit:
            raise ValueError(
                f"`input_features` has {mel_bins} mel bins and {mel_frames} frames; this encoder takes "
                f"{self.config.num_mel_bins} bins and 1 to {limit} frames of 10 ms. Use the checkpoint's own "
                "`SlamAsrProcessor`, and cut longer audio."
            )
        mel_mask = features.new_ones((batch, mel_frames)).bool() if mask is None else mask.bool()
        frame_mask = mel_mask[:, ::stride]

        # A convolution reaches one frame to each side: what lies past a clip's end must be zero, as its own
        # padding is.
        mel = features.to(self.dtype) * mel_mask[:, None]
        hidden = nn.functional.gelu(self.conv1(mel)) * mel_mask[:, None]
        hidden = nn.functional.gelu(self.conv2(hidden)).transpose(1, 2)  # (B, T, D)
        # By its forward: where weights are offloaded, they are here no sooner.
        return hidden + self.embed_positions(torch.arange(hidden.shape[1], device=hidden.device)), frame_mask


class WaveformEncoder(nn.Module):
    """The lowest `num_layers` layers of wav2vec 2.0, HuBERT or WavLM, as transformers' own model.

    Features are samples at 16 kHz, (B, n). An encoder that normalises over a whole row is run clip by clip,
    for there the padding of a batch would change the frames.

    Raises:
        ValueError: a clip is too short for one frame.
    """

    layer_prefix: ClassVar[str] = "model.encoder.layers."

    def __init__(self, config: PreTrainedConfig, num_layers: int):
        super().__init__()
        self.config: Any = config
        self.geometry = audio_geometry(config)
        self.model = AutoModel.from_config(config)
        self.model.masked_spec_embed = None  # of pretraining; some checkpoints come without it
        del self.layers[num_layers:]
        over_rows = nn.GroupNorm | nn.BatchNorm1d
        self.runs_clip_by_clip = any(isinstance(module, over_rows) for module in self.modules())

    @property
    def layers(self) -> nn.ModuleList:
        return self.model.encoder.layers

    @classmethod
    def checkpoint_names(cls, names: Iterable[str], kept_layers: list[int]) -> dict[str, str]:
        """Name in a checkpoint -> name in here, where layer `kept_layers[i]` is `model.encoder.layers.i`.

        Checkpoints may have a head and a prefix (`wav2vec2.`), and old ones other names of weight norm.
        """
        parts = ("feature_extractor", "feature_projection", "encoder")
        inner = {}
        for name in names:
            first, _, rest = name.partition(".")
            own = name if first in parts else rest
            if own.split(".")[0] in parts:
                own = own.replace(".weight_g", ".parametrizations.weight.original0")
                inner[name] = "model." + own.replace(".weight_v", ".parametrizations.weight.original1")
        return renumbered(inner, cls.layer_prefix, places(kept_layers))

    def forward(
        self, features: torch.Tensor, mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, n) samples and (B, n), True on real ones -> (B, T, D) frames and their (B, T) mask."""
        (frames,), frame_mask = self.at_depths(features, mask, [len(self.layers)])
        return frames, frame_mask

    def at_depths(
        self, features: torch.Tensor, mask: torch.Tensor | None, depths: list[int]
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """What encoders of the lowest `depths` layers would give, in one pass: frames each, and the mask."""
        mask = torch.ones_like(features, dtype=torch.bool) if mask is None else mask.bool()
        samples = mask.sum(dim=1)
        lengths = self.geometry.frames_of_features(samples)
        if lengths.min() < 1:
            raise ValueError(f"A clip has {samples.min().item()} samples, too few for a frame. Leave it out.")
        waves = features.to(self.model.dtype)
        if self.runs_clip_by_clip:
            clips = [wave[:n][None] for wave, n in zip(waves, samples.tolist(), strict=True)]
            by_clip = [self._states(clip, None, depths) for clip in clips]
            by_depth = [
                nn.utils.rnn.pad_sequence([states[0] for states in of_depth], batch_first=True)
                for of_depth in zip(*by_clip, strict=True)
            ]
        else:
            by_depth = self._states(waves, mask.long(), depths)
        # No longer than the longest clip, whatever the samples are padded to.
        frame_mask = torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None]
        by_depth = [frames[:, : frame_mask.shape[1]] for frames in by_depth]
        return [frames.masked_fill(~frame_mask[..., None], 0) for frames in by_depth], frame_mask

    def _states(
        self, waves: torch.Tensor, mask: torch.Tensor | None, depths: list[int]
    ) -> list[torch.Tensor]:
        """(B, n) -> (B, T, D) for each of `depths`, the last LayerNorm included where the model has one."""
        if depths == [len(self.layers)]:
            return [self.model(waves, attention_mask=mask).last_hidden_state]
        states = self.model(waves, attention_mask=mask, output_hidden_states=True).hidden_states
        ends_in_norm = self.config.do_stable_layer_norm
        return [
            self.model.encoder.layer_norm(states[depth]) if ends_in_norm else states[depth]
            for depth in depths
        ]


ENCODERS: dict[str, Any] = {
    "whisper": PrunedWhisperEncoder,
    "wav2vec2": WaveformEncoder,
    "hubert": WaveformEncoder,
    "wavlm": WaveformEncoder,
}


def encoder_layer_prefix(config: Any) -> str:
    """How names of tensors of the encoder's layers begin in a model of a `SlamAsrConfig`."""
    return f"encoder.{ENCODERS[config.audio_config.model_type].layer_prefix}"


def renumbered(names: dict[str, str], layer_prefix: str, numbers: Mapping[int, int]) -> dict[str, str]:
    """`names` with layer i under the number `numbers[i]`, without the layers that have none."""
    result = {}
    for name, own in names.items():
        if own.startswith(layer_prefix):
            layer, _, rest = own.removeprefix(layer_prefix).partition(".")
            if int(layer) not in numbers:
                continue
            own = f"{layer_prefix}{numbers[int(layer)]}.{rest}"
        result[name] = own
    return result


def places(kept_layers: list[int]) -> dict[int, int]:
    """Number of a kept layer in the whole model -> its number among those kept."""
    return {layer: place for place, layer in enumerate(kept_layers)}


# ---------------------------------------------------------------- the LLM


def pruned_llm(config: Any) -> tuple[Any, int]:
    """The causal LM of a `SlamAsrConfig` on its kept layers, and how many parameters the others have.

    It is built whole and cut, so that each layer is the one that its number in the whole LLM makes it: with a
    sliding window or none, dense or of experts. Then the layers are numbered anew, because the key-value
    cache goes by these numbers.

    Raises:
        ValueError: this LLM's layers cannot be left out.
    """
    if not config.prunes_llm:
        return AutoModelForCausalLM.from_config(config.text_config), 0
    llm = AutoModelForCausalLM.from_config(copy.deepcopy(config.text_config))
    _, layers = llm_layers(llm)
    total, kept = len(layers), config.kept_llm_layers
    removed = [layer for number, layer in enumerate(layers) if number not in kept]
    for number in reversed(range(total)):
        if number not in kept:
            del layers[number]
    for place, layer in enumerate(layers):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = place  # ty: ignore[invalid-assignment] (a plain number)
    per_layer = {  # such as `layer_types`
        name: [value[number] for number in kept]
        for name, value in vars(llm.config).items()
        if isinstance(value, list) and len(value) == total and not name.endswith("token_id")
    }
    # By `vars`: a config may refuse lists and a number of layers that do not fit each other, even in passing.
    count = llm.config.attribute_map.get("num_hidden_layers", "num_hidden_layers")
    vars(llm.config).update(per_layer | {count: len(kept)})
    check_pruned(config, llm)
    return llm, sum(parameter.numel() for layer in removed for parameter in layer.parameters())


def llm_layers(llm: Any) -> tuple[str, nn.ModuleList]:
    """Name and list of the layers of a causal LM, whole or pruned.

    Raises:
        ValueError: it has no such list.
    """
    for name, module in llm.named_modules():  # the outermost comes first
        if isinstance(module, nn.ModuleList) and len(module) == llm.config.num_hidden_layers:
            return name, module
    raise ValueError(
        f"The layers of a {type(llm).__name__} are no list of {llm.config.num_hidden_layers}, so none can be "
        "left out: leave out `--keep_llm_layers` and `kept_llm_layers`."
    )


def check_pruned(config: Any, llm: Any) -> None:
    """Refuse an LLM whose layers depend on one another, or on numbers that do not follow the cut."""
    whole, left = config.text_config, llm.config
    wrong = [
        name
        for name in ("layer_types", "layers_block_type")
        if getattr(whole, name, None) is not None
        and list(getattr(left, name)) != [getattr(whole, name)[number] for number in config.kept_llm_layers]
    ]
    if getattr(whole, "num_kv_shared_layers", 0):
        wrong.append("num_kv_shared_layers")
    if wrong:
        raise ValueError(
            f"Layers of this LLM ({whole.model_type}) cannot be left out, because they depend on one another "
            f"(`{wrong[0]}`): leave out `--keep_llm_layers` and `kept_llm_layers`."
        )


def llm_layer_prefix(config: Any) -> str:
    """How names of tensors of the LLM's layers begin, such as `model.layers.`."""
    with torch.device("meta"):
        llm = AutoModelForCausalLM.from_config(config.text_config)
    return f"{llm_layers(llm)[0]}."
