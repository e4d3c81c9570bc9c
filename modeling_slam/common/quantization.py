"""The frozen LLM's linear layers in 4 or 8 bits, by bitsandbytes: for training (QLoRA) and for inference.

4 bits are NF4 with quantised constants, 8 bits LLM.int8(). Embeddings, norms, the LLM's output layer, LoRA
and projector keep their type, and so does the encoder: its frames stay those that the feature cache holds and
the alignment reads. How much memory that saves: docs/plan.md.

Source: QLoRA, https://huggingface.co/papers/2305.14314; LLM.int8(), https://huggingface.co/papers/2208.07339
"""

import importlib.util
from typing import Any, Literal

import torch
from transformers import BitsAndBytesConfig

Quantization = Literal["4bit", "8bit"]
KEPT = ["encoder"]  # beside what every packed model keeps: see `quantising_the_frozen`


def check_quantization(name: Quantization | None, device: torch.device) -> None:
    """Refuse what cannot be computed here.

    Raises:
        ImportError: bitsandbytes is not installed. ValueError: it does not know the device.
    """
    if name is None:
        return
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ImportError(
            f"`--quantization {name}` needs bitsandbytes, which is not installed: "
            "pip install 'slam-asr[quantised]'"
        )
    import bitsandbytes

    if device.type not in bitsandbytes.supported_torch_devices:
        raise ValueError(
            f"`--quantization {name}`: bitsandbytes {bitsandbytes.__version__} does not compute on "
            f"{device.type}, but on {', '.join(sorted(bitsandbytes.supported_torch_devices))}. Leave it out."
        )


def loading_settings(name: Quantization | None, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """What `from_pretrained` is told: how to pack, and where, because a packed model does not move.

    Args:
        dtype: that of the products, as of the frozen weights which are not packed.
    """
    if name is None:
        return {}
    config = BitsAndBytesConfig(
        load_in_4bit=name == "4bit",
        load_in_8bit=name == "8bit",
        llm_int8_skip_modules=KEPT,  # of 4 bits too, whatever it is called
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return {"quantization_config": config, "device_map": {"": device}}


def keep_trainable(model: torch.nn.Module) -> None:
    """Keep bitsandbytes from packing 4-bit layers anew on a CPU, as it does when they serve a validation.

    Its fast product for that has no gradient, and would hand on none, without a word.
    """
    for layer in model.modules():
        if "support_avx512bf16_for_cpu" in vars(layer):
            vars(layer)["support_avx512bf16_for_cpu"] = False
