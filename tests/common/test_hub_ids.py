"""Names that the Hub would take are told from paths and from mistakes."""

import pytest

from modeling_slam.common.hub_ids import check_repo_id, is_hub_id


@pytest.mark.parametrize("text", ["owner/name", "gpt2", "Qwen/Qwen2.5-0.5B", "a_b/c-d.e"])
def test_names_of_the_hub(text):
    assert is_hub_id(text)


@pytest.mark.parametrize(
    "text", ["", "a/b/c", "./runs", "../runs", "/models/x", "owner/", "owner/.hidden", "a b"]
)
def test_what_cannot_be_one(text):
    assert not is_hub_id(text)


def test_a_repository_to_write_to_has_an_owner():
    check_repo_id("me/model")
    for text in ("model", "me/", "me/a/b"):
        with pytest.raises(ValueError, match="`repo_id` must be owner/name, got"):
            check_repo_id(text)
