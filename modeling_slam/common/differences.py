"""How two sets of settings differ, in words for an error message."""

from collections.abc import Mapping
from typing import Any


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Settings with two values, as `name was A, is B`, in order; what is missing is None."""
    return [
        f"{name} was {before.get(name)!r}, is {now.get(name)!r}"
        for name in {**now, **before}
        if before.get(name) != now.get(name)
    ]
