"""LoRA by part of the model: put in, switched, exchanged, merged, and copied out for plain PEFT.

The LoRA that a checkpoint is about is the adapter `OWN_LORA`. It is what trains and what is saved, in the
root weights under the model's own names and once more in PEFT's format. Other adapters of the LLM may sit
beside it to be compared or used; they never travel with the checkpoint. PEFT is asked for only where LoRA is
used.

A part that may get LoRA is a row of `LORA_PARTS` and, in `SlamAsrConfig`, four fields that begin with its
prefix.

Source: LoRA, https://huggingface.co/papers/2106.09685
"""

import copy
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import nn

OWN_LORA = "default"
OWN_LORA_WEIGHT = re.compile(rf"\.lora_\w+\.{OWN_LORA}\b")
LORA_WEIGHT = re.compile(r"\.lora_\w+\.")
# Never the root: an `adapter_config.json` there makes a Hub id load as the bare LLM.
ADAPTER_DIRECTORY = "adapter"


class LoraPart(NamedTuple):
    module: str  # attribute of the model
    prefix: str  # of the config's fields: its rank, alpha, dropout and target_modules
    task_type: str | None = None  # PEFT's name of what the part is for


LLM_LORA = LoraPart("language_model", "lora_", "CAUSAL_LM")
LORA_PARTS: tuple[LoraPart, ...] = (LLM_LORA,)


def import_peft() -> Any:
    try:
        import peft
        import peft.functional
    except ImportError as error:
        raise ImportError("This model has LoRA, which needs PEFT: `pip install peft`.") from error
    return peft


def is_trained(name: str) -> bool:
    """Whether the parameter of this name is trained: the projector and the checkpoint's own LoRA are."""
    return name.startswith("projector.") or OWN_LORA_WEIGHT.search(name) is not None


def base_name(name: str) -> str:
    """The name that a weight has without adapters around its layer."""
    return name.replace(".base_layer.", ".")


def lora_settings(config: Any, part: LoraPart) -> dict[str, Any]:
    """What a `SlamAsrConfig` says of the LoRA of one part."""
    return {
        name: getattr(config, part.prefix + name) for name in ("rank", "alpha", "dropout", "target_modules")
    }


def set_lora_ranks(config: Any, like: Any) -> None:
    """Give one `SlamAsrConfig` the LoRA ranks of another."""
    for part in LORA_PARTS:
        setattr(config, f"{part.prefix}rank", getattr(like, f"{part.prefix}rank"))


def without_lora(config: Any) -> Any:
    """A copy of the config for the model before LoRA is put in."""
    plain = copy.deepcopy(config)
    for part in LORA_PARTS:
        setattr(plain, f"{part.prefix}rank", 0)
    return plain


def lora_layers(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Name and layer of each linear layer that PEFT has wrapped."""
    if not hasattr(module, "peft_config"):
        return
    layer_class = import_peft().tuners.tuners_utils.BaseTunerLayer
    yield from ((name, layer) for name, layer in module.named_modules() if isinstance(layer, layer_class))


def put_in_lora(
    model: Any, part: LoraPart, rank: int, alpha: int, dropout: float, target_modules: list[str]
) -> None:
    """Put fresh LoRA into a part; it starts as no change, because its second matrix is zero.

    Raises:
        ValueError: no layer has one of the names, or a layer shares its weights with another one.
    """
    peft = import_peft()
    module = getattr(model, part.module)
    check_targets(module, part, target_modules)
    settings = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=list(target_modules),
        task_type=part.task_type,
    )
    peft.inject_adapter_in_model(settings, module, OWN_LORA)


def check_targets(module: nn.Module, part: LoraPart, target_modules: list[str]) -> None:
    """PEFT adapts a layer whose weights another layer shares, and saves what cannot be loaded."""
    flag = f"`{part.prefix}target_modules`"
    weights = [id(weight) for _, weight in module.named_parameters(remove_duplicate=False)]
    for target in target_modules:
        layers = {n: m for n, m in module.named_modules() if f".{n}".endswith(f".{target}")}
        if not layers:
            raise ValueError(
                f"{flag} names {target!r}, but {type(module).__name__} has no layer of this name."
            )
        for name, layer in layers.items():
            if any(weights.count(id(weight)) > 1 for weight in layer.parameters(recurse=False)):
                raise ValueError(
                    f"{flag} names {target!r}, but {name} shares its weights with another layer (tied "
                    "embeddings). LoRA cannot adapt one of them alone. Leave it out."
                )


def unwrap(module: nn.Module, layers: Mapping[str, Any]) -> None:
    """Put the module's own layers back where PEFT has wrapped them."""
    for name, layer in layers.items():
        parent, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(parent), leaf, layer.get_base_layer())


class LoraAdapters:
    """What a model with a `language_model` and a `SlamAsrConfig` does with LoRA.

    transformers' adapter methods would search the whole model and put LoRA into the encoder too; here they
    speak of the LLM, where PEFT adapters trained on the plain LLM fit. All of it goes through PEFT's own
    functions, which work whatever PEFT transformers asks for.
    """

    config: Any
    language_model: Any
    freeze: Any  # leaves gradients to what `is_trained`; switching adapters changes them
    train: Any
    training: bool
    named_parameters: Any
    state_dict: Any
    load_state_dict: Any

    def add_lora(self, rank: int, alpha: int, dropout: float, target_modules: list[str]) -> None:
        """Give the LLM fresh LoRA weights. LoRA: https://huggingface.co/papers/2106.09685

        Raises:
            ValueError: the model has LoRA already, or the LLM has no such layers or shares their weights.
        """
        if self.config.lora_rank:
            raise ValueError(
                f"The model has LoRA of rank {self.config.lora_rank} already; train that one on."
            )
        put_in_lora(self, LLM_LORA, rank, alpha, dropout, target_modules)
        self.config.lora_rank, self.config.lora_alpha = rank, alpha
        self.config.lora_dropout, self.config.lora_target_modules = dropout, list(target_modules)
        self.freeze()

    def put_in_own_lora(self, weights: Mapping[str, Any] | None = None) -> None:
        """The LoRA of the config, in each part that has one, with these weights or fresh.

        Args:
            weights: tensors, or unread ones, under the model's names.

        Raises:
            RuntimeError: a weight is missing or of another shape.
        """
        for part in LORA_PARTS:
            settings = lora_settings(self.config, part)
            if settings["rank"]:
                put_in_lora(self, part, **settings)
        if weights is not None:
            own = {name: p for name, p in self.named_parameters() if OWN_LORA_WEIGHT.search(name)}
            if wrong := own.keys() ^ weights.keys():
                raise RuntimeError(f"LoRA weights are missing or unexpected: {', '.join(sorted(wrong)[:5])}")
            # Beside layers that are offloaded LoRA stays where these are brought to, to compute.
            places = getattr(self, "hf_device_map", {}).values()
            main_device = next((place for place in places if place not in ("cpu", "disk")), "cpu")
            values = {
                name: tensor[...].to(
                    main_device if own[name].is_meta else own[name].device,
                    torch.float32 if self.config.trained_in_float32 else own[name].dtype,
                    copy=True,  # never a view of the file: it is trained
                )
                for name, tensor in weights.items()
            }
            self.load_state_dict(values, strict=False, assign=True)
        elif self.config.trained_in_float32:  # fresh LoRA comes in the dtype of the frozen weights
            for name, parameter in self.named_parameters():
                if OWN_LORA_WEIGHT.search(name):
                    parameter.data = parameter.data.float()
        self.freeze()
        self.train(self.training)  # new layers are as the rest

    def adapters(self) -> dict[str, Any]:
        """Name -> PEFT config of each adapter of the LLM."""
        return getattr(self.language_model, "peft_config", {})

    def merge_lora(self) -> None:
        """Add the active adapters to the frozen weights and drop all adapters: the same model without LoRA.

        The weights are then no longer the base models', so the config becomes `self_contained` and the next
        `save_pretrained` writes a full checkpoint. Sums are rounded to the frozen weights' dtype.

        Raises:
            ValueError: the model has no adapter, it is disabled, or the LLM is quantised.
        """
        parts = [getattr(self, part.module) for part in LORA_PARTS]
        adapted = [layer for part in parts for _, layer in lora_layers(part)]
        if not adapted:
            raise ValueError("There is no LoRA to merge: the model has no adapter.")
        if any(layer.disable_adapters for layer in adapted):
            raise ValueError("The adapter is disabled; call `enable_adapters()` before `merge_lora()`.")
        if getattr(self, "hf_quantizer", None) is not None:
            raise ValueError(
                "LoRA is not merged into quantised weights; load the model without quantisation first."
            )
        for layer in adapted:
            layer.merge(safe_merge=True)
        for part in parts:
            if hasattr(part, "peft_config"):
                unwrap(part, dict(lora_layers(part)))
                del part.peft_config
        self.config = without_lora(self.config)
        self.config.self_contained = True
        self.freeze()

    # ---------------------------------------------------------------- transformers' methods, of the LLM

    def add_adapter(self, adapter_config: Any, adapter_name: str | None = None) -> None:
        """Not offered: a checkpoint holds one LoRA, and its shape stands in the config.

        Raises:
            ValueError: always; it names what to call.
        """
        raise ValueError(
            "Give the model LoRA by `add_lora(rank, alpha, dropout, target_modules)`, which its config then "
            "describes, or load a trained adapter by `load_adapter`."
        )

    def load_adapter(self, peft_model_id: str, adapter_name: str, **kwargs: Any) -> None:
        """Load a PEFT adapter of the LLM beside the model's own, and use it from now on.

        Args:
            peft_model_id: Hub id or directory; for another lean checkpoint add
                `adapter_kwargs={"subfolder": "adapter"}`.
            adapter_name: name for `set_adapter` and `delete_adapter`, any but "default".
            kwargs: `adapter_kwargs`, `token`, `revision`, `cache_dir`, as in transformers.

        Raises:
            ValueError: the name is taken, or the adapter is no LoRA of linear layers alone (other kinds,
                biases,
                whole modules), or its weights do not fit its settings.
        """
        peft = import_peft()
        place = {**kwargs.pop("adapter_kwargs", {})}
        place |= {name: kwargs.pop(name) for name in ("token", "revision", "cache_dir") if name in kwargs}
        if kwargs:
            raise ValueError(f"`load_adapter` does not know {', '.join(sorted(kwargs))}.")
        if adapter_name == OWN_LORA or adapter_name in self.adapters():
            raise ValueError(
                f"The adapter name {adapter_name!r} is taken; {OWN_LORA!r} is the model's own LoRA."
            )
        settings = peft.PeftConfig.from_pretrained(peft_model_id, **place)
        check_adapter(settings, peft_model_id)
        weights = {
            name.removeprefix("base_model.model."): tensor
            for name, tensor in peft.load_peft_weights(peft_model_id, device="cpu", **place).items()
        }
        peft.inject_adapter_in_model(settings, self.language_model, adapter_name)
        result = peft.set_peft_model_state_dict(self.language_model, weights, adapter_name)
        problems = [*result.unexpected_keys, *(n for n in result.missing_keys if f".{adapter_name}." in n)]
        if problems:
            self.delete_adapter(adapter_name)
            raise ValueError(
                f"The weights of the adapter {peft_model_id} do not fit its settings: missing or unexpected "
                f"are {', '.join(sorted(problems)[:5])}. Save it again with the PEFT it was trained with."
            )
        self.set_adapter(adapter_name)
        self.train(self.training)  # new layers are as the rest

    def set_adapter(self, adapter_name: str | list[str]) -> None:
        """Use this adapter alone; "default" is the model's own."""
        names = [adapter_name] if isinstance(adapter_name, str) else adapter_name
        if unknown := [name for name in names if name not in self.adapters()]:
            raise ValueError(f"There is no adapter {unknown[0]!r}; loaded are {sorted(self.adapters())}.")
        import_peft().functional.set_adapter(self.language_model, names)
        self.freeze()

    def active_adapters(self) -> list[str]:
        """Names of the adapters in use; none where they are disabled."""
        names = {
            n
            for _, layer in lora_layers(self.language_model)
            if not layer.disable_adapters
            for n in layer.active_adapters
        }
        return sorted(names)

    @property
    def active_adapter(self) -> str:
        """The adapter in use, as PEFT's models name it."""
        names = self.active_adapters()
        if len(names) != 1:
            raise ValueError(f"{len(names)} adapters are in use, {names}; see `active_adapters()`.")
        return names[0]

    def disable_adapters(self) -> None:
        """Run the LLM as it was before LoRA. LoRA is not trained until `enable_adapters`."""
        self._enable(False)

    def enable_adapters(self) -> None:
        self._enable(True)
        self.freeze()

    def _enable(self, enabled: bool) -> None:
        if not self.adapters():
            raise ValueError("The model has no adapter.")
        for _, layer in lora_layers(self.language_model):
            layer.enable_adapters(enabled)

    def delete_adapter(self, adapter_names: str | list[str]) -> None:
        """Drop adapters that `load_adapter` brought; the model's own is used again.

        Raises:
            ValueError: it is the model's own, which `merge_lora` or `disable_adapters` are for.
        """
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        if OWN_LORA in names:
            raise ValueError(
                "The model's own LoRA belongs to its config; `disable_adapters()` switches it off and "
                "`merge_lora()` makes it part of the LLM."
            )
        if unknown := [name for name in names if name not in self.adapters()]:
            raise ValueError(f"There is no adapter {unknown[0]!r}; loaded are {sorted(self.adapters())}.")
        for name in names:
            import_peft().functional.delete_adapter(self.language_model, name, prefix="lora_")
            del self.language_model.peft_config[name]
        # Layers that only these adapters had wrapped get their own names back.
        unwrap(
            self.language_model, {n: layer for n, layer in lora_layers(self.language_model) if not layer.r}
        )
        if self.adapters():
            self.set_adapter(OWN_LORA if OWN_LORA in self.adapters() else next(iter(self.adapters())))
        else:
            del self.language_model.peft_config

    def get_adapter_state_dict(
        self, adapter_name: str | None = None, state_dict: Mapping[str, torch.Tensor] | None = None
    ) -> dict[str, torch.Tensor]:
        """The weights of one adapter under the LLM's names, without the adapter's, as PEFT stores them."""
        prefix = "language_model."
        weights = self.state_dict() if state_dict is None else state_dict
        return import_peft().get_peft_model_state_dict(
            self.language_model,
            {name.removeprefix(prefix): t for name, t in weights.items() if name.startswith(prefix)},
            adapter_name=adapter_name or self.active_adapter,
            save_embedding_layers=False,  # by default PEFT asks the Hub whether the vocabulary has grown
        )

    def enable_peft_hotswap(self, *args: Any, **kwargs: Any) -> None:
        """Not offered.

        Raises:
            ValueError: always; it names what to call.
        """
        raise ValueError("Adapters are not swapped in place here; use `load_adapter` and `set_adapter`.")

    # ---------------------------------------------------------------- out to PEFT

    def write_peft_copy(self, directory: Path, state_dict: Mapping[str, torch.Tensor]) -> None:
        """The own LoRA of the model's `state_dict`, for `PeftModel.from_pretrained(llm, ...)`."""
        lora = self.get_adapter_state_dict(OWN_LORA, state_dict)
        directory.mkdir(parents=True, exist_ok=True)
        save_file(
            {f"base_model.model.{name}": tensor.contiguous() for name, tensor in lora.items()},
            directory / "adapter_model.safetensors",
            metadata={"format": "pt"},
        )
        settings = copy.copy(self.adapters()[OWN_LORA])
        settings.base_model_name_or_path = self.config.text_model_id
        settings.revision = self.config.text_model_revision
        settings.target_modules = sorted(settings.target_modules)  # PEFT keeps a set: its order would vary
        settings.inference_mode = True
        settings.save_pretrained(directory)


def check_adapter(settings: Any, source: str) -> None:
    """Refuse adapters that would change more of the model than LoRA layers that can be dropped again."""
    if settings.peft_type != "LORA":
        raise ValueError(f"The adapter {source} is a {settings.peft_type}; only LoRA can be loaded.")
    if settings.bias != "none":
        raise ValueError(
            f"The adapter {source} has trained biases (bias={settings.bias!r}), which would stay in the LLM "
            "when the adapter is switched off. Merge it into its LLM by PEFT, and build the model on that."
        )
    if settings.modules_to_save or settings.trainable_token_indices:
        raise ValueError(
            f"The adapter {source} replaces whole modules (`modules_to_save`, `trainable_token_indices`). "
            "Merge it into its LLM by PEFT, and build the model on that."
        )
