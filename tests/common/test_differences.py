"""Differences of settings name every setting once, with both values."""

from modeling_slam.common.differences import differences


def test_changed_added_and_removed_settings_are_named_with_both_values():
    before, now = {"same": 1, "rate": 0.1, "gone": "x"}, {"same": 1, "rate": 0.2, "new": True}
    assert sorted(differences(before, now)) == [
        "gone was 'x', is None",
        "new was None, is True",
        "rate was 0.1, is 0.2",
    ]
