"""A device and how it is measured: time, memory at its height, the rate of its products, and its end."""

import contextlib
import gc
import time
from collections.abc import Callable, Generator
from typing import Any

import torch

GIB = 2**30


class OutOfMemoryError(Exception):
    """The device has no room for this; a smaller batch may have."""


class Device:
    """`torch.device` with the few things that are asked of it here; a CPU has no counter of memory."""

    def __init__(self, name: str):
        """Raises ValueError if this torch cannot use it."""
        self.torch = torch.device(name)
        if self.torch.type == "cpu":
            self.module: Any = None
            return
        self.module = torch.get_device_module(self.torch)
        if not self.module.is_available():
            raise ValueError(f"`--device` {name} cannot be used by this torch ({torch.__version__}).")

    @property
    def name(self) -> str:
        return self.module.get_device_name(self.torch) if self.module else "CPU"

    @property
    def gib(self) -> float | None:
        return round(self.module.mem_get_info(self.torch)[1] / GIB, 1) if self.module else None

    def wait(self) -> None:
        if self.module:
            self.module.synchronize(self.torch)

    def timed(self, work: Callable[[], Any]) -> float:
        """Seconds until the device has done it."""
        self.wait()
        start = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - start

    def forget(self) -> None:
        """Give back what nobody uses, and count the peak anew."""
        gc.collect()
        if self.module:
            self.module.empty_cache()
            self.module.reset_peak_memory_stats(self.torch)

    def peak_gib(self) -> float | None:
        """Most memory in use since `forget`, weights included."""
        return round(self.module.max_memory_allocated(self.torch) / GIB, 2) if self.module else None

    @contextlib.contextmanager
    def noticing_the_end_of_memory(self) -> Generator[None]:
        """Raises OutOfMemoryError for what torch and CUDA's libraries raise."""
        try:
            yield
        except RuntimeError as error:
            if not any(words in str(error) for words in ("out of memory", "ALLOC_FAILED")):
                raise
            raise OutOfMemoryError(str(error).split(". ")[0]) from None  # its frames hold tensors

    def matmul_peak(self, dtype: torch.dtype, sizes: tuple[int, ...]) -> float:
        """Operations a second in `torch.mm` of large squares, the best of several sizes and rounds."""
        best = 0.0
        for size in sizes:
            left, right = torch.randn(2, size, size, device=self.torch, dtype=dtype)
            for _ in range(3):
                torch.mm(left, right)
            for _ in range(5):
                seconds = self.timed(lambda: torch.mm(left, right))  # noqa: B023 (called at once)
                best = max(best, 2 * size**3 / seconds)
        return best
