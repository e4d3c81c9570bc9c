"""LoRA of the LLM: put in, switched, exchanged, merged, and copied out for plain PEFT.

The LoRA that a checkpoint is about is the adapter `OWN_LORA`. It is what trains and what is saved, in the
root weights under the model's own names and once more in PEFT's format. Other adapters may sit beside it to
be compared or used; they never travel with the checkpoint. PEFT is asked for only where LoRA is used.

Source: LoRA, https://huggingface.co/papers/2106.09685
"""

import copy
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

OWN_LORA = "default"
OWN_LORA_WEIGHT = re.compile(rf"\.lora_\w+\.{OWN_LORA}\b")
ADAPTER_DIRECTORY = (
    "adapter"  # never the root: an `adapter_config.json` there makes a Hub id load as the bare LLM
)


def is_trained(name: str) -> bool:
    """Whether the parameter of this name learns: the projector and the checkpoint's own LoRA do."""
    return name.startswith("projector.") or OWN_LORA_WEIGHT.search(name) is not None


def import_peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ImportError("This model has LoRA, which needs PEFT: `pip install peft`.") from error
    return peft


class LoraAdapters:
    """What a model with a `language_model` and a `SlamAsrConfig` does with LoRA.

    transformers' adapter methods would search the whole model and put LoRA into the encoder too; here they
    speak of the LLM, where PEFT adapters trained on the plain LLM fit.
    """

    config: Any
    language_model: Any
    freeze: Any  # leaves gradients to what `is_trained`; switching adapters changes them

    def _inject_lora(self) -> None:
        """Put LoRA of the config's shape into the LLM; it starts as no change (its second matrix is zero)."""
        self.language_model.add_adapter(
            import_peft().LoraConfig(
                r=self.config.lora_rank,
                lora_alpha=self.config.lora_alpha,
                lora_dropout=self.config.lora_dropout,
                target_modules=self.config.lora_target_modules,
                task_type="CAUSAL_LM",
            ),
            OWN_LORA,
        )

    def add_lora(self, rank: int, alpha: int, dropout: float, target_modules: list[str]) -> None:
        """Give the LLM fresh LoRA weights. LoRA: https://huggingface.co/papers/2106.09685

        Raises:
            ValueError: the model has LoRA already, or the LLM has no layer of these names.
        """
        if self.config.adds_lora:
            raise ValueError(
                f"The model has LoRA of rank {self.config.lora_rank} already; train that one on."
            )
        self.config.lora_rank, self.config.lora_alpha = rank, alpha
        self.config.lora_dropout, self.config.lora_target_modules = dropout, list(target_modules)
        self._inject_lora()
        self.freeze()

    def merge_lora(self) -> None:
        """Add the active adapter to the LLM's weights and drop all adapters: the same model without LoRA.

        The LLM is then no longer the base model's, so the config becomes `self_contained` and the next
        `save_pretrained` writes a full checkpoint. Sums are rounded to the LLM's dtype.

        Raises:
            ValueError: the model has no adapter, or it is disabled.
        """
        if not self.language_model._hf_peft_config_loaded:
            raise ValueError("There is no LoRA to merge: the model has no adapter.")
        lora_layer = import_peft().tuners.tuners_utils.BaseTunerLayer
        adapted = [(n, m) for n, m in self.language_model.named_modules() if isinstance(m, lora_layer)]
        if any(module.disable_adapters for _, module in adapted):
            raise ValueError("The adapter is disabled; call `enable_adapters()` before `merge_lora()`.")
        for name, module in adapted:
            module.merge(safe_merge=True)
            parent, _, leaf = name.rpartition(".")
            setattr(self.language_model.get_submodule(parent), leaf, module.get_base_layer())
        del self.language_model.peft_config
        self.language_model._hf_peft_config_loaded = False
        self.config.lora_rank = 0
        self.config.self_contained = True
        self.freeze()

    # ---------------------------------------------------------------- transformers' methods, of the LLM

    def load_adapter(self, peft_model_id: str, adapter_name: str, **kwargs: Any) -> None:
        """Load a PEFT adapter of the LLM beside the model's own, and use it from now on.

        Args:
            peft_model_id: Hub id or directory; for another lean checkpoint add
                `adapter_kwargs={"subfolder": "adapter"}`.
            adapter_name: name for `set_adapter` and `delete_adapter`, any but "default".
        """
        self.language_model.load_adapter(peft_model_id, adapter_name, **kwargs)
        self.set_adapter(adapter_name)

    def set_adapter(self, adapter_name: str | list[str]) -> None:
        """Use this adapter alone; "default" is the model's own."""
        self.language_model.set_adapter(adapter_name)
        self.freeze()

    def active_adapters(self) -> list[str]:
        return self.language_model.active_adapters()

    def disable_adapters(self) -> None:
        """Run the LLM as it was before LoRA. LoRA does not learn until `enable_adapters`."""
        self.language_model.disable_adapters()

    def enable_adapters(self) -> None:
        self.language_model.enable_adapters()
        self.freeze()

    def delete_adapter(self, adapter_names: str | list[str]) -> None:
        """Drop adapters that `load_adapter` brought; the model's own is used again.

        Raises:
            ValueError: it is the model's own, which `merge_lora` or `disable_adapters` are for.
        """
        if OWN_LORA in ([adapter_names] if isinstance(adapter_names, str) else adapter_names):
            raise ValueError(
                "The model's own LoRA belongs to its config; `disable_adapters()` switches it off and "
                "`merge_lora()` makes it part of the LLM."
            )
        self.language_model.delete_adapter(adapter_names)
        if self.config.adds_lora:
            self.set_adapter(OWN_LORA)

    # ---------------------------------------------------------------- out to PEFT

    def write_peft_copy(self, directory: Path, state_dict: dict[str, torch.Tensor]) -> None:
        """The own LoRA of the model's `state_dict`, for `PeftModel.from_pretrained(llm, ...)`."""
        prefix = "language_model."
        lora = import_peft().get_peft_model_state_dict(
            self.language_model,
            {name.removeprefix(prefix): t for name, t in state_dict.items() if name.startswith(prefix)},
            adapter_name=OWN_LORA,
            save_embedding_layers=False,  # by default PEFT asks the Hub whether the vocabulary has grown
        )
        directory.mkdir(parents=True, exist_ok=True)
        save_file(
            {f"base_model.model.{name}": tensor.contiguous() for name, tensor in lora.items()},
            directory / "adapter_model.safetensors",
            metadata={"format": "pt"},
        )
        settings = copy.copy(self.language_model.peft_config[OWN_LORA])
        settings.base_model_name_or_path = self.config.text_model_id
        settings.revision = self.config.text_model_revision
        settings.target_modules = sorted(settings.target_modules)  # PEFT keeps a set: its order would vary
        settings.inference_mode = True
        settings.save_pretrained(directory)
