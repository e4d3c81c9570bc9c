"""A disk that is full: the system's limit for the size of a file stands in for it."""

import contextlib
from collections.abc import Iterator

import pytest


@contextlib.contextmanager
def full_disk(file_bytes: int) -> Iterator[None]:
    """In the block this process and those that it starts write at most `file_bytes` to a file."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
