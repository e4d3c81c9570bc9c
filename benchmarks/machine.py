"""The machine: what it is, and how fast it multiplies and reads memory at best."""

import os
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from modeling_slam.model.frozen_linear import frozen_linear

MATMUL_SIZES = (1024, 2048, 3072)  # square; smaller ones do not reach the peak
READ_BYTES = 1 << 29  # well beyond any cache


@dataclass
class MatmulPeak:
    """The fastest product of large square matrices, in operations a second, by torch's own or by ours.

    `measure` runs each size once; call it between the runs that are compared with the peak, so that both meet
    the same machine.
    """

    dtype: torch.dtype = torch.float32
    samples: list[float] = field(default_factory=list)  # the best of each round
    of_torch: float = 0.0  # the best by `torch.mm` alone

    def measure(self) -> None:
        torchs, ours = (
            max(self._rate(product, size) for size in MATMUL_SIZES) for product in (torch.mm, frozen_linear)
        )
        self.of_torch = max(self.of_torch, torchs)
        self.samples.append(max(torchs, ours))

    def _rate(self, product: Callable[..., torch.Tensor], size: int) -> float:
        left, right = torch.randn(2, size, size).to(self.dtype)
        product(left, right)  # pages and kernels are there before the clock starts
        start = time.perf_counter()
        product(left, right)
        return 2 * size**3 / (time.perf_counter() - start)

    @property
    def best(self) -> float:
        return max(self.samples)


def read_bandwidth(repetitions: int = 5) -> float:
    """Bytes a second at which a vector meets a matrix too large for the caches: the pace of decoding."""
    width = 4096
    matrix = torch.randn(READ_BYTES // 4 // width, width)
    vector = torch.randn(width)
    best = float("inf")
    for _ in range(repetitions):
        start = time.perf_counter()
        torch.mv(matrix, vector)
        best = min(best, time.perf_counter() - start)
    return READ_BYTES / best


def describe() -> dict[str, Any]:
    """What results depend on beside the code, and the code's commit."""
    cpuinfo = Path("/proc/cpuinfo")
    cpu = re.search(r"model name\s*: (.*)", cpuinfo.read_text() if cpuinfo.exists() else "")
    return {
        "cpu": cpu[1] if cpu else None,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average_before": round(os.getloadavg()[0], 2),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "commit": commit(),
    }


def commit() -> str | None:
    """Of the repository that this file lies in; with a mark if files that are measured differ from it."""
    try:
        git = ["git", "-C", str(Path(__file__).parent)]
        head = subprocess.check_output([*git, "rev-parse", "--short", "HEAD"], text=True)
        changes = subprocess.check_output(
            [*git, "status", "--porcelain", "-uno", ":/modeling_slam"], text=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.strip() + ("+changes" if changes.strip() else "")
