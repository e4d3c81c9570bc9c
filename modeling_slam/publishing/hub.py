"""The push: one commit, retried where a retry can help, with a message that says what to do where not.

A version appears whole or not at all: large files are uploaded first and belong to nothing until the commit
names them. huggingface_hub retries uploads itself; here the steps that it tries once (creating, committing,
tagging) are retried, and every request gets a time limit, which it lacks. Repeating a commit whose answer was
lost is safe: unchanged files make no new commit.
"""

import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    get_token,
    set_client_factory,
)
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils._http import default_client_factory

from modeling_slam.publishing.release import REPLACED, files_below, matches

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 120.0  # how long the Hub may be silent before a request counts as failed
PAUSES = (1.0, 4.0, 15.0)  # seconds before each further attempt
TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504})
LOST = (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError)


class PublishError(ValueError):
    """The push failed; the message says what the Hub holds now and what to do."""


class Kind(NamedTuple):
    """A kind of repository, and what a new release of it takes away where the new one lacks it."""

    name: str
    replaced: tuple[str, ...]
    sdk: str | None = None  # of a Space


MODEL = Kind("model", REPLACED)


@dataclass(frozen=True)
class Published:
    """Where the version is."""

    repo_id: str
    commit: str
    url: str


def open_hub(endpoint: str | None = None) -> HfApi:
    """A client with the user's token and a time limit on every request.

    Raises:
        PublishError: there is no token, or the machine is set offline.
    """
    token = get_token()
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise PublishError(
            "HF_HUB_OFFLINE is set, so nothing can be pushed. Unset it, or leave out the push."
        )
    if token is None:
        raise PublishError(
            "There is no Hub token. Log in by `hf auth login`, or put a token with write access into "
            "HF_TOKEN."
        )
    set_client_factory(client_with_time_limit)
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # else a line for each request
    return HfApi(endpoint=endpoint, token=token)


def client_with_time_limit() -> httpx2.Client:
    client = default_client_factory()
    client.timeout = httpx2.Timeout(ANSWER_SECONDS)
    return client


def push(
    api: HfApi,
    directory: Path,
    repo_id: str,
    message: str,
    private: bool = False,
    tag: str | None = None,
    collection: str | None = None,
    revision: str | None = None,
    kind: Kind = MODEL,
) -> Published:
    """Make the repository hold exactly the release in `directory`, in one commit; tag it, collect it.

    Files of a repository that no release of its kind writes (a picture, say) stay.

    Raises:
        PublishError: as the class says.
    """
    state = f"Nothing of this version is visible at {repo_id}."
    try:
        info = open_repository(api, repo_id, private, revision, kind)
        if tag is not None:
            check_tag_is_free(api, repo_id, tag, info.sha)
        commit = retried(lambda: commit_release(api, directory, repo_id, message, revision, kind))
        state = f"The files of this version are complete at {repo_id}, commit {commit}."
        if tag is not None:
            retried(lambda: set_tag(api, repo_id, tag, commit))
        if collection is not None:
            state += " Only its place in the collection is missing."
            retried(lambda: collect(api, repo_id, collection))
    except PublishError:
        raise
    except Exception as error:
        reason = cause_of(error)
        if not isinstance(reason, (OSError, ValueError, *LOST)):  # OSError: all answers of the Hub
            raise
        raise PublishError(f"{state} {advice(reason, repo_id)}") from error
    place = repo_id if kind is MODEL else f"{kind.name}s/{repo_id}"
    return Published(repo_id, commit, f"{api.endpoint}/{place}/tree/{commit}")


def create_repository(api: HfApi, repo_id: str, private: bool) -> None:
    """Make the repository, unless it exists; shows before training whether the token may.

    Raises:
        PublishError: the token may not, or the repository is public and should not be.
    """
    try:
        open_repository(api, repo_id, private)
    except (HfHubHTTPError, json.JSONDecodeError, *LOST) as error:
        raise PublishError(f"{repo_id} cannot be written. {advice(error, repo_id)}") from error


def open_repository(
    api: HfApi, repo_id: str, private: bool, revision: str | None = None, kind: Kind = MODEL
) -> Any:
    """The repository's state on the Hub, which is made if it is not there."""
    of_kind: Any = {"repo_type": kind.name, "space_sdk": kind.sdk}
    retried(lambda: api.create_repo(repo_id, private=private or None, exist_ok=True, **of_kind))
    info = retried(lambda: api.repo_info(repo_id, revision=revision, repo_type=kind.name))
    if private and not info.private:
        raise PublishError(f"{repo_id} exists and is public. Make it private on its settings page first.")
    return info


def commit_release(
    api: HfApi, directory: Path, repo_id: str, message: str, revision: str | None, kind: Kind
) -> str:
    """Upload what the Hub lacks and commit; returns the commit, the present one if nothing changed."""
    paths = files_below(directory)
    where: Any = {"repo_id": repo_id, "revision": revision, "repo_type": kind.name}
    stale = [
        path for path in api.list_repo_files(**where) if path not in paths and matches(path, kind.replaced)
    ]
    additions = [CommitOperationAdd(path, directory / path) for path in paths]
    deletions = [CommitOperationDelete(path, is_folder=False) for path in stale]
    info = api.create_commit(operations=[*additions, *deletions], commit_message=message, **where)
    return info.oid


def check_tag_is_free(api: HfApi, repo_id: str, tag: str, head: str | None) -> None:
    """A tag that names an older commit is never moved; one at the head may belong to this very version."""
    tags = {ref.name: ref.target_commit for ref in retried(lambda: api.list_repo_refs(repo_id)).tags}
    if tags.get(tag, head) != head:
        raise PublishError(
            f"{repo_id} has a tag {tag} already, at commit {tags[tag]}. Choose another `--tag`."
        )


def set_tag(api: HfApi, repo_id: str, tag: str, commit: str) -> None:
    api.create_tag(repo_id, tag=tag, revision=commit, exist_ok=True)
    tags = {ref.name: ref.target_commit for ref in api.list_repo_refs(repo_id).tags}
    if tags.get(tag) != commit:
        raise PublishError(
            f"The files are complete at {repo_id}, commit {commit}, but the tag {tag} names commit "
            f"{tags.get(tag)} already. Run the same command with another `--tag`; nothing is sent twice."
        )


def collect(api: HfApi, repo_id: str, collection: str) -> None:
    if "/" not in collection:
        owner = repo_id.split("/")[0]
        collection = api.create_collection(collection, namespace=owner, exists_ok=True).slug
    api.add_collection_item(collection, item_id=repo_id, item_type="model", exists_ok=True)


def retried(step: Callable[[], Any]) -> Any:
    """`step`'s result, tried again after pauses while the failure may pass."""
    for pause in PAUSES:
        try:
            return step()
        except Exception as error:
            # An upload that huggingface_hub has given up on, after its own retries, comes wrapped.
            if cause_of(error) is not error or not may_pass(error):
                raise
            logger.warning("The Hub did not answer as it should (%s). Next try in %g s.", brief(error), pause)
            time.sleep(pause)
    return step()


def may_pass(error: BaseException) -> bool:
    if isinstance(error, HfHubHTTPError):
        return error.response is not None and error.response.status_code in TRANSIENT_STATUS
    # A proxy's error page where JSON was due.
    return isinstance(error, (*LOST, json.JSONDecodeError))


def cause_of(error: BaseException) -> BaseException:
    """The failure inside the RuntimeError that huggingface_hub wraps around uploads."""
    return error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error


def advice(error: BaseException, repo_id: str) -> str:
    """What to do about a failure, in a sentence or two."""
    status = (
        error.response.status_code
        if isinstance(error, HfHubHTTPError) and error.response is not None
        else None
    )
    owner = repo_id.split("/")[0]
    if may_pass(error):
        return (
            f"The Hub could not be reached or failed repeatedly ({brief(error)}). Run the same command "
            "again later: what was uploaded is not sent twice."
        )
    if status == 401:
        return "The Hub does not accept the token (401). Log in anew by `hf auth login`, or correct HF_TOKEN."
    if status == 403:
        return (
            f"The token may not write to {owner} (403: {brief(error)}). Use one with write access to it, "
            "or another `--repo_id`."
        )
    if status == 412:
        return "Somebody else committed at the same time (412). Run the same command again."
    return f"The Hub refused it: {brief(error)}"


def brief(error: BaseException) -> str:
    """One line about an error."""
    if isinstance(error, HfHubHTTPError) and error.response is not None:
        told = error.server_message or error.response.reason_phrase
        return f"{error.response.status_code} {told}"
    lines = str(error).strip().splitlines()
    return " ".join(lines[:3]) if lines else type(error).__name__
