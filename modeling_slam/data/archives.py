"""Unpack a corpus archive once, safely, so that a second run starts from the folder.

A corpus is tens of gigabytes: it is unpacked into a temporary folder that gets its name only when complete,
under a lock, so neither a killed run nor two runs at once leave half a corpus that looks whole.
"""

import os
import shutil
import tarfile
import zlib
from pathlib import Path

from datasets import config
from filelock import FileLock
from tqdm import tqdm

from modeling_slam.common.files import naming_what_has_no_room
from modeling_slam.data.clips import DataError

SUFFIXES = (".tar.gz", ".tgz", ".tar")
STAMP_NAME = ".unpacked_from"


def unpack_once(archive: Path) -> Path:
    """Return the folder that holds the archive's content, unpacking unless that was done before."""
    stem = archive.name
    for suffix in SUFFIXES:
        stem = stem.removesuffix(suffix)
    # Beside the archive, where the user expects it and finds room; read-only places fall back to the cache.
    beside = os.access(archive.parent, os.W_OK)
    parent = archive.parent if beside else Path(config.HF_DATASETS_CACHE) / "slam_asr_archives"
    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / f"{stem}-unpacked"
    status = archive.stat()
    stamp = f"{archive.name} {status.st_size} {status.st_mtime_ns}"
    lock = FileLock(parent / f".{stem}.lock")
    with lock, naming_what_has_no_room(folder, status.st_size):  # more than this, if it is compressed
        if not _is_from(folder, stamp):
            temporary = parent / f".{stem}-unpacking"
            shutil.rmtree(temporary, ignore_errors=True)  # Left by a killed run; the lock is ours.
            try:
                _unpack(archive, temporary)
                (temporary / STAMP_NAME).write_text(stamp, encoding="utf-8")
                shutil.rmtree(folder, ignore_errors=True)  # From another version of the archive.
                temporary.rename(folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _is_from(folder: Path, stamp: str) -> bool:
    file = folder / STAMP_NAME
    return file.is_file() and file.read_text(encoding="utf-8") == stamp


def _unpack(archive: Path, folder: Path) -> None:
    with (
        archive.open("rb") as compressed,
        tqdm(desc=f"unpacking {archive.name}", total=archive.stat().st_size, unit="B", unit_scale=True,
             disable=None) as progress,
    ):  # fmt: skip
        try:
            with tarfile.open(fileobj=compressed, mode="r:*") as tar:
                for member in tar:
                    tar.extract(member, folder, filter="data")
                    progress.update(compressed.tell() - progress.n)
        except tarfile.FilterError as error:
            raise DataError(
                f"{archive}: refused, a member would be written outside the folder or is not plain data "
                f"({error}). Fetch the archive from its publisher again."
            ) from error
        except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
            raise DataError(
                f"{archive}: cannot be unpacked ({error}). If the archive is damaged or cut short, fetch it "
                "again."
            ) from error
