"""Checkpoints in two formats, written by one `save_pretrained` and read by one `from_pretrained`.

    lean  projector and LoRA; the config names the base models, which are read for the rest
    full  every weight; needs no base model (`config.self_contained`)

A model with LoRA on the LLM also gets a copy of it in `adapter/` for plain PEFT; only the root weights are
ever read back here. All weights come as named, unread slices of safetensors files, of the checkpoint and of
the base models alike; transformers' loader reads those that this model keeps, so no dropped layer and no
decoder of Whisper is ever read. Saving compares what it leaves out with the base models: what they do not
hold is written.
"""

import contextlib
import copy
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel
from transformers.dynamic_module_utils import custom_object_save

from .configuration_slam import LORA_PARTS, SlamAsrConfig
from .lora import (
    ADAPTER_DIRECTORY,
    LLM,
    LORA_WEIGHT,
    OWN_LORA,
    OWN_LORA_WEIGHT,
    LoraAdapters,
    base_name,
    is_trained,
)
from .pipeline_slam import SlamAsrPipeline
from .projectors import PROJECTORS
from .stored_tensors import base_digests, base_tensors, gives_back, lazy_tensors, without_layers

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
            if self.config.lora_settings(LLM)["rank"]:
                self.write_peft_copy(Path(save_directory, ADAPTER_DIRECTORY), weights)

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
            base = base_tensors(self.config)
        except (OSError, RuntimeError) as error:
            return f"the frozen weights (the base models cannot be read: {error})"
        frozen = {base_name(n): t for n, t in weights.items() if not (is_trained(n) or LORA_WEIGHT.search(n))}
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
        return {name for name in self.state_dict() if not is_trained(name)} if self.config.is_lean else set()

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

        `num_encoder_layers=N` keeps the lowest N of the layers that the checkpoint was trained with. Without
        `dtype`, weights come in the dtypes they were saved from; with it, all in that one. A
        `quantization_config` is applied to the frozen layers; projector, LoRA and the LLM's output layer
        stay as they are.

        Raises:
            ValueError: more encoder layers than the checkpoint was trained with, or an argument that does
                not apply.
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

        dropped = range(config.num_encoder_layers, trained.num_encoder_layers)
        tensors = without_layers(lazy_tensors(source, variant, **place), dropped, config)
        if config.is_lean:
            tensors |= base_tensors(config, **hub)
        model, info = cls._from_tensors(tensors, config, source, **kwargs)
        model.name_or_path = model.config.name_or_path = source
        with contextlib.suppress(OSError):  # a checkpoint may come without generation settings
            model.generation_config = generation_config or GenerationConfig.from_pretrained(source, **place)
        return (model, info) if tells else model

    @classmethod
    def from_base_models(cls, config: SlamAsrConfig, **kwargs):
        """A model to train: base models as the config names them, fresh projector and LoRA.

        `kwargs` go to transformers' `from_pretrained` (`dtype`, `device_map`, `attn_implementation`, `token`,
        ...).
        """
        base = base_tensors(config, **{name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs})
        projector = PROJECTORS[config.projector_type](config).state_dict()
        tensors = base | {f"projector.{name}": tensor for name, tensor in projector.items()}
        model, _ = cls._from_tensors(tensors, config, "the base models", fresh_lora=True, **kwargs)
        model.config.audio_model_digest, model.config.text_model_digest = base_digests(config, base)
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
    had, asked = trained.num_encoder_layers, config.num_encoder_layers
    if config.kept_encoder_layers != trained.kept_encoder_layers[:asked]:
        raise ValueError(
            f"{source} was trained with {had} encoder layers, {trained.kept_encoder_layers}; it can be "
            f"loaded with the lowest 1 to {had} of them (`num_encoder_layers`), got "
            f"`kept_encoder_layers={config.kept_encoder_layers}`."
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
    kept = ["projector", *(name for name, module in model.named_modules() if module is head)]
    setattr(quantization, skips, [*(getattr(quantization, skips) or []), *kept])
    return quantization
