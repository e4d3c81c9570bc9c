"""Ray: a running cluster, or one of its own on this machine; and how packages of an extra are imported."""

import contextlib
import importlib
import os
from collections.abc import Generator
from typing import Any

OBJECT_STORE_BYTES = 100_000_000  # only outcomes pass through it


@contextlib.contextmanager
def ray_cluster(address: str, instead: str, cpus: int | None = None) -> Generator[Any]:
    """The module `ray`, connected to a cluster until the block ends.

    Args:
        address: `local` for a cluster of its own on this machine, which ends with the block; else where one
            runs: `auto` for this machine's, HOST:PORT, ray://HOST:PORT.
        instead: what to do without Ray, for the error.
        cpus: of a cluster of its own; the machine's if not given.

    Raises:
        ValueError: Ray is not installed, or there is no cluster at that address.
    """
    # Ray reports its use to its makers unless told otherwise.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = imported("ray", "ray", instead)
    own = {"num_cpus": cpus, "object_store_memory": OBJECT_STORE_BYTES} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=False, include_dashboard=False, **own)
    except ConnectionError as error:
        raise ValueError(
            f"There is no Ray cluster at {address} ({error}). Start one by `ray start --head`, or say "
            "`local`, which starts one on this machine for this call."
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def imported(package: str, extra: str, instead: str) -> Any:
    """A package of an extra; a ValueError that says how to install it, or what to do `instead`."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ValueError(
            f"{package} is not installed. Install it by `pip install 'slam-asr[{extra}]'`, or {instead}."
        ) from error
