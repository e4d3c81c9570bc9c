"""Files that are there as a whole or not at all, written under a temporary name; and those of a directory.

Where there is no room, a `DiskFullError` names the file and what is missing; what was there stays.
"""

import contextlib
import errno
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

NO_ROOM = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}  # no space left, a file's limit, a quota
# What libraries say of it that raise no OSError: Rust's, torch.save, libsndfile.
NO_ROOM_WORDS = re.compile(
    rf"os error ({'|'.join(map(str, sorted(NO_ROOM)))})\b|No space left|File too large|quota exceeded"
    r"|inline_container\.cc.*unexpected pos|PytorchStreamWriter failed writing",
    re.IGNORECASE,
)


class DiskFullError(OSError):
    """A file or directory has no room; the message names it and says how much is missing."""

    def __init__(self, path: str | os.PathLike, needed: int | None = None, present: int = 0):
        """It takes `needed` bytes, if that is known, beside those `present`.

        What was half-written must be gone, for what is free is counted.
        """
        self.needed = needed
        super().__init__(
            f"There is no room for {path}: {lack(Path(path), needed, present)}. Nothing half-written is "
            "left, and what was there before is whole. Make room."
        )


def lack(path: Path, needed: int | None, present: int) -> str:
    """What `path` takes, what there is room for, and what is missing."""
    nearest = next(parent for parent in path.absolute().parents if parent.is_dir())
    room, what = shutil.disk_usage(nearest).free, "are free"
    if (limit := file_limit()) is not None and limit - present < room:
        room, what = limit - present, "are allowed for one file (`ulimit -f`)"
    if needed is None:
        return f"{size(room)} {what}"
    if needed > room:
        return f"it takes {size(needed)}, {size(room)} {what}, so {size(needed - room)} are missing"
    return f"it takes {size(needed)} or somewhat more, and {size(room)} {what}, or less by a quota"


def file_limit() -> int | None:
    """Most bytes that the system lets this process write to one file, if it sets a limit."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return None if limit == resource.RLIM_INFINITY else limit


def size(count: int) -> str:
    """Bytes for people: 512 bytes, 1.3 MB."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count} bytes"


def is_no_room(error: BaseException | None) -> bool:
    """Whether an error, or one that it follows from, says that there was no room for what was written."""
    while error is not None:
        if getattr(error, "errno", None) in NO_ROOM or NO_ROOM_WORDS.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextlib.contextmanager
def naming_what_has_no_room(
    path: str | os.PathLike, needed: int | None = None, present: int = 0
) -> Generator[None]:
    """In the block `path` is written, and what is half-written taken away; figures as in `DiskFullError`.

    Raises:
        DiskFullError: instead of whatever the library raises where there is no room.
    """
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        if is_no_room(error):
            raise DiskFullError(path, needed, present) from error
        raise


@contextlib.contextmanager
def replacing(path: str | os.PathLike, needed: int | None = None) -> Generator[Path]:
    """The temporary path to write to: it becomes `path` at the end, and is removed after an error.

    Raises:
        DiskFullError: there is no room for it; `needed` is what it takes, in bytes, if that is known.
    """
    path = Path(path)
    # A name of its own, so that two processes never write to one file; and short, as 255 bytes are the most.
    temporary = path.with_name(f".{path.name[:40]}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
    with naming_what_has_no_room(path, needed):
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    with replacing(path, len(data)) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | os.PathLike, text: str) -> None:
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | os.PathLike, values: object) -> None:
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | os.PathLike) -> Any:
    """What a JSON file holds.

    Raises:
        ValueError: it is no JSON; the message names the file. OSError: it cannot be read.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))  # some editors put a mark in front
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged or no JSON file ({error}). Restore it from a copy.") from error


def read_entries(path: str | os.PathLike, *names: str) -> dict[str, Any]:
    """The object that a JSON file holds, which has at least the entries of these names.

    Raises:
        ValueError: it is no JSON, or lacks one; the message names the file. OSError: it cannot be read.
    """
    values = read_json(path)
    missing = [name for name in names if not isinstance(values, dict) or name not in values]
    if missing:
        raise ValueError(f"{path} is damaged: it has no {', '.join(missing)}. Restore it from a copy.")
    return values


def check_writable(directory: str | os.PathLike, flag: str) -> None:
    """Check that a directory is writable or can be made; nothing is made yet.

    Raises:
        ValueError: it cannot; the message names the `flag` that the directory was given by.
    """
    directory = Path(directory)
    nearest = next(path for path in (directory, *directory.absolute().parents) if os.path.lexists(path))
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise ValueError(
            f"`{flag}` {directory} cannot be written ({nearest}: {error.strerror}). Name another directory."
        ) from error


def files_below(root: Path) -> Iterator[Path]:
    """The files of a directory and of those in it, in order, but for hidden ones and those of `__MACOSX`.

    Links to directories are followed, but for those that lead back up.
    """
    for folder, folders, files in os.walk(root, followlinks=True):
        here = Path(folder).resolve()
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith((".", "__")) and not here.is_relative_to((here / name).resolve())
        )
        yield from (Path(folder, name) for name in sorted(files) if name[0] != ".")


@contextlib.contextmanager
def locked(lock_file: Path, seconds: float, busy: str) -> Generator[None]:
    """No second process in the directory of this file, which is there for as long.

    Raises:
        ValueError: another one is in it for `seconds`; the message is `busy`.
    """
    lock = FileLock(lock_file, timeout=seconds)
    try:
        acquire_in_place(lock)
    except Timeout:
        raise ValueError(busy) from None
    try:
        yield
    finally:
        # The file goes first, while nobody else can hold it; whoever waits for it makes a new one.
        with contextlib.suppress(OSError):  # Windows removes no open file
            lock_file.unlink(missing_ok=True)
        lock.release()


def acquire_in_place(lock: FileLock) -> None:
    """Acquire a lock that lies in a directory, also if whoever held it takes file and directory away."""
    file = Path(lock.lock_file)
    while True:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except FileNotFoundError:
            continue
        except FileExistsError:  # also of a directory that goes while `mkdir` looks at it
            if file.parent.is_file():
                raise
            continue
        if file.exists():
            return
        lock.release()
