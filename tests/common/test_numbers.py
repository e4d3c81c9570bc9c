"""Numbers of settings: not finite or out of bounds is refused by name."""

from types import SimpleNamespace

import pytest

from modeling_slam.common.numbers import check_numbers


@pytest.mark.parametrize(
    ("value", "bounds"),
    [
        (float("nan"), {"at_least": 0}),
        (float("inf"), {"above": 0}),
        (float("-inf"), {"below": 1}),
        (0, {"above": 0}),
        (-1e-9, {"at_least": 0}),
        (1.0, {"at_least": 0, "below": 1}),
    ],
)
def test_a_number_that_cannot_be_meant_is_refused_by_its_name(value, bounds):
    with pytest.raises(ValueError, match=r"`speed` .* got"):
        check_numbers(SimpleNamespace(speed=value), ("speed",), **bounds)


@pytest.mark.parametrize(
    ("value", "bounds"),
    [(0, {"at_least": 0}), (0.999, {"below": 1}), (None, {"above": 0}), (1e300, {"above": 0})],
)
def test_numbers_within_the_bounds_and_those_not_given_pass(value, bounds):
    check_numbers(SimpleNamespace(speed=value), ("speed",), **bounds)
