"""Checkpoints in two formats, written by one `save_pretrained` and read by one `from_pretrained`.

    lean  what is trained; the config names the base models, which are read for the rest
    full  every weight; needs no base model (`config.self_contained`)

LoRA is there once more for plain PEFT, the LLM's in `adapter/`, the encoder's in `encoder_adapter/`; only the
root weights are ever read back here. All weights come as named, unread slices of safetensors files, of the
checkpoint and of the base models alike; transformers' loader reads those that this model keeps, so no dropped
layer and no decoder of Whisper is ever read. Saving compares what it leaves out with the base models: what
they do not hold is written.
"""

import contextlib
import copy
import hashlib
import itertools
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedConfig, PreTrainedModel
from transformers.dynamic_module_utils import custom_object_save
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from transformers.utils.hub import cached_file, get_checkpoint_shard_files

from .audio_encoders import ENCODERS, encoder_layer_prefix, llm_layer_prefix, places, renumbered
from .configuration_slam import LORA_PARTS, SlamAsrConfig
from .ctc_head import CtcHead
from .lora import (
    LLM,
    LORA_WEIGHT,
    OWN_LORA,
    OWN_LORA_WEIGHT,
    LoraAdapters,
    base_name,
    is_trained,
    trained_in_full,
)
from .pipeline_slam import SlamAsrPipeline
from .projectors import PROJECTORS

logger = logging.getLogger(__name__)
HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token")
# Of transformers' `from_pretrained`: each would read weights in another way than this loader does.
REFUSED = ("gguf_file", "key_mapping", "ignore_mismatched_sizes")
SKIP_LISTS = ("llm_int8_skip_modules", "modules_to_not_convert", "skip_modules")  # of quantisation configs


class SlamAsrPreTrainedModel(LoraAdapters, PreTrainedModel):  # ty: ignore[incompatible-method-override]
    """Saving and loading for `SlamAsrForConditionalGeneration`."""

    config_class = SlamAsrConfig
    projector: Any

    # ---------------------------------------------------------------- out

    def save_pretrained(  # ty: ignore[incompatible-method-override] (the rest goes to transformers by name)
        self,
        save_directory: str | os.PathLike,
        is_main_process: bool = True,
        state_dict: dict[str, torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        """As in transformers: a full checkpoint if `config.self_contained` or without base models, else lean.

        A lean one whose frozen weights are no longer those of the base models (LoRA was merged into them, or
        they were trained) becomes a full one, with a warning.

        Raises:
            ValueError: nothing has been written, because it could not be loaded: the model has other weights
                than its config describes, or a full checkpoint is due while a foreign adapter is loaded or
                the model is quantised.
        """
        if kwargs.pop("push_to_hub", False):  # transformers would push before all files are there
            raise ValueError("Save without `push_to_hub=True`, or call `model.push_to_hub(repo_id)`.")
        weights = self.state_dict() if state_dict is None else state_dict
        if is_main_process:
            self._settle_format(weights)
        self._keys_to_ignore_on_save = self.left_out()
        trained_dtype = next(self.projector.parameters()).dtype
        self.config.trained_in_float32 = trained_dtype == torch.float32 != self.dtype
        with self._as_unquantised():
            super().save_pretrained(save_directory, is_main_process, dict(weights), **kwargs)
        if is_main_process:
            custom_object_save(SlamAsrPipeline, save_directory)  # the config names it in `custom_pipelines`
            self.write_peft_copies(Path(save_directory), weights)

    def _settle_format(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Check that what is written can be loaded; a lean format that would lose weights becomes full."""
        own = [name for name in weights if OWN_LORA_WEIGHT.search(name)]
        for part, prefix in LORA_PARTS.items():
            if not any(name.startswith(f"{part}.") for name in own):
                self.config.update({f"{prefix}rank": 0})  # PEFT has merged or unloaded it
        is_quantised = getattr(self, "is_quantized", False)
        if not is_quantised:
            self._check_names(weights)
        if self.config.is_lean and (changed := self._changed_base_weights(weights)):
            logger.warning(
                "The checkpoint becomes a full one (`config.self_contained`): %s are not what the base "
                "models %s and %s hold.",
                changed, self.config.audio_model_id, self.config.text_model_id,
            )  # fmt: skip
            self.config.self_contained = True
        if self.config.is_lean:
            return
        if foreign := sorted(set(self.adapters()) - {OWN_LORA}):
            raise ValueError(
                f"A full checkpoint cannot hold the adapters {foreign}. Drop them by `delete_adapter`, or "
                "make the active one part of the LLM by `merge_lora()`."
            )
        if is_quantised:
            raise ValueError("A quantised model is saved as a lean checkpoint only; load it unquantised.")

    def _check_names(self, weights: Mapping[str, torch.Tensor]) -> None:
        with torch.device("meta"):
            described = {base_name(name) for name in type(self)(self.config).state_dict()}
        # Adapters of others do not travel with the checkpoint.
        ours = {n for n in weights if OWN_LORA_WEIGHT.search(n) or not LORA_WEIGHT.search(n)}
        if wrong := described ^ {base_name(name) for name in ours}:
            raise ValueError(
                f"The model's weights are not those that its config describes: missing or too many are "
                f"{', '.join(sorted(wrong)[:4])}, {len(wrong)} in all. A checkpoint of them could not be "
                "loaded. Merge or unload what was put around its layers (`merge_and_unload()` of PEFT) and "
                "save again."
            )

    def _changed_base_weights(self, weights: Mapping[str, torch.Tensor]) -> str | None:
        """Weights that a lean checkpoint leaves out and the base models do not give back; `None` for none."""
        try:
            base = base_tensors(self.config, frozen_alone=True)
        except (OSError, RuntimeError) as error:
            return f"the frozen weights (the base models cannot be read: {error})"
        frozen = {
            base_name(name): tensor
            for name, tensor in weights.items()
            if not (is_trained(name, self.config) or LORA_WEIGHT.search(name))
        }
        names = {id(module): f"{name}.weight" for name, module in self.named_modules()}
        head, embeddings = (
            names.get(id(of_llm)) for of_llm in (self.get_output_embeddings(), self.get_input_embeddings())
        )
        if head and embeddings in base:
            base.setdefault(head, base[embeddings])  # a base that ties them holds one
        changed = sorted(n for n in frozen.keys() & base if not gives_back(base[n], frozen[n]))
        return ", ".join([*changed[:3], "…"] if len(changed) > 3 else changed) or None

    def left_out(self) -> set[str]:
        """Names of the weights that a checkpoint does not hold because the base models do."""
        if not self.config.is_lean:
            return set()
        return {name for name in self.state_dict() if not is_trained(name, self.config)}

    @property
    def dtype(self) -> torch.dtype:
        """That of the frozen weights; a part that is trained itself may be float32 beside them."""
        part = getattr(self, LLM if self.config.trained_encoder_layers else "encoder")
        return next(weight.dtype for weight in part.parameters() if weight.is_floating_point())

    @contextlib.contextmanager
    def _as_unquantised(self):
        """A lean checkpoint holds no quantised weight: who loads it decides anew."""
        owners = {"quantization_config": vars(self.config), "hf_quantizer": vars(self)}
        taken = {name: owner.pop(name) for name, owner in owners.items() if name in owner}
        try:
            yield
        finally:
            for name, value in taken.items():
                owners[name][name] = value

    # ---------------------------------------------------------------- in

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, config=None, **kwargs):
        """As in transformers; what a lean checkpoint leaves out is read from its base models.

        `num_encoder_layers=N` keeps the lowest N of the layers that the checkpoint was trained with, and
        `num_llm_layers=N` those of the LLM. Without `dtype`, weights come in the dtypes they were saved from;
        with it, all in that one. A `quantization_config` is applied to the frozen layers; projector, LoRA and
        the LLM's output layer stay as they are.

        Raises:
            ValueError: more layers than the checkpoint was trained with, or an argument that does not apply.
            RuntimeError: weights are missing, unexpected or of another shape, each named, or a base model is
                not the one the checkpoint was trained on.
            OSError: the checkpoint or a base model cannot be found.
        """
        if pretrained_model_name_or_path is None:  # transformers' way for a config and a `state_dict`
            loaded: Any = super().from_pretrained(None, *model_args, config=config, **kwargs)
            model = loaded[0] if isinstance(loaded, tuple) else loaded
            model.freeze()  # loading gives gradients to all
            return loaded
        check_arguments(kwargs)
        hub = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
        source = str(pretrained_model_name_or_path)
        place = {"revision": kwargs.pop("revision", None), "subfolder": kwargs.pop("subfolder", ""), **hub}
        variant, tells = kwargs.pop("variant", None), kwargs.pop("output_loading_info", False)
        generation_config = kwargs.pop("generation_config", None)
        legacy, dtype = kwargs.pop("torch_dtype", None), kwargs.pop("dtype", None)
        if asks_for_dtype := (dtype or legacy or "auto") != "auto":
            kwargs["dtype"] = dtype or legacy
        trained: Any = SlamAsrConfig.from_pretrained(source, **place)
        if not isinstance(config, PreTrainedConfig):  # none, or where one lies
            config, kwargs = SlamAsrConfig.from_pretrained(
                config or source, return_unused_kwargs=True, **{**kwargs, **place}
            )
        config = copy.deepcopy(config)
        config.trained_in_float32 = trained.trained_in_float32 and not asks_for_dtype
        check_layers(config, trained, source)

        tensors = without_dropped(lazy_tensors(source, variant, **place), config, trained)
        if config.is_lean:
            tensors = base_tensors(config, frozen_alone=True, **hub) | tensors
        model, info = cls._from_tensors(tensors, config, source, **kwargs)
        model.name_or_path = model.config.name_or_path = source
        with contextlib.suppress(OSError):  # a checkpoint may come without generation settings
            model.generation_config = generation_config or GenerationConfig.from_pretrained(source, **place)
        return (model, info) if tells else model

    @classmethod
    def from_base_models(
        cls, config: SlamAsrConfig, trained: Mapping[str, torch.Tensor] | None = None, **kwargs
    ):
        """A model to train: base models as the config names them, fresh projector and LoRA.

        `trained` are weights of projector and CTC head, by the model's names, to begin with instead of fresh
        ones (`trained_parts`); a CTC head needs them. `kwargs` go to transformers' `from_pretrained`
        (`dtype`, `device_map`, `attn_implementation`, `token`, ...).
        """
        if config.has_ctc_head and "ctc_head.token_ids" not in (trained or {}):
            raise ValueError("A CTC head needs `trained` weights, its `token_ids` among them.")
        if not config.has_ctc_head and (config.llm_input != "projector" or config.drop_blanks is not None):
            raise ValueError("`llm_input` and `drop_blanks` need a CTC head: set `ctc_vocab_size`.")
        hub = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
        opened = opened_bases(config, **hub)
        check_digests(config, opened)
        base = of_kept_llm_layers(config, opened)
        if config.projector_scale is None:
            config = copy.deepcopy(config)
            config.projector_scale = projector_scale(llm_embeddings(config, base))
        tensors = base | (trained_parts(config).state_dict() if trained is None else dict(trained))
        model, _ = cls._from_tensors(tensors, config, "the base models", fresh_lora=True, **kwargs)
        digests = base_digests(config, opened)
        model.config.audio_model_digest, model.config.text_model_digest = digests
        return model

    @classmethod
    def _from_tensors(cls, tensors, config, source, fresh_lora=False, **kwargs):
        """The model of these named tensors, all of them and no others; and transformers' report of them."""
        if kwargs.get("dtype") in (None, "auto"):  # transformers would ask a tensor, but none is read yet
            kwargs["dtype"] = config.dtype or torch.float32
        if kwargs.get("quantization_config") is not None:
            kwargs["quantization_config"] = quantising_the_frozen(kwargs["quantization_config"], cls, config)
        # LoRA is put in when the base layers stand as they will be: quantised, and on their devices.
        own_lora = {name: tensor for name, tensor in tensors.items() if OWN_LORA_WEIGHT.search(name)}
        loaded: Any = super().from_pretrained(
            None,
            config=config.without_lora(),
            state_dict={base_name(name): t for name, t in tensors.items() if name not in own_lora},
            output_loading_info=True,
            **kwargs,
        )
        model, info = loaded
        kinds = {"missing": "missing", "unexpected": "unexpected", "of another shape": "mismatched"}
        problems = [
            f"{kind}: {', '.join(map(str, sorted(names)[:5]))}{' …' if len(names) > 5 else ''}"
            for kind, key in kinds.items()
            if (names := info[f"{key}_keys"])
        ]
        model.config.update(config.lora_ranks())
        if not problems:
            try:
                model.put_in_own_lora(None if fresh_lora else own_lora)
            except RuntimeError as error:
                problems = [str(error)]
        if problems:
            bases = f" (base models {config.audio_model_id} and {config.text_model_id})" * config.is_lean
            raise RuntimeError(
                f"The weights of {source} do not fit its config{bases}. {'; '.join(problems)}. Load it with "
                "the config and base models it was trained with."
            )
        return model, info


def trained_parts(config: SlamAsrConfig) -> nn.ModuleDict:
    """Fresh projector and, where the config has one, CTC head, under the model's names."""
    parts: dict[str, nn.Module] = {"projector": PROJECTORS[config.projector_type](config)}
    return nn.ModuleDict(parts | ({"ctc_head": CtcHead(config)} if config.has_ctc_head else {}))


def llm_embeddings(config: SlamAsrConfig, base: Mapping[str, Any]) -> torch.Tensor:
    """(V, D_llm) float32: what the LLM's input embeddings give for each token; the LLM is not built.

    Args:
        base: the unread tensors of the base models, as `base_tensors` gives them.
    """
    with torch.device("meta"):
        llm = AutoModelForCausalLM.from_config(config.text_config)
    embeddings = llm.get_input_embeddings()
    name = next(name for name, weight in llm.named_parameters() if weight is embeddings.weight)
    # Some LLMs, such as Gemma, multiply in this layer; others, such as Granite, behind it.
    return base[f"{LLM}.{name}"][...].float() * getattr(embeddings, "scalar_embed_scale", 1.0)


def projector_scale(embeddings: torch.Tensor) -> float:
    """The factor that gives outputs of a LayerNorm the mean length of the LLM's (V, D) embeddings.

    Source: https://huggingface.co/papers/2512.08374
    """
    return float(embeddings.norm(dim=1).mean()) / embeddings.shape[1] ** 0.5


def check_arguments(kwargs: dict[str, Any]) -> None:
    """Refuse arguments of transformers' `from_pretrained` that have no meaning here."""
    if kwargs.pop("state_dict", None) is not None:
        raise ValueError(
            "`state_dict` cannot be passed together with a model name. Load the checkpoint and call "
            "`load_state_dict`, or pass `None` as the name, and the config."
        )
    if given := [name for name in REFUSED if kwargs.pop(name, None)]:
        raise ValueError(f"`{given[0]}` does not apply to a SLAM-ASR checkpoint; leave it out.")
    if kwargs.pop("use_safetensors", None) is False:
        raise ValueError("Only safetensors weights are read; leave out `use_safetensors=False`.")


def check_layers(config: Any, trained: Any, source: str) -> None:
    """Of two `SlamAsrConfig`: fewer layers than `trained` can be loaded; others cannot be put in."""
    for part in ("encoder", "llm"):
        kept, had = (getattr(one, f"kept_{part}_layers") for one in (config, trained))
        if kept != had[: len(kept)]:
            raise ValueError(
                f"{source} was trained with {len(had)} {part} layers, {had}; it can be loaded with the "
                f"lowest 1 to {len(had)} of them (`num_{part}_layers`), got `kept_{part}_layers={kept}`."
            )


def quantising_the_frozen(quantization: Any, model_class: Any, config: Any) -> Any:
    """A copy of the quantisation config that leaves out what is trained and the LLM's output layer."""
    quantization = copy.deepcopy(quantization)
    skips = next((name for name in SKIP_LISTS if hasattr(quantization, name)), None)
    if skips is None:
        raise ValueError(
            f"{type(quantization).__name__} cannot be told which layers to leave alone, and would quantise "
            "the projector. Use one with a list of modules to skip, such as `BitsAndBytesConfig`."
        )
    with torch.device("meta"):
        model = model_class(config.without_lora())
    head = model.get_output_embeddings()
    kept = [prefix.removesuffix(".") for prefix in trained_in_full(config)]
    kept += [name for name, module in model.named_modules() if module is head]
    setattr(quantization, skips, [*(getattr(quantization, skips) or []), *kept])
    return quantization


# -------------------------------------------------------------------- tensors of files, opened and unread


def lazy_tensors(model_id: str, variant: str | None = None, **hub_kwargs: Any) -> dict[str, Any]:
    """Name -> unread tensor, to be read by `[...]`, of the checkpoint at a Hub id or directory.

    Raises:
        OSError: there is no such model, it cannot be fetched, it has no safetensors weights, or a file is
            damaged.
    """
    try:
        files = weight_files(model_id, variant, **hub_kwargs)
    except OSError:
        raise
    except Exception as error:  # of the library that speaks HTTP, which is another one from time to time
        raise OSError(
            f"The weights of {model_id} (revision {hub_kwargs.get('revision')}) cannot be fetched ({error}). "
            "Check the network and try again: what has arrived is not fetched twice."
        ) from error
    tensors = {}
    for path in files:
        try:
            file = safe_open(path, framework="pt", backend="mmap")
        except SafetensorError as error:
            raise OSError(f"{path} is truncated or no safetensors file ({error}). Fetch it again.") from error
        tensors |= {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    return tensors


def weight_files(model_id: str, variant: str | None, **hub_kwargs: Any) -> list[str]:
    """The safetensors files of a model, fetched if they are not here."""
    names = [SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME]
    if variant is not None:
        names = [f"{stem}.{variant}.{ending}" for stem, _, ending in (name.rpartition(".") for name in names)]
    try:
        return [str(cached_file(model_id, names[0], **hub_kwargs))]
    except OSError as error:
        with contextlib.suppress(OSError):
            index = cached_file(model_id, names[1], **hub_kwargs)
            return get_checkpoint_shard_files(model_id, index, **hub_kwargs)[0]
        raise OSError(
            f"{model_id} (revision {hub_kwargs.get('revision')}) has no {names[0]} and no index of shards "
            f"that could be read ({error}). Only safetensors weights are read; convert the model, or name "
            "another one."
        ) from error


class MeanTensor:
    """The mean of unread tensors, itself unread; it is made in float32 and has their dtype."""

    def __init__(self, tensors: Iterable[Any]):
        self.tensors = list(tensors)

    def get_shape(self) -> list[int]:
        return self.tensors[0].get_shape()

    def __getitem__(self, part: Any) -> torch.Tensor:
        first, *others = (tensor[part] for tensor in self.tensors)
        return (sum((t.float() for t in others), first.float()) / len(self.tensors)).to(first.dtype)


def encoder_tensors(
    base: dict[str, Any], audio_config: Any, kept_layers: Sequence[int | list[int]]
) -> dict[str, Any]:
    """The encoder's part of a base checkpoint under the model's names, kept layers alone, numbered anew.

    Where `kept_layers` has a list, the layer is the mean of these.
    """
    groups = [layers if isinstance(layers, list) else [layers] for layers in kept_layers]
    sources: dict[str, dict[str, Any]] = {}  # own name -> the tensors that it is made of, by their names
    for layers in itertools.zip_longest(*groups):  # the first of each group, then the second, ...
        names = ENCODERS[audio_config.model_type].checkpoint_names(base, list(layers))
        for name, own in names.items():
            sources.setdefault(f"encoder.{own}", {})[name] = base[name]
    return {
        own: MeanTensor(tensors.values()) if len(tensors) > 1 else next(iter(tensors.values()))
        for own, tensors in sources.items()
    }


def without_layers(tensors: dict[str, Any], layer_prefix: str, layers: range) -> dict[str, Any]:
    """The model's `tensors` without these layers of the part whose layers' names begin so."""
    dropped = tuple(f"{layer_prefix}{layer}." for layer in layers)
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(dropped)}


def without_dropped(tensors: dict[str, Any], config: Any, trained: Any) -> dict[str, Any]:
    """The `tensors` of a checkpoint without the layers that `config` drops of those it was trained with."""
    layers = range(config.num_encoder_layers, trained.num_encoder_layers)
    tensors = without_layers(tensors, encoder_layer_prefix(config), layers)
    if layers := range(config.num_llm_layers, trained.num_llm_layers):
        tensors = without_layers(tensors, f"{LLM}.{llm_layer_prefix(config)}", layers)
    return tensors


def base_tensors(config: Any, frozen_alone: bool = False, **hub_kwargs: Any) -> dict[str, Any]:
    """The base models' weights of a `SlamAsrConfig`, unread, under the names of the model without LoRA.

    `frozen_alone` leaves out an LLM whose own weights are trained: a checkpoint has them all.

    Raises:
        RuntimeError: the config has a digest of a base model, and the weights found have another.
    """
    tensors = opened_bases(config, frozen_alone, **hub_kwargs)
    check_digests(config, tensors)
    return of_kept_llm_layers(config, tensors)


def check_digests(config: Any, tensors: dict[str, Any]) -> None:
    """Refuse `opened_bases` of another digest than the config has, if it has one."""
    expected = {"audio": config.audio_model_digest}
    if has_llm(tensors):
        expected["text"] = config.text_model_digest
    if any(expected.values()):
        # Without an LLM its digest is of nothing, and there is none to compare it with.
        for (part, wanted), found in zip(expected.items(), base_digests(config, tensors), strict=False):
            if wanted not in (None, found):
                raise RuntimeError(
                    f"The weights of {getattr(config, f'{part}_model_id')} (`{part}_model_id`) are not the "
                    f"base weights that this checkpoint was trained on: their digest is {found}, recorded is "
                    f"{wanted}. Put the original model back; `{part}_model_digest=None` takes these "
                    "instead, with whatever results."
                )


def of_kept_llm_layers(config: Any, tensors: dict[str, Any]) -> dict[str, Any]:
    """`opened_bases` with the layers of the LLM that the config keeps, numbered as they are in the model."""
    if not (config.prunes_llm and has_llm(tensors)):
        return tensors
    prefix = f"{LLM}.{llm_layer_prefix(config)}"
    names = renumbered({name: name for name in tensors}, prefix, places(config.kept_llm_layers))
    return {own: tensors[name] for name, own in names.items()}


def has_llm(tensors: Iterable[str]) -> bool:
    return any(name.startswith(f"{LLM}.") for name in tensors)


def opened_bases(config: Any, frozen_alone: bool = False, **hub_kwargs: Any) -> dict[str, Any]:
    """As `base_tensors`, unchecked, and with the LLM's layers all there, under their own numbers."""
    encoder = lazy_tensors(config.audio_model_id, revision=config.audio_model_revision, **hub_kwargs)
    tensors = encoder_tensors(encoder, config.audio_config, config.kept_encoder_layers)
    if frozen_alone and config.train_llm:
        return tensors
    llm = lazy_tensors(config.text_model_id, revision=config.text_model_revision, **hub_kwargs)
    return tensors | {f"{LLM}.{name}": tensor for name, tensor in llm.items()}


def base_digests(config: Any, tensors: dict[str, Any]) -> tuple[str, str]:
    """Digests of the encoder's and the LLM's part of `opened_bases`, of a thousandth of their bytes.

    They tell a model from another one of the same shape, e.g. a fine-tuned one: names, shapes and the first
    row of each tensor, as float32; vectors count whole. Of the encoder's layers only the lowest kept one
    counts, because `config` may keep fewer layers than the checkpoint was trained with; of the LLM all count,
    kept or not.
    """
    tensors = without_layers(tensors, encoder_layer_prefix(config), range(1, config.num_encoder_layers))
    digests = {"encoder": hashlib.sha256(), LLM: hashlib.sha256()}
    for name, tensor in sorted(tensors.items()):
        part, _, name_in_llm = name.partition(".")
        shape = list(tensor.get_shape())
        sample = tensor[:1] if len(shape) > 1 else tensor[...]
        digests[part].update(f"{name if part == 'encoder' else name_in_llm} {shape} ".encode())
        digests[part].update(sample.float().numpy().tobytes())
    return digests["encoder"].hexdigest(), digests[LLM].hexdigest()


def gives_back(stored: Any, tensor: torch.Tensor) -> bool:
    """Whether loading `stored`, in any of the usual dtypes, gives `tensor`.

    Tensors that are elsewhere (meta, of an offloaded module) or packed by quantisation cannot be compared.
    """
    if tensor.is_meta or not tensor.is_floating_point():
        return True
    if list(stored.get_shape()) != list(tensor.shape):
        return False
    original = stored[...].to(tensor.device)
    dtypes = (tensor.dtype, torch.bfloat16, torch.float16, torch.float32)
    return any(torch.equal(original.to(dtype).to(tensor.dtype), tensor) for dtype in dtypes)
