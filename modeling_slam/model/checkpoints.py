"""Checkpoints in two formats, written by one `save_pretrained` and read by one `from_pretrained`.

    lean  projector and LoRA; the config names the base models, which are read for the rest
    full  every weight; needs no base model (`config.self_contained`)

A model with LoRA also gets a copy of it in `adapter/` for plain PEFT; only the root weights are ever read
back here. All weights come as named, unread tensors, of the checkpoint and of the base models alike, and
transformers' loader reads the ones this model keeps. Directories, Hub ids, sharding and auto classes are
transformers'. docs/checkpoints.md has the formats file by file.
"""

import contextlib
import copy
import os
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from .adapters import ADAPTER_DIRECTORY, OWN_LORA, LoraAdapters, is_trained
from .base_weights import base_digests, base_tensors, lazy_tensors, without_layers
from .configuration_slam import SlamAsrConfig
from .projectors import PROJECTORS

HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token")


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

        Raises:
            ValueError: a full checkpoint is due while a foreign adapter is loaded.
        """
        if not self.config.is_lean and self._foreign_adapters():
            raise ValueError(
                f"A full checkpoint cannot hold the adapters {self._foreign_adapters()}. Drop them by "
                "`delete_adapter`, or make the active one part of the LLM by `merge_lora()`."
            )
        self._keys_to_ignore_on_save = self._left_out()
        trained_dtype = next(self.projector.parameters()).dtype
        self.config.trained_in_float32 = trained_dtype == torch.float32 != self.dtype
        weights = self.state_dict() if state_dict is None else state_dict
        super().save_pretrained(save_directory, is_main_process, dict(weights), **kwargs)
        if is_main_process and self.config.adds_lora:
            self.write_peft_copy(Path(save_directory, ADAPTER_DIRECTORY), weights)

    def _foreign_adapters(self) -> list[str]:
        loaded = self.language_model.peft_config if self.language_model._hf_peft_config_loaded else {}
        return sorted(set(loaded) - {OWN_LORA})

    def _left_out(self) -> set[str]:
        """Names of the weights that a checkpoint does not hold because the base models do."""
        return {name for name in self.state_dict() if not is_trained(name)} if self.config.is_lean else set()

    # ---------------------------------------------------------------- in

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, config=None, **kwargs):
        """As in transformers; what a lean checkpoint leaves out is read from its base models.

        `num_encoder_layers=N` keeps the lowest N of the layers that the checkpoint was trained with. Without
        `dtype`, weights come in the dtypes they were saved from; with it, all in that one.

        Raises:
            ValueError: more encoder layers than the checkpoint was trained with.
            RuntimeError: weights are missing, unexpected or of another shape, each named, or a base model is
                not the one the checkpoint was trained on.
            OSError: the checkpoint or a base model cannot be found.
        """
        hub = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
        source = str(pretrained_model_name_or_path)
        place = {"revision": kwargs.pop("revision", None), "subfolder": kwargs.pop("subfolder", ""), **hub}
        asks_for_dtype = kwargs.get("dtype") not in (None, "auto")
        if not asks_for_dtype:
            kwargs.pop("dtype", None)  # or the config would take "auto" for a dtype
        trained: Any = SlamAsrConfig.from_pretrained(source, **place)
        if config is None:
            config, kwargs = SlamAsrConfig.from_pretrained(
                source, return_unused_kwargs=True, **{**kwargs, **place}
            )
        config = copy.deepcopy(config)
        config.trained_in_float32 = trained.trained_in_float32 and not asks_for_dtype
        check_layers(config, trained, source)

        tensors = lazy_tensors(source, **place)
        if config.is_lean:
            tensors |= base_tensors(config, **hub)
        else:
            tensors = without_layers(tensors, range(config.num_encoder_layers, trained.num_encoder_layers))
        model = cls._from_tensors(tensors, config, source, *model_args, **kwargs)
        model.name_or_path = model.config.name_or_path = source
        with contextlib.suppress(OSError):  # a checkpoint may come without generation settings
            model.generation_config = GenerationConfig.from_pretrained(source, **place)
        return model

    @classmethod
    def from_base_models(cls, config: SlamAsrConfig, **kwargs):
        """A model to train: base models as the config names them, fresh projector and LoRA.

        `kwargs` go to transformers' `from_pretrained` (`dtype`, `device_map`, `attn_implementation`, `token`,
        ...).
        """
        hub = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
        without_lora = copy.deepcopy(config)
        without_lora.lora_rank = 0
        projector = PROJECTORS[config.projector_type](config)
        tensors = base_tensors(without_lora, **hub)
        tensors |= {f"projector.{name}": tensor for name, tensor in projector.state_dict().items()}
        model = cls._from_tensors(tensors, without_lora, "the base models", **kwargs)
        model.config.audio_model_digest, model.config.text_model_digest = base_digests(config, **hub)
        if config.adds_lora:
            model.add_lora(
                config.lora_rank, config.lora_alpha, config.lora_dropout, config.lora_target_modules
            )
        return model

    @classmethod
    def _from_tensors(cls, tensors, config, source, *model_args, **kwargs):
        """Build the model from named tensors, all of them and no others."""
        if kwargs.get("dtype") in (None, "auto"):  # transformers would ask a tensor, but none is read yet
            kwargs["dtype"] = config.dtype or torch.float32
        loaded: Any = super().from_pretrained(
            None, *model_args, config=config, state_dict=tensors, output_loading_info=True, **kwargs
        )
        model, info = loaded
        problems = [
            f"{kind}: {', '.join(map(str, names[:5]))}{' …' if len(names) > 5 else ''}"
            for kind, names in (
                ("missing", sorted(info["missing_keys"])),
                ("unexpected", sorted(info["unexpected_keys"])),
                ("of another shape", sorted(info["mismatched_keys"])),
            )
            if names
        ]
        if problems:
            bases = f" (base models {config.audio_model_id} and {config.text_model_id})" * config.is_lean
            raise RuntimeError(
                f"The weights of {source} do not fit its config{bases}. {'; '.join(problems)}. Load it with "
                "the config and base models it was trained with."
            )
        model.freeze()
        return model


def check_layers(config: Any, trained: Any, source: str) -> None:
    """Of two `SlamAsrConfig`: fewer layers than `trained` can be loaded; others cannot be put in."""
    had, asked = trained.num_encoder_layers, config.num_encoder_layers
    if not 1 <= asked <= had or config.encoder_layer_indices != trained.encoder_layer_indices[:asked]:
        raise ValueError(
            f"{source} was trained with {had} encoder layers, {trained.encoder_layer_indices}; it can be "
            f"loaded with the lowest 1 to {had} of them (`num_encoder_layers`), got "
            f"`num_encoder_layers={asked}`, `kept_encoder_layers={config.kept_encoder_layers}`."
        )
