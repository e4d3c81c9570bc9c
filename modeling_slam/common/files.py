"""Files that are there as a whole or not at all, written under a temporary name; and those of a directory."""

import contextlib
import json
import os
import tempfile
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Generator[Path]:
    """The temporary path to write to: it becomes `path` at the end, and is removed after an error."""
    path = Path(path)
    # A name of its own, so that two processes never write to one file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike, values: object) -> None:
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | os.PathLike) -> Any:
    """What a JSON file holds.

    Raises:
        ValueError: it is no JSON; the message names the file. OSError: it cannot be read.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged or no JSON file ({error}). Restore it from a copy.") from error


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
