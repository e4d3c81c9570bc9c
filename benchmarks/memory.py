"""Peak memory of a piece of work: the kernel's record of the process's resident pages (Linux)."""

import ctypes
import gc
import multiprocessing
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

STATUS = Path("/proc/self/status")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of `function` in a process whose memory nothing has shaped; all must be picklable."""
    usual = multiprocessing.get_start_method()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _start_children_by, (usual,)) as fresh:
        return fresh.submit(function, *arguments).result()


def _start_children_by(method: str) -> None:
    """Loader workers start as in any process; a spawned process's would be spawned, and import all anew."""
    multiprocessing.set_start_method(method, force=True)


def give_back_freed_memory() -> None:
    """From here on a freed block of 64 KiB or more leaves the process at once, so peaks can be told apart."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 16)
        libc.mallopt(M_TRIM_THRESHOLD, 1 << 16)


def peak_extra_bytes(work: Callable[[], Any]) -> int | None:
    """Bytes by which `work` raises resident memory at its height; `None` without /proc.

    Call `give_back_freed_memory` once before, or `work` reuses blocks that are counted already.
    """
    gc.collect()
    before = peak_bytes(start_anew=True)
    work()
    peak = peak_bytes()
    return peak - before if peak and before else None


def peak_bytes(start_anew: bool = False) -> int | None:
    """Peak of this process's resident memory since it was told to start anew; `None` without /proc."""
    if not STATUS.exists():
        return None
    if start_anew:
        ctypes.CDLL(None).malloc_trim(0)  # what is free goes back, so that the work must ask for it
        Path("/proc/self/clear_refs").write_text("5")
    return 1024 * int(re.findall(r"VmHWM:\s*(\d+) kB", STATUS.read_text())[0])


def saved_bytes(forward: Callable[[], torch.Tensor], model: torch.nn.Module) -> int:
    """Bytes that a forward pass keeps for the backward pass, weights left out, each storage once."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = forward()
    del loss
    return sum(kept.values())
