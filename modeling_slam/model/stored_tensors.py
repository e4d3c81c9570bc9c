"""Tensors of safetensors files that are read when they are needed, each once, and leave nothing behind.

A tensor is a view of the mapped file: no copy, as long as it keeps its dtype and its device. Where loading
converts it, the view is dropped, and with it the pages it had brought into memory; a plain mapping would keep
them beside the converted copy. The kernel is told beforehand which bytes are wanted, so that it reads these
and not what lies around them.

Files are mapped privately: what a model changes is its own. As all mapped files they must not be written to
while a model lives; to replace one, write another and rename it, as safetensors and the Hub's cache do.
"""

import json
import math
import mmap
import os
import weakref
from dataclasses import dataclass
from pathlib import Path

import torch

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool,
}  # fmt: skip
# Hints, which not every system takes: without them the mapping still works.
RANDOM = getattr(os, "POSIX_FADV_RANDOM", None)
WANTED, DONE_WITH = getattr(mmap, "MADV_WILLNEED", None), getattr(mmap, "MADV_DONTNEED", None)


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that is not read yet; transformers' loader takes it in place of one and asks for `[...]`."""

    file: mmap.mmap
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int  # bytes from the start of the file
    end: int

    def __getitem__(self, index) -> torch.Tensor:
        tensor = self.view()
        return tensor if index is ... else tensor[index]

    def view(self) -> torch.Tensor:
        """All of it, as a view of the file."""
        if self.begin == self.end:
            return torch.empty(self.shape, dtype=self.dtype)
        first_page = self.begin - self.begin % mmap.PAGESIZE
        if WANTED is not None:
            self.file.madvise(WANTED, first_page, self.end - first_page)
        bytes_of_it = memoryview(self.file)[self.begin : self.end]
        # Whole pages: those at its ends hold its neighbours, too.
        own_first, own_end = first_page + mmap.PAGESIZE, self.end - self.end % mmap.PAGESIZE
        if DONE_WITH is not None and own_end > own_first:
            # The storage of the tensor holds on to the object it was made from, and to nothing else.
            release = weakref.finalize(
                bytes_of_it, self.file.madvise, DONE_WITH, own_first, own_end - own_first
            )
            release.atexit = False
        return torch.frombuffer(bytes_of_it, dtype=self.dtype).view(self.shape)

    @property
    def nbytes(self) -> int:
        return self.end - self.begin


def stored_tensors(path: str | Path) -> dict[str, StoredTensor]:
    """Name -> unread tensor of a safetensors file.

    Raises:
        OSError: the file is damaged, or has a dtype that models do not have.
    """
    with Path(path).open("rb", buffering=0) as file:
        if RANDOM is not None:
            os.posix_fadvise(file.fileno(), 0, 0, RANDOM)  # the header, and not megabytes behind it
        try:
            start = 8 + int.from_bytes(file.read(8), "little")
            size = os.fstat(file.fileno()).st_size
            if not 8 < start <= size:
                raise ValueError(f"a header of {start - 8} bytes in a file of {size}")
            header = json.loads(file.read(start - 8))
            header.pop("__metadata__", None)
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            return {name: stored_tensor(mapped, name, start, **entry) for name, entry in header.items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise OSError(
                f"{path} is truncated or no safetensors file ({error}). Fetch or save it again."
            ) from error


def stored_tensor(
    file: mmap.mmap, name: str, start: int, dtype: str, shape: list[int], data_offsets: list[int]
) -> StoredTensor:
    """An entry of a header, checked; offsets count from `start`. ValueError: it does not fit the file."""
    if dtype not in DTYPES:
        raise ValueError(f"{name} has dtype {dtype}, known are {', '.join(DTYPES)}")
    begin, end = (start + offset for offset in data_offsets)
    if not start <= begin <= end <= len(file) or end - begin != DTYPES[dtype].itemsize * math.prod(shape):
        raise ValueError(f"{name} of shape {shape} is said to lie at bytes {begin} to {end} of {len(file)}")
    return StoredTensor(file, DTYPES[dtype], tuple(shape), begin, end)
