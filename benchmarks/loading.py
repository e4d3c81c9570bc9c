"""Bytes read and peak memory of loading a checkpoint, against the weights that the model keeps.

Each load runs in a fresh process, with every library imported before the count begins. Bytes are the
kernel's count of what the process reads (`rchar` of /proc/self/io): weights are read and not mapped, which
is checked, so nothing escapes it but the first rows that the base models' digests take from a mapping. From
disk, with the files thrown out of the page cache first, comes what is then in it (`mincore`): read-ahead
and those rows included. Memory is the process's peak (`VmHWM`) less what it held before. Plain is how one
loads both base models with transformers, whole, to cut them afterwards. Linux only.
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
from transformers import AutoModelForCausalLM, WhisperForConditionalGeneration

from benchmarks.arguments import OURS
from benchmarks.memory import in_fresh_process
from modeling_slam import SlamAsrConfig, SlamAsrForConditionalGeneration
from modeling_slam.base_weights import base_tensors, lazy_tensors

ITEM_BYTES = {"F32": 4, "BF16": 2, "F16": 2}


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
    total = 0
    for tensor in tensors.values():
        count = 1
        for size in tensor.get_shape():
            count *= size
        total += count * ITEM_BYTES[tensor.get_dtype()]
    return total


def load_ours(model: str, dtype: str) -> Any:
    return SlamAsrForConditionalGeneration.from_pretrained(model, dtype=dtype)


def load_plainly(model: str, dtype: str) -> Any:
    config = SlamAsrConfig.from_pretrained(model)
    return [
        WhisperForConditionalGeneration.from_pretrained(str(config.audio_model_id), dtype=dtype),
        AutoModelForCausalLM.from_pretrained(str(config.text_model_id), dtype=dtype),
    ]


def measure_load(load: Callable[[str, str], Any], model: str, dtype: str) -> dict[str, float | str]:
    """Load once in this process, a fresh one, by `load`, one of the two functions above."""
    config = SlamAsrConfig.from_pretrained(model)
    files = weight_files(model, config)
    stored = stored_bytes(model, config)
    for file in files:
        forget(file)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    memory, read, start = kernel_count("status", "VmRSS"), kernel_count("io", "rchar"), time.perf_counter()
    loaded = load(model, dtype)
    seconds = time.perf_counter() - start
    read = kernel_count("io", "rchar") - read
    peak = 1024 * (kernel_count("status", "VmHWM") - memory)
    maps = Path("/proc/self/maps").read_text()
    mapped = sum(file.stat().st_size for file in files if str(file) in maps)
    if mapped and load is load_ours:
        raise RuntimeError("Weight files stay mapped: the count of bytes read is not the whole of it.")
    models = loaded if isinstance(loaded, list) else [loaded]
    kept = sum(p.numel() * p.element_size() for model in models for p in model.parameters())
    from_disk = sum(cached_bytes(file) for file in files)
    return {
        "dtype": dtype,
        "seconds": round(seconds, 2),
        "bytes_in_files": sum(file.stat().st_size for file in files),
        "bytes_stored_of_kept_weights": stored,
        "bytes_read": read,
        "read_ratio": round(read / stored, 4),
        "bytes_from_disk": from_disk,
        "disk_ratio": round(from_disk / stored, 4),
        "bytes_kept": kept,
        "peak_bytes": peak,
        "peak_ratio": round(peak / kept, 4),
    }


def measure(checkpoint: str, dtypes: tuple[str, ...] = ("float32", "bfloat16")) -> dict[str, Any]:
    """Sizes of the checkpoint's files, and both ways to load, in each dtype."""
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
            f"{name}, {dtype}": in_fresh_process(measure_load, load, checkpoint, dtype)
            for dtype in dtypes
            for name, load in ((OURS, load_ours), ("plain", load_plainly))
        },
    }
