"""Differences of settings name every setting once, with both values."""

from modeling_slam.common.differences import differences, same_setting


def test_changed_added_and_removed_settings_are_named_with_both_values():
    before, now = {"same": 1, "rate": 0.1, "gone": "x"}, {"same": 1, "rate": 0.2, "new": True}
    assert sorted(differences(before, now)) == [
        "gone was 'x', is None",
        "new was None, is True",
        "rate was 0.1, is 0.2",
    ]


def test_paths_are_the_same_with_a_slash_at_their_end_and_other_values_are_not():
    assert differences({"dataset": ["a/", "b"], "llm": "x"}, {"dataset": ["a", "b//"], "llm": "x/"}) == []
    assert differences({"dataset": "a"}, {"dataset": ["a"]}) != []
    assert not same_setting("dataset", "a/b", "b/a")
    assert not same_setting("prompt", "a", "a/")
    assert not same_setting("encoder", None, "None")
