"""What is trained, and LoRA by part of the model: put in, switched, exchanged, merged, copied out for PEFT.

The LoRA that a checkpoint is about is the adapter `OWN_LORA` of each part that the config gives a rank. It is
what trains and what is saved, in the root weights under the model's own names, and once more in PEFT's
format. Other adapters of the LLM may sit beside it to be compared or used; they never travel with the
checkpoint. PEFT is asked for only where LoRA is used.

A part that may get LoRA is a row of `LORA_PARTS` and four fields, all in configuration_slam.py.

Source: LoRA, https://huggingface.co/papers/2106.09685
"""

import copy
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from .audio_encoders import ENCODERS, encoder_layer_prefix, llm_layers, places, renumbered
from .configuration_slam import LORA_PARTS

OWN_LORA = "default"
OWN_LORA_WEIGHT = re.compile(rf"\.lora_\w+\.{OWN_LORA}\b")
LORA_WEIGHT = re.compile(r"\.lora_\w+\.")
LLM = "language_model"
# What is trained together, with a learning rate of its own; `part_of` says which weight is of which.
PARTS = ("projector", "ctc_head", "lora", "encoder_lora", "encoder", "llm")
# PEFT copy of each part. Never the root: an `adapter_config.json` there makes a Hub id load as the bare LLM.
ADAPTER_DIRECTORIES = {LLM: "adapter", "encoder": "encoder_adapter"}


def import_peft() -> Any:
    try:
        import peft
        import peft.functional
    except ImportError as error:
        raise ImportError("This model has LoRA, which needs PEFT: `pip install peft`.") from error
    return peft


def is_trained(name: str, config: Any) -> bool:
    """Whether the weight of this name is trained: the checkpoint's own LoRA is, and what stands in full."""
    return name.startswith(trained_in_full(config)) or OWN_LORA_WEIGHT.search(name) is not None


def trained_in_full(config: Any) -> tuple[str, ...]:
    """How the names begin of the weights that a `SlamAsrConfig` trains themselves, not through LoRA."""
    prefix = encoder_layer_prefix(config)
    trained = config.trained_encoder_layers
    layers = [f"{prefix}{n}." for n, layer in enumerate(config.kept_encoder_layers) if layer in trained]
    return ("projector.", "ctc_head.", *layers, *([f"{LLM}."] if config.train_llm else []))


def part_of(name: str) -> str:
    """Which of `PARTS` the weight of this name belongs to; `lora` is the LLM's."""
    module = name.partition(".")[0]
    if LORA_WEIGHT.search(name):
        return LORA_PARTS[module].removesuffix("_")
    return "llm" if module == LLM else module


def base_name(name: str) -> str:
    """The name that a weight has without adapters around its layer."""
    return name.replace(".base_layer.", ".")


def put_in_lora(
    model: Any, part: str, rank: int, alpha: int, dropout: float, target_modules: list[str]
) -> None:
    """Put fresh LoRA into a part; it starts as no change, because its second matrix is zero."""
    peft, module = import_peft(), getattr(model, part)
    check_targets(module, f"`{LORA_PARTS[part]}target_modules`", target_modules)
    settings = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=list(target_modules),
        task_type="CAUSAL_LM" if part == LLM else None,
    )
    peft.inject_adapter_in_model(settings, module, OWN_LORA)
    if model.config.trained_in_float32:  # PEFT gives it the dtype of the frozen weights
        for name, parameter in module.named_parameters():
            if OWN_LORA_WEIGHT.search(name):
                parameter.data = parameter.data.float()


def check_targets(module: nn.Module, flag: str, target_modules: list[str]) -> None:
    """PEFT adapts a layer whose weights another layer shares, and saves what cannot be loaded."""
    weights = [id(weight) for _, weight in module.named_parameters(remove_duplicate=False)]
    for target in target_modules:
        layers = {n: m for n, m in module.named_modules() if f".{n}".endswith(f".{target}")}
        if not layers:
            raise ValueError(f"{flag} names {target!r}, but {type(module).__name__} has no layer called so.")
        for name, layer in layers.items():
            if any(weights.count(id(weight)) > 1 for weight in layer.parameters(recurse=False)):
                raise ValueError(
                    f"{flag} names {target!r}, but {name} shares its weights with another layer (tied "
                    "embeddings), and LoRA cannot adapt one of them alone. Leave it out."
                )


def lora_layers(model: nn.Module, parts: Iterable[str] = LORA_PARTS) -> dict[str, Any]:
    """Name -> layer of each linear layer that PEFT has wrapped in these parts."""
    return {
        f"{part}.{name}": layer
        for part in parts
        if hasattr(getattr(model, part), "peft_config")
        for name, layer in getattr(model, part).named_modules()
        if isinstance(layer, import_peft().tuners.tuners_utils.BaseTunerLayer)
    }


def unwrap(model: nn.Module, layers: Mapping[str, Any]) -> None:
    """Put a model's own layers back where PEFT has wrapped them."""
    for name, layer in layers.items():
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, layer.get_base_layer())


class LoraAdapters(nn.Module):
    """What a model of a `SlamAsrConfig` does with LoRA.

    transformers' adapter methods would search the whole model and put LoRA into the encoder too. Here those
    that load, choose and drop adapters speak of the LLM, where PEFT adapters trained on the plain LLM fit;
    merging and switching off act on every part. All of it goes through PEFT's own functions, which work
    whatever PEFT transformers asks for.
    """

    config: Any
    language_model: Any
    freeze: Any  # leaves gradients to what `is_trained`; PEFT gives them to any adapter

    def add_lora(
        self, rank: int, alpha: int, dropout: float, target_modules: list[str], part: str = LLM
    ) -> None:
        """Give a part of the model, by default the LLM, fresh LoRA weights.

        Raises:
            ValueError: it has LoRA already, it has no such layers or shares their weights, or the config says
                that LoRA cannot stand there.
        """
        if had := self.config.lora_settings(part)["rank"]:
            raise ValueError(f"The model has LoRA of rank {had} already; train that one on.")
        values = {"rank": rank, "alpha": alpha, "dropout": dropout, "target_modules": list(target_modules)}
        fields = {LORA_PARTS[part] + name: value for name, value in values.items()}
        type(self.config).from_dict(self.config.to_dict() | fields)  # what could not be loaded is refused
        put_in_lora(self, part, rank, alpha, dropout, target_modules)
        self.config.update(fields)
        self.freeze()

    def put_in_own_lora(self, weights: Mapping[str, Any] | None = None) -> None:
        """The LoRA of the config, in each part that has one, with these weights or fresh.

        Args:
            weights: tensors, or unread ones, under the model's names.

        Raises:
            RuntimeError: a weight is missing or of another shape.
        """
        for part in LORA_PARTS:
            settings = self.config.lora_settings(part)
            if settings["rank"]:
                put_in_lora(self, part, **settings)
        if weights is not None:
            own = {name: p for name, p in self.named_parameters() if OWN_LORA_WEIGHT.search(name)}
            if wrong := own.keys() ^ weights.keys():
                raise RuntimeError(f"LoRA weights are missing or unexpected: {', '.join(sorted(wrong)[:5])}")
            # Beside layers that are offloaded LoRA stays where these are brought to, to compute.
            places = getattr(self, "hf_device_map", {}).values()
            main_device = next((place for place in places if place not in ("cpu", "disk")), "cpu")
            values = {}
            for name, tensor in weights.items():
                device = main_device if own[name].is_meta else own[name].device
                # A copy, never a view of the file: it is trained.
                values[name] = tensor[...].to(device, own[name].dtype, copy=True)
            self.load_state_dict(values, strict=False, assign=True)
        self.freeze()

    def adapters(self) -> dict[str, Any]:
        """Name -> PEFT config of each adapter of the LLM."""
        return getattr(self.language_model, "peft_config", {})

    def merge_lora(self, parts: Iterable[str] = LORA_PARTS) -> None:
        """Add the active adapters to the weights and drop all adapters: the same model without LoRA.

        `parts` are those of `LORA_PARTS` whose LoRA is merged, all by default.

        The frozen weights are then no longer the base models', so the config becomes `self_contained` and the
        next `save_pretrained` writes a full checkpoint. Sums are rounded to the frozen weights' dtype.

        Raises:
            ValueError: the model has no adapter, it is disabled, or the model is quantised.
        """
        parts = [*parts]
        adapted = lora_layers(self, parts)
        if not adapted:
            raise ValueError("There is no LoRA to merge: the model has no adapter.")
        if any(layer.disable_adapters for layer in adapted.values()):
            raise ValueError("The adapter is disabled; call `enable_adapters()` before `merge_lora()`.")
        if getattr(self, "is_quantized", False):
            raise ValueError("Weights are quantised; load the model without quantisation to merge LoRA.")
        for layer in adapted.values():
            layer.merge(safe_merge=True)
        unwrap(self, adapted)
        for part in parts:
            vars(getattr(self, part)).pop("peft_config", None)
        self.config.update({f"{LORA_PARTS[part]}rank": 0 for part in parts} | {"self_contained": True})
        self.freeze()

    # ---------------------------------------------------------------- transformers' methods

    def add_adapter(self, adapter_config: Any, adapter_name: str | None = None) -> None:
        """Not offered: a checkpoint holds one LoRA, and its shape stands in the config."""
        raise ValueError("Call `add_lora(rank, alpha, dropout, target_modules)` or `load_adapter` instead.")

    def enable_peft_hotswap(self, *args: Any, **kwargs: Any) -> None:
        """Not offered."""
        raise ValueError("Adapters are not swapped in place here; use `load_adapter` and `set_adapter`.")

    def load_adapter(self, peft_model_id: str, adapter_name: str, **kwargs: Any) -> None:
        """Load a PEFT adapter of the LLM beside the model's own, and use it from now on.

        Args:
            peft_model_id: Hub id or directory; for another lean checkpoint add
                `adapter_kwargs={"subfolder": "adapter"}`.
            adapter_name: name for `set_adapter` and `delete_adapter`, any but "default".
            kwargs: `adapter_kwargs`, `token`, `revision`, `cache_dir`, as in transformers.

        Raises:
            ValueError: the name is taken, or the adapter is no LoRA of this LLM's linear layers alone (other
                kinds, biases, whole modules), or its weights do not fit its settings.
        """
        peft = import_peft()
        place = {**kwargs.pop("adapter_kwargs", {})}
        place |= {name: kwargs.pop(name) for name in ("token", "revision", "cache_dir") if name in kwargs}
        if kwargs:
            raise ValueError(f"`load_adapter` does not know {', '.join(sorted(kwargs))}.")
        if adapter_name in {OWN_LORA, *self.adapters()}:
            raise ValueError(f"The name {adapter_name!r} is taken; {OWN_LORA!r} is the model's own LoRA.")
        settings = peft.PeftConfig.from_pretrained(peft_model_id, **place)
        check_adapter(settings, peft_model_id)
        weights = {
            name.removeprefix("base_model.model."): tensor
            for name, tensor in peft.load_peft_weights(peft_model_id, device="cpu", **place).items()
        }
        if self.config.prunes_llm:
            settings, weights = self._of_kept_layers(settings, weights, peft_model_id)
        active = self.active_adapters()
        try:
            peft.inject_adapter_in_model(settings, self.language_model, adapter_name)
            result = peft.set_peft_model_state_dict(self.language_model, weights, adapter_name)
            missing = [name for name in result.missing_keys if f".{adapter_name}." in name]
            if problems := sorted([*result.unexpected_keys, *missing]):
                raise ValueError(f"missing or unexpected are {', '.join(problems[:5])}")
        except (ValueError, RuntimeError) as error:
            self._drop(adapter_name)
            if active:
                self.set_adapter(active)
            raise ValueError(
                f"The adapter {peft_model_id} does not fit this LLM, or its weights do not fit its settings: "
                f"{error}. Save it again with the PEFT and the LLM it was trained with."
            ) from error
        self.set_adapter(adapter_name)

    def _of_kept_layers(self, settings: Any, weights: dict[str, Any], source: str) -> tuple[Any, dict]:
        """Of an adapter of the whole LLM what belongs to the kept layers, numbered as they are here."""
        if settings.rank_pattern or settings.alpha_pattern:
            raise ValueError(
                f"The adapter {source} has ranks or alphas of single layers (`rank_pattern`, "
                "`alpha_pattern`), numbered as in the whole LLM; this model keeps only some of its layers."
            )
        numbers = places(self.config.kept_llm_layers)
        settings, weights = copy.copy(settings), self._llm_renumbered(weights, numbers)
        if not weights:
            raise ValueError(
                f"The adapter {source} is of layers of the LLM that this model does not keep; it keeps "
                f"{self.config.kept_llm_layers}."
            )
        targets = settings.target_modules
        if isinstance(targets, str) or any("." in target for target in targets):
            # They may name single layers, by their numbers in the whole LLM; so do the weights.
            settings.target_modules = {name.partition(".lora_")[0] for name in weights}
            settings.layers_to_transform = None
        elif (adapted := settings.layers_to_transform) is not None:
            adapted = [adapted] if isinstance(adapted, int) else adapted
            settings.layers_to_transform = [numbers[layer] for layer in adapted if layer in numbers]
        return settings, weights

    def _llm_renumbered(self, weights: Mapping[str, Any], numbers: Mapping[int, int]) -> dict[str, Any]:
        """Weights by the LLM's names, with layer i under the number `numbers[i]`, if it has one."""
        prefix = f"{llm_layers(self.language_model)[0]}."
        names = renumbered({name: name for name in weights}, prefix, numbers)
        return {own: weights[name] for name, own in names.items()}

    def set_adapter(self, adapter_name: str | list[str]) -> None:
        """Use this adapter alone, also after `disable_adapters`; "default" is the model's own."""
        import_peft().functional.set_adapter(self.language_model, self._known(adapter_name))
        self._enable(True, [LLM])

    def active_adapters(self) -> list[str]:
        """Names of the adapters in use; none where they are disabled."""
        layers = [layer for layer in lora_layers(self, [LLM]).values() if not layer.disable_adapters]
        return sorted({name for layer in layers for name in layer.active_adapters})

    @property
    def active_adapter(self) -> str:
        """The adapter in use, as PEFT's models name it."""
        names = self.active_adapters()
        if len(names) != 1:
            raise ValueError(f"{len(names)} adapters are in use, {names}; see `active_adapters()`.")
        return names[0]

    def disable_adapters(self) -> None:
        """Run the model as it was before LoRA. LoRA is not trained until `enable_adapters`."""
        self._enable(False)

    def enable_adapters(self) -> None:
        self._enable(True)

    def _enable(self, enabled: bool, parts: Iterable[str] = LORA_PARTS) -> None:
        if not (layers := lora_layers(self, parts)):
            raise ValueError("The model has no adapter.")
        for layer in layers.values():
            layer.enable_adapters(enabled)
        if enabled:
            self.freeze()

    def delete_adapter(self, adapter_names: str | list[str]) -> None:
        """Drop adapters that `load_adapter` brought; the model's own is used again."""
        names = self._known(adapter_names)
        if OWN_LORA in names:
            raise ValueError("The model's own LoRA stays: see `disable_adapters()` and `merge_lora()`.")
        for name in names:
            self._drop(name)
        if self.adapters():
            self.set_adapter(OWN_LORA if OWN_LORA in self.adapters() else next(iter(self.adapters())))

    def _known(self, adapter_names: str | list[str]) -> list[str]:
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        if unknown := [name for name in names if name not in self.adapters()]:
            raise ValueError(f"There is no adapter {unknown[0]!r}; loaded are {sorted(self.adapters())}.")
        return names

    def _drop(self, adapter_name: str) -> None:
        """Take an adapter of the LLM out, and the wrapping of layers that it alone had."""
        import_peft().functional.delete_adapter(self.language_model, adapter_name, prefix="lora_")
        self.adapters().pop(adapter_name, None)
        unwrap(self, {name: layer for name, layer in lora_layers(self, [LLM]).items() if not layer.r})
        if not self.adapters():
            vars(self.language_model).pop("peft_config", None)

    # ---------------------------------------------------------------- out to PEFT

    def get_adapter_state_dict(
        self, adapter_name: str | None = None, state_dict: Mapping[str, torch.Tensor] | None = None
    ) -> dict[str, torch.Tensor]:
        """The weights of one adapter under the LLM's names, without the adapter's, as PEFT stores them."""
        weights = self.state_dict() if state_dict is None else state_dict
        return adapter_weights(self, LLM, adapter_name or self.active_adapter, weights)

    def _in_whole(self, part: str, weights: Mapping[str, Any]) -> dict[str, Any]:
        """Weights of a part by the names that they have in the unpruned one, as transformers builds it."""
        if part == LLM:
            return self._llm_renumbered(weights, dict(enumerate(self.config.kept_llm_layers)))
        prefix = ENCODERS[self.config.audio_config.model_type].layer_prefix
        numbers = dict(enumerate(self.config.kept_encoder_layers))
        names = renumbered({name: name for name in weights}, prefix, numbers)
        return {own.removeprefix("model."): weights[name] for name, own in names.items()}

    def write_peft_copies(self, directory: Path, state_dict: Mapping[str, torch.Tensor]) -> None:
        """The own LoRA in the model's `state_dict`, for plain PEFT: of each part a directory in this one.

        The LLM's is for `PeftModel.from_pretrained(llm, ...)`, the encoder's for the encoder as transformers
        has it (`WhisperModel.encoder`, `Wav2Vec2Model`); both unpruned, on the layers that are kept here.
        """
        for part, place in ADAPTER_DIRECTORIES.items():
            if not self.config.lora_settings(part)["rank"]:
                continue
            lora = adapter_weights(self, part, OWN_LORA, state_dict)
            settings = copy.copy(getattr(self, part).peft_config[OWN_LORA])
            base = "text" if part == LLM else "audio"
            settings.base_model_name_or_path = getattr(self.config, f"{base}_model_id")
            settings.revision = getattr(self.config, f"{base}_model_revision")
            if part == "encoder" or self.config.prunes_llm:
                lora = self._in_whole(part, lora)
                settings.target_modules = {name.partition(".lora_")[0] for name in lora}
            settings.target_modules = sorted(settings.target_modules)  # a set, whose order would vary
            settings.inference_mode = True
            Path(directory, place).mkdir(parents=True, exist_ok=True)
            save_file(
                {f"base_model.model.{name}": tensor.contiguous() for name, tensor in lora.items()},
                Path(directory, place, "adapter_model.safetensors"),
                metadata={"format": "pt"},
            )
            settings.save_pretrained(Path(directory, place))


def adapter_weights(
    model: Any, part: str, adapter_name: str, weights: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The weights of an adapter of this part, of the whole model's, as PEFT stores them."""
    return import_peft().get_peft_model_state_dict(
        getattr(model, part),
        {name.removeprefix(f"{part}."): t for name, t in weights.items() if name.startswith(f"{part}.")},
        adapter_name=adapter_name,
        save_embedding_layers=False,  # by default PEFT asks the Hub whether the vocabulary has grown
    )


def check_adapter(settings: Any, source: str) -> None:
    """Refuse adapters that would change more of the model than LoRA layers that can be dropped again."""
    if settings.peft_type != "LORA":
        raise ValueError(f"The adapter {source} is a {settings.peft_type}; only LoRA can be loaded.")
    if settings.bias != "none":
        what = f"has trained biases (bias={settings.bias!r}), which would stay in the LLM when it is off"
    elif settings.modules_to_save or settings.trainable_token_indices:
        what = "replaces whole modules (`modules_to_save`, `trainable_token_indices`)"
    else:
        return
    raise ValueError(
        f"The adapter {source} {what}. Merge it into its LLM by PEFT, and build the model on that."
    )
