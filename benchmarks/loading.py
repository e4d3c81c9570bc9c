"""Time, bytes read and memory taken by loading a checkpoint, beside loading it from plain mappings.

    python benchmarks/loading.py runs/nl-medium --dtypes float32 bfloat16

Each load runs in a fresh process, with every library imported before the count begins. `ours` is this
project's way (`modeling_slam/stored_tensors.py`), `mapped` is the same model from safetensors' own mapping of
each file. Files are in the page cache (`cached`), or thrown out of it before (`cold`); then what the kernel
has read from disk in the end is counted (`mincore`), read-ahead included. Weights that stay mapped are read
at their first use, so every load is followed by a look at each of them, which has a time of its own. Memory
is the process's peak (`VmHWM`) over both, less what it held before. Linux only.
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
from itertools import product
from pathlib import Path
from typing import Any

import peft  # noqa: F401 (loaded before the count, as everything that loading imports)
import torch
from safetensors import safe_open

from modeling_slam import SlamAsrConfig, SlamAsrForConditionalGeneration, base_weights
from modeling_slam.base_weights import base_tensors, lazy_tensors


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


def measure(model: str, dtype: str, way: str = "ours", files_are: str = "cold") -> dict[str, float | str]:
    """Load once in this process; to be called in a fresh one."""
    config = SlamAsrConfig.from_pretrained(model)
    files = weight_files(model, config)
    stored = stored_bytes(model, config)
    if way == "mapped":
        vars(base_weights)["stored_tensors"] = plain_mapping
    for file in files:
        if files_are == "cold":
            forget(file)
            if cached_bytes(file):
                raise OSError(f"{file} cannot be thrown out of the page cache; somebody else uses it.")
        else:
            file.read_bytes()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    memory, start = kernel_count("status", "VmRSS"), time.perf_counter()
    loaded = SlamAsrForConditionalGeneration.from_pretrained(model, dtype=dtype)
    seconds = time.perf_counter() - start
    for parameter in loaded.parameters():
        parameter.view(torch.uint8).max()
    look = time.perf_counter() - start - seconds
    peak = 1024 * (kernel_count("status", "VmHWM") - memory)
    kept = sum(parameter.numel() * parameter.element_size() for parameter in loaded.parameters())
    report = {
        "dtype": dtype,
        "way": way,
        "files": files_are,
        "seconds": round(seconds, 2),
        "seconds_of_the_look": round(look, 2),
        "bytes_kept": kept,
        "peak_bytes": peak,
        "peak_ratio": round(peak / kept, 4),
    }
    if files_are == "cold":
        from_disk = sum(cached_bytes(file) for file in files)
        report |= {
            "bytes_in_files": sum(file.stat().st_size for file in files),
            "bytes_stored_of_kept_weights": stored,
            "bytes_from_disk": from_disk,
            "disk_ratio": round(from_disk / stored, 4),
        }
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description="Bytes read and peak memory of loading a checkpoint.")
    parser.add_argument("model", help="Checkpoint directory; its base models must be directories too.")
    parser.add_argument("--dtypes", nargs="+", default=["auto"], help="Each in processes of its own.")
    parser.add_argument("--output", type=Path, help="JSON file for the figures; they are printed anyway.")
    parser.add_argument("--rounds", type=int, default=1, help="How often, all ways in turn.")
    parser.add_argument("--in_this_process", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.in_this_process:
        print(json.dumps(measure(arguments.model, *arguments.in_this_process)))
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
    rounds = range(arguments.rounds)
    for _, files, dtype, way in product(rounds, ("cold", "cached"), arguments.dtypes, ("ours", "mapped")):
        command = [sys.executable, __file__, arguments.model, "--in_this_process", dtype, way, files]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        report["loads"].append(json.loads(done.stdout.splitlines()[-1]))
    text = json.dumps(report, indent=2)
    print(text)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
