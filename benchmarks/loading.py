"""Bytes read and memory taken by loading a checkpoint, against the weights that the model keeps.

    python benchmarks/loading.py runs/nl-medium --dtypes float32 bfloat16

Each dtype is loaded in a fresh process, with every library imported before the count begins. Bytes are the
kernel's count of what the process reads (`rchar` of /proc/self/io): weights are read and not mapped, which
is checked, so nothing escapes it but the first rows that the base models' digests take from a mapping. From
disk, with the files thrown out of the page cache first, comes what is then in it (`mincore`): read-ahead
and those rows included. Memory is the process's peak (`VmHWM`) less what it held before. Linux only.
"""

import argparse
import ctypes
import json
import mmap
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import peft  # noqa: F401 (loaded before the count, as everything that loading imports)
import torch

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


def measure(model: str, dtype: str) -> dict[str, float | str]:
    """Load once in this process; to be called in a fresh one."""
    config = SlamAsrConfig.from_pretrained(model)
    files = weight_files(model, config)
    stored = stored_bytes(model, config)
    for file in files:
        forget(file)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    memory, read, start = kernel_count("status", "VmRSS"), kernel_count("io", "rchar"), time.perf_counter()
    loaded = SlamAsrForConditionalGeneration.from_pretrained(model, dtype=dtype)
    seconds = time.perf_counter() - start
    read = kernel_count("io", "rchar") - read
    peak = 1024 * (kernel_count("status", "VmHWM") - memory)
    mapped = [str(file) for file in files if str(file) in Path("/proc/self/maps").read_text()]
    if mapped:
        raise RuntimeError(f"{mapped} stay mapped: the count of bytes read is not the whole of it.")
    kept = sum(parameter.numel() * parameter.element_size() for parameter in loaded.parameters())
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


def main() -> None:
    parser = argparse.ArgumentParser(description="Bytes read and peak memory of loading a checkpoint.")
    parser.add_argument("model", help="Checkpoint directory; its base models must be directories too.")
    parser.add_argument("--dtypes", nargs="+", default=["auto"], help="Each in a process of its own.")
    parser.add_argument("--output", type=Path, help="JSON file for the figures; they are printed anyway.")
    parser.add_argument("--in_this_process", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.in_this_process:
        print(json.dumps(measure(arguments.model, arguments.dtypes[0])))
        return
    directory = Path(arguments.model)
    adapter = directory / "adapter/adapter_model.safetensors"
    report = {
        "checkpoint_bytes": sum(file.stat().st_size for file in directory.rglob("*") if file.is_file()),
        "root_weights_bytes": sum(file.stat().st_size for file in directory.glob("*.safetensors")),
        "peft_copy_bytes": adapter.stat().st_size if adapter.exists() else 0,
        "torch": torch.__version__,
        "loads": [],
    }
    for dtype in arguments.dtypes:
        command = [sys.executable, __file__, arguments.model, "--dtypes", dtype, "--in_this_process"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        report["loads"].append(json.loads(done.stdout.splitlines()[-1]))
    text = json.dumps(report, indent=2)
    print(text)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
