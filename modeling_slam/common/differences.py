"""How two sets of settings differ, in words for an error message.

A path names the same directory with a slash at its end as without, so that is no other setting.
"""

import os
from collections.abc import Mapping
from typing import Any

PATHS = frozenset({"model", "dataset", "encoder", "llm", "init_from"})


def same_setting(name: str, before: Any, now: Any) -> bool:
    """Whether two values of the setting `name` mean the same."""
    return before == now or (name in PATHS and normal_paths(before) == normal_paths(now))


def normal_paths(value: Any) -> Any:
    """A path, or several, written in one way; what is none, as it is."""
    if isinstance(value, list):
        return [normal_paths(one) for one in value]
    return os.path.normpath(value) if isinstance(value, str) else value


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Settings with two values, as `name was A, is B`, in order; what is missing is None."""
    return [
        f"{name} was {before.get(name)!r}, is {now.get(name)!r}"
        for name in {**now, **before}
        if not same_setting(name, before.get(name), now.get(name))
    ]
