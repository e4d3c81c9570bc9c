"""Bounds of numeric settings: what is outside, infinite or no number is refused by the setting's name."""

import math
from collections.abc import Iterable


def check_numbers(
    settings: object,
    names: Iterable[str],
    *,
    at_least: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> None:
    """Check the attributes `names` of `settings`, each a number or None for one that is not given.

    Raises:
        ValueError: a number is not finite or outside the bounds.
    """
    bounds = [
        f"{word} {bound:g}"
        for word, bound in (("at least", at_least), ("above", above), ("below", below))
        if bound is not None
    ]
    for name in names:
        value = getattr(settings, name)
        if value is None:
            continue
        if not math.isfinite(value):
            raise ValueError(f"`{name}` must be a finite number, {' and '.join(bounds)}, got {value}.")
        within = (
            (at_least is None or value >= at_least)
            and (above is None or value > above)
            and (below is None or value < below)
        )
        if not within:
            raise ValueError(f"`{name}` must be {' and '.join(bounds)}, got {value}.")
