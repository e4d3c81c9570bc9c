"""Encoder frames on disk: written once, then read by every epoch and run that would compute them again.

    DIRECTORY/<space>/<shard>.safetensors     clip digest -> (T, D) frames

A space is what the frames depend on beside the clip; its name comes from whoever computes them. Shards
appear whole or not at all and never change, so any number of processes may read and write at once. They are
mapped: a clip costs the bytes of its own frames. When room is needed, shards used least recently go first.
"""

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from modeling_slam.common.files import DiskFullError, replacing

SHARD_BYTES = 2**27  # 128 MiB: what a killed process loses at most, and what is evicted at a time


class StoreFullError(ValueError):
    """Frames do not fit, whatever is deleted for them; the message says what they take and what there is."""


class FrameStore:
    """The spaces below one directory."""

    def __init__(self, directory: str | os.PathLike):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)

    def lock(self) -> FileLock:
        """Held by whoever adds frames or makes room: two runs never compute the same ones side by side."""
        return FileLock(self.directory / ".lock")

    def reader(self, space: str) -> "FrameReader":
        """What is there now."""
        shards = {}
        for shard in sorted((self.directory / space).glob("*.safetensors")):
            for digest in open_shard(shard).keys():  # noqa: SIM118 (not a dict)
                shards[digest] = shard
        return FrameReader(shards)

    def writer(self, space: str) -> "FrameWriter":
        return FrameWriter(self.directory / space)

    def make_room(self, wanted_bytes: int, max_bytes: int, in_use: set[Path]) -> None:
        """Delete the shards used least recently, but none `in_use`, until `wanted_bytes` more fit.

        Raises:
            StoreFullError: they would not fit beside what is in use, by `max_bytes` or by what the disk has.
        """
        sizes = {shard: shard.stat() for shard in self.directory.glob("*/*.safetensors")}
        stored = sum(stat.st_size for stat in sizes.values())
        on_disk = stored + shutil.disk_usage(self.directory).free
        excess = stored + wanted_bytes - min(max_bytes, on_disk)
        oldest_first = sorted(sizes.keys() - in_use, key=lambda shard: sizes[shard].st_mtime)
        if excess > sum(sizes[shard].st_size for shard in oldest_first):
            needed = wanted_bytes + sum(sizes[shard].st_size for shard in in_use & sizes.keys())
            limit = "`--cache_max_gb` allows" if max_bytes <= on_disk else "its disk has room for"
            raise StoreFullError(
                f"The encoder frames take {needed / 1e9:.3g} GB in {self.directory}, and {limit} "
                f"{min(max_bytes, on_disk) / 1e9:.3g}: give them more room, or store fewer depths."
            )
        for shard in oldest_first:
            if excess <= 0:
                return
            shard.unlink()
            excess -= sizes[shard].st_size


class FrameReader:
    """Clip digest -> (T, D) frames; goes to data loader workers, each of which maps the shards for itself."""

    def __init__(self, shards: dict[str, Path]):
        self.shards = shards
        self._handles: dict[Path, Any] = {}

    def __contains__(self, digest: str) -> bool:
        return digest in self.shards

    def __getitem__(self, digest: str) -> torch.Tensor:
        shard = self.shards[digest]
        if shard not in self._handles:
            self._handles[shard] = open_shard(shard)
        return self._handles[shard].get_tensor(digest)

    def __getstate__(self) -> dict[str, Any]:
        return {"shards": self.shards, "_handles": {}}

    def hold(self, digests: Iterable[str]) -> set[Path]:
        """Mark the shards of these clips as used now, and map them: what is mapped outlives its file."""
        shards = {self.shards[digest] for digest in digests if digest in self.shards}
        for shard in shards - self._handles.keys():
            self._handles[shard] = open_shard(shard)
            os.utime(shard)
        return shards


class FrameWriter:
    """Collects frames and writes them a shard at a time; use in a `with` block."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.directory.mkdir(parents=True, exist_ok=True)
        self._pending: dict[str, torch.Tensor] = {}
        self._bytes = 0

    def __enter__(self) -> "FrameWriter":
        return self

    def __exit__(self, kind: Any, *exception: Any) -> None:
        if kind is None or not issubclass(kind, DiskFullError):
            self._write()

    def add(self, digest: str, frames: torch.Tensor) -> None:
        self._pending[digest] = frames.contiguous()
        self._bytes += frames.nbytes
        if self._bytes >= SHARD_BYTES:
            self._write()

    def _write(self) -> None:
        if not self._pending:
            return
        with replacing(self.directory / f"{uuid.uuid4().hex}.safetensors", self._bytes) as temporary:
            save_file(self._pending, temporary)
        self._pending, self._bytes = {}, 0


def open_shard(shard: Path) -> Any:
    try:
        return safe_open(shard, framework="pt", backend="mmap")
    except (SafetensorError, OSError) as error:
        raise OSError(
            f"The cached encoder frames in {shard} cannot be read ({error}). If the file is damaged, delete "
            "it; if it is gone, another run needed its room: raise `cache_max_gb`. Then start again: what is "
            "missing is computed anew."
        ) from error


def clip_digests(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """SHA-256 of each clip's stored bytes, of rows as `load_speech` gives them; nothing is decoded."""
    for row in rows:
        stored = row["audio"]["bytes"]
        stored = Path(row["audio"]["path"]).read_bytes() if stored is None else stored
        yield hashlib.sha256(stored).hexdigest()
