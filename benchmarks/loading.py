"""Time, bytes read and memory taken by loading a checkpoint, against the weights that the model keeps.

Each load runs in a fresh process, with every library imported before the count begins. Ours is
`model/stored_tensors.py`; mapped is the same model from safetensors' own mapping of each file; plain
is how one loads both base models with transformers, whole, to cut them afterwards. Files are in the page
cache, or thrown out of it before (cold); then what the kernel has read from disk in the end is counted
(`mincore`), read-ahead included. Weights that stay mapped are read at their first use, so every load is
followed by a look at each of them, which has a time of its own. Memory is the process's peak (`VmHWM`) over
both, less what it held before. Linux only.
"""

import ctypes
import mmap
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft  # noqa: F401 (loaded before the count, as everything that loading imports)
import torch
from modeling_slam.model.base_weights import base_tensors, lazy_tensors
from safetensors import safe_open
from transformers import AutoModelForCausalLM, WhisperForConditionalGeneration

from benchmarks.arguments import OURS
from benchmarks.memory import in_fresh_process
from modeling_slam import SlamAsrConfig, SlamAsrForConditionalGeneration
from modeling_slam.model import base_weights


def kernel_count(file: str, name: str) -> int:
    """Field `name` of /proc/self/`file`, as the number it is."""
    found = re.search(rf"^{name}:\s+(\d+)", Path("/proc/self", file).read_text(), re.MULTILINE)
    if found is None:
        raise OSError(f"/proc/self/{file} has no {name}: this benchmark needs Linux.")
    return int(found[1])


def weight_files(model: str, config: SlamAsrConfig) -> list[Path]:
    """Safetensors files that the checkpoint's weights may come from; base models must be directories."""
    sources = [model, *([config.audio_model_id, config.text_model_id] if config.is_lean else [])]
    return [file for source in sources for file in sorted(Path(str(source)).glob("*.safetensors"))]


def forget(file: Path) -> None:
    """Throw the file out of the page cache."""
    with file.open("rb") as handle:
        os.fsync(handle.fileno())
        os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cached_bytes(file: Path) -> int:
    """Bytes of the file that are in the page cache."""
    size = file.stat().st_size
    pages = -(-size // mmap.PAGESIZE)
    resident = (ctypes.c_ubyte * pages)()
    libc = ctypes.CDLL(None, use_errno=True)
    with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, mmap.MAP_PRIVATE) as mapping:
        anchor = ctypes.c_char.from_buffer(mapping)
        address = ctypes.c_void_p(ctypes.addressof(anchor))
        failed = libc.mincore(address, ctypes.c_size_t(size), resident)
        del anchor  # or the mapping cannot be closed
    if failed:
        raise OSError(ctypes.get_errno(), f"mincore failed on {file}")
    return sum(page & 1 for page in resident) * mmap.PAGESIZE


def stored_bytes(model: str, config: SlamAsrConfig) -> int:
    """Bytes in files of the weights that the model keeps."""
    tensors = lazy_tensors(model)
    if config.is_lean:
        tensors |= base_tensors(config)
    return sum(tensor.nbytes for tensor in tensors.values())


class PlainlyMapped:
    """safetensors' own unread tensor, in place of `StoredTensor`."""

    def __init__(self, tensor: Any):
        self.tensor, self.shape = tensor, tuple(tensor.get_shape())

    def __getitem__(self, index: Any) -> torch.Tensor:
        return self.tensor[index]


def plain_mapping(file: str) -> dict[str, PlainlyMapped]:
    handle = safe_open(file, framework="pt")
    return {name: PlainlyMapped(handle.get_slice(name)) for name in handle.keys()}  # noqa: SIM118


def load_ours(model: str, dtype: str) -> list[torch.nn.Module]:
    return [SlamAsrForConditionalGeneration.from_pretrained(model, dtype=dtype)]


def load_mapped(model: str, dtype: str) -> list[torch.nn.Module]:
    """With safetensors' own reading of files in the place of ours."""
    reader = vars(base_weights)
    before, reader["stored_tensors"] = reader["stored_tensors"], plain_mapping
    try:
        return load_ours(model, dtype)
    finally:
        reader["stored_tensors"] = before


def load_plainly(model: str, dtype: str) -> list[torch.nn.Module]:
    config = SlamAsrConfig.from_pretrained(model)
    return [
        WhisperForConditionalGeneration.from_pretrained(str(config.audio_model_id), dtype=dtype),
        AutoModelForCausalLM.from_pretrained(str(config.text_model_id), dtype=dtype),
    ]


LOADS = {OURS: load_ours, "mapped": load_mapped, "plain": load_plainly}


def measure_load(
    load: Callable[[str, str], list[torch.nn.Module]], model: str, dtype: str, cold: bool
) -> dict[str, float | str]:
    """Load once in this process, a fresh one, by one of `LOADS`."""
    config = SlamAsrConfig.from_pretrained(model)
    files = weight_files(model, config)
    stored = stored_bytes(model, config)
    for file in files:
        if not cold:
            file.read_bytes()
            continue
        forget(file)
        if cached_bytes(file):
            raise OSError(f"{file} cannot be thrown out of the page cache; somebody else uses it.")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    memory, start = kernel_count("status", "VmRSS"), time.perf_counter()
    models = load(model, dtype)
    seconds = time.perf_counter() - start
    weights = [parameter for model in models for parameter in model.parameters()]
    for weight in weights:
        weight.view(torch.uint8).max()
    look = time.perf_counter() - start - seconds
    peak = 1024 * (kernel_count("status", "VmHWM") - memory)
    kept = sum(weight.numel() * weight.element_size() for weight in weights)
    report = {
        "dtype": dtype,
        "seconds": round(seconds, 2),
        "seconds_of_the_look": round(look, 2),
        "bytes_kept": kept,
        "peak_bytes": peak,
        "peak_ratio": round(peak / kept, 4),
    }
    if cold:
        from_disk = sum(cached_bytes(file) for file in files)
        report |= {
            "bytes_in_files": sum(file.stat().st_size for file in files),
            "bytes_stored_of_kept_weights": stored,
            "bytes_from_disk": from_disk,
            "disk_ratio": round(from_disk / stored, 4),
        }
    return report


def measure(checkpoint: str, dtypes: tuple[str, ...] = ("float32", "bfloat16")) -> dict[str, Any]:
    """Sizes of the checkpoint's files, and all ways to load, in each dtype, cold and from the page cache."""
    directory = Path(checkpoint)
    config = SlamAsrConfig.from_pretrained(checkpoint)
    if not config.is_lean or not Path(str(config.audio_model_id)).is_dir():
        raise ValueError(f"{checkpoint} must be a lean checkpoint whose base models are directories.")
    adapter = directory / "adapter/adapter_model.safetensors"
    return {
        "checkpoint_bytes": sum(file.stat().st_size for file in directory.rglob("*") if file.is_file()),
        "root_weights_bytes": sum(file.stat().st_size for file in directory.glob("*.safetensors")),
        "peft_copy_bytes": adapter.stat().st_size if adapter.exists() else 0,
        "encoder_layers": [config.num_encoder_layers, config.audio_config.encoder_layers],
        "settings": {
            f"{name}, {dtype}, {'cold' if cold else 'cached'}": in_fresh_process(
                measure_load, load, checkpoint, dtype, cold
            )
            for dtype in dtypes
            for cold in (True, False)
            for name, load in LOADS.items()
        },
    }
