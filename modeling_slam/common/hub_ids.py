"""What a name on the Hub looks like, so that a mistyped one is told before anything is sent or fetched."""

import re

PART = r"[\w-][\w.-]*"
HUB_ID = re.compile(rf"{PART}(/{PART})?")  # owner/name, or the bare name of an old repository
REPO_ID = re.compile(rf"{PART}/{PART}")


def is_hub_id(text: str) -> bool:
    """Whether `text` can name a model or dataset on the Hub; a relative path can look like one."""
    return HUB_ID.fullmatch(text) is not None


def check_repo_id(repo_id: str, flag: str = "repo_id") -> None:
    """Raises ValueError: `repo_id` is not owner/name, which a repository to write to must be."""
    if not REPO_ID.fullmatch(repo_id):
        raise ValueError(f"`{flag}` must be owner/name, got {repo_id!r}.")
