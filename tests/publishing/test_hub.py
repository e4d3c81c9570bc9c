"""The push over real HTTP: whatever breaks, a version is there whole or not at all, and the user knows."""

from pathlib import Path

import pytest
from fake_hub import File
from huggingface_hub import HfApi, close_session, constants, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError

from modeling_slam.publishing import hub as publishing_hub
from modeling_slam.publishing.hub import PublishError, create_repository, open_hub, push

REPO = "org/slam-tiny-4L-nl"
FILES = {
    "README.md": b"---\nlanguage: nl\n---\n\n# A model\n",
    "config.json": b"{}",
    "model.safetensors": bytes(range(256)) * 2000,
    "adapter/adapter_model.safetensors": bytes(reversed(range(256))) * 1000,
}
COMMIT, PUT, LFS, CREATE = "/commit/main", "/lfs/", "objects/batch", "/api/repos/create"
STEPS = [
    ("POST", CREATE),
    ("POST", "/validate-yaml"),
    ("POST", "/preupload/"),
    ("POST", LFS),
    ("PUT", PUT),
    ("POST", COMMIT),
    ("POST", "/tag/"),
    ("GET", "/refs"),
    ("POST", "/items"),
]


@pytest.fixture
def release(tmp_path):
    for path, content in FILES.items():
        (tmp_path / "release" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "release" / path).write_bytes(content)
    return tmp_path / "release"


def visible(hub) -> list[dict[str, bytes]]:
    """The files of every commit that anyone could load, the empty first one left out."""
    commits = hub.repositories[REPO].commits[1:] if REPO in hub.repositories else []
    return [
        {path: file.content for path, file in commit.files.items() if path != ".gitattributes"}
        for commit in commits
    ]


def test_a_release_is_one_commit_with_a_tag_and_a_place_in_a_collection(hub, api, release):
    published = push(api, release, REPO, "v1", tag="v1.0", collection="Slam models")
    assert visible(hub) == [FILES]
    assert hub.repositories[REPO].tags == {"v1.0": published.commit}
    (collection,) = hub.collections.values()
    assert [item["id"] for item in collection["items"]] == [REPO]
    assert published.url == f"{hub.url}/{REPO}/tree/{published.commit}"
    again = push(api, release, REPO, "v1", tag="v1.0", collection=collection["slug"])
    assert again == published
    assert visible(hub) == [FILES]
    assert hub.count("PUT", PUT) == 2


def test_a_new_version_replaces_the_files_of_releases_and_leaves_the_others(hub, api, release):
    push(api, release, REPO, "v1")
    repository = hub.repositories[REPO]
    others = {"photo.png": File(b"png", False), "adapter_config.json": File(b"{}", False)}
    repository.commit("by hand", repository.head.files | others)
    (release / "adapter" / "adapter_model.safetensors").unlink()
    (release / "config.json").write_bytes(b'{"new": 1}')
    push(api, release, REPO, "v2")
    # A root adapter_config.json would make the id load as the bare LLM.
    expected = {"README.md", "config.json", "model.safetensors", "photo.png", ".gitattributes"}
    assert set(repository.head.files) == expected
    assert repository.head.title == "v2"


@pytest.mark.parametrize(
    ("method", "place", "kind"),
    [
        *[(method, place, kind) for method, place in STEPS for kind in ("500", "drop", "lost")],
        ("POST", CREATE, "slow"),
        ("PUT", PUT, "slow"),
        ("POST", COMMIT, "slow"),
    ],
)
def test_a_failure_that_passes_is_survived(hub, api, release, kind, method, place):
    """`lost`: the Hub did the work and the answer did not arrive."""
    hub.fail(method, place, kind)
    published = push(api, release, REPO, "v1", tag="v1.0", collection="Slam")
    assert visible(hub) == [FILES]
    assert hub.repositories[REPO].tags == {"v1.0": published.commit}
    # A commit whose answer was lost is found done, and not sent again.
    assert hub.count(method, place) >= (1 if (place, kind) == (COMMIT, "lost") else 2)


@pytest.mark.parametrize("kind", ["500", "slow", "drop"])
@pytest.mark.parametrize(("method", "place"), [("PUT", PUT), ("POST", COMMIT), ("POST", CREATE)])
def test_a_failure_that_stays_leaves_nothing_half_written_and_says_what_to_do(
    hub, api, release, kind, method, place, monkeypatch
):
    monkeypatch.setattr(publishing_hub, "ANSWER_SECONDS", 0.2)
    close_session()
    hub.fail(method, place, kind, times=100)
    with pytest.raises(PublishError, match=r"Nothing of this version is visible.*Run the same command again"):
        push(api, release, REPO, "v1", tag="v1.0")
    assert visible(hub) == []
    assert hub.count(method, place) < 20
    hub.faults.clear()
    push(api, release, REPO, "v1", tag="v1.0")
    assert visible(hub) == [FILES]


def test_an_upload_that_breaks_off_between_files_keeps_the_earlier_version(hub, api, release):
    push(api, release, REPO, "v1")
    (release / "model.safetensors").write_bytes(b"new" * 1000)
    (release / "adapter" / "adapter_model.safetensors").write_bytes(b"newer" * 1000)
    hub.fail("PUT", PUT, "drop", times=100, after=1)
    with pytest.raises(PublishError):
        push(api, release, REPO, "v2")
    assert visible(hub) == [FILES]
    hub.faults.clear()
    before = hub.count("PUT", PUT)
    push(api, release, REPO, "v2")
    assert len(visible(hub)) == 2
    assert hub.count("PUT", PUT) == before + 1  # the file that had arrived is not sent again


@pytest.mark.parametrize("place", [CREATE, "/preupload/", LFS, COMMIT])
@pytest.mark.parametrize(("kind", "words"), [("401", "Log in anew"), ("403", "may not write to org")])
def test_a_refusal_is_final_at_once_and_told(hub, api, release, place, kind, words):
    hub.fail("POST", place, kind, times=100)
    with pytest.raises(PublishError, match=f"Nothing of this version is visible.*{words}"):
        push(api, release, REPO, "v1")
    assert visible(hub) == []
    assert hub.count("POST", place) == 1


def test_a_tag_that_fails_leaves_the_files_complete_and_the_same_command_mends_it(hub, api, release):
    hub.fail("POST", "/tag/", "500", times=100)
    with pytest.raises(PublishError, match=r"complete at org/.*, commit [0-9a-f]{40}.*same command again"):
        push(api, release, REPO, "v1", tag="v1.0")
    hub.faults.clear()
    published = push(api, release, REPO, "v1", tag="v1.0")
    assert hub.repositories[REPO].tags == {"v1.0": published.commit}
    assert visible(hub) == [FILES]


def test_a_tag_is_never_moved(hub, api, release):
    push(api, release, REPO, "v1", tag="v1.0")
    (release / "config.json").write_bytes(b'{"new": 1}')
    push(api, release, REPO, "v2")
    with pytest.raises(PublishError, match="Choose another `--tag`"):
        push(api, release, REPO, "v3", tag="v1.0")
    assert len(visible(hub)) == 2


def test_a_card_that_the_hub_refuses_stops_everything_before_the_upload(hub, api, release):
    (release / "README.md").write_text("---\nlanguage: Dutch\n---\n")
    with pytest.raises(PublishError, match='"language" with value "Dutch" is not valid'):
        push(api, release, REPO, "v1")
    assert hub.count("PUT", PUT) == 0
    assert visible(hub) == []


def test_private_means_private(hub, api, release):
    push(api, release, REPO, "v1", private=True)
    assert hub.repositories[REPO].private
    with pytest.raises(HfHubHTTPError):
        HfApi(endpoint=hub.url, token=False).model_info(REPO)
    create_repository(api, "org/public", private=False)
    with pytest.raises(PublishError, match="exists and is public"):
        push(api, release, "org/public", "v1", private=True)


def test_a_token_that_only_reads_or_a_foreign_owner_is_told_before_training(hub, api, monkeypatch):
    with pytest.raises(PublishError, match="may not write to other"):
        create_repository(api, "other/model", private=False)
    monkeypatch.setenv("HF_TOKEN", hub.read_token)
    with pytest.raises(PublishError, match=r"may not write to org \(403: .*only reads"):
        create_repository(open_hub(hub.url), REPO, private=False)
    assert not hub.repositories


@pytest.mark.parametrize(
    ("variables", "words"),
    [({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"), ({"HF_TOKEN": None}, "no Hub token")],
)
def test_without_network_or_token_nothing_begins(hub, api, monkeypatch, tmp_path, variables, words):
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    for name, value in variables.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    with pytest.raises(PublishError, match=words):
        open_hub(hub.url)
    assert not hub.requests


def test_no_message_and_no_log_holds_the_token(hub, api, release, caplog):
    hub.fail("POST", CREATE, "500", times=2)
    hub.fail("POST", COMMIT, "401")
    with pytest.raises(PublishError) as error:
        push(api, release, REPO, "v1")
    told = caplog.text + repr(error.value) + repr(error.value.__cause__)
    assert "The Hub did not answer as it should" in told
    assert hub.token not in told


@pytest.mark.parametrize("kind", ["drop", "slow"])
def test_a_download_that_fails_is_resumed_and_never_half_a_file(
    hub, api, release, kind, tmp_path, monkeypatch
):
    published = push(api, release, REPO, "v1")
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 1)
    hub.fail("GET", "/resolve/.*/model.safetensors", kind)
    path = hf_hub_download(
        REPO, "model.safetensors", revision=published.commit, endpoint=hub.url, cache_dir=tmp_path / "cache"
    )
    assert Path(path).read_bytes() == FILES["model.safetensors"]
    assert hub.count("GET", "/resolve/.*/model.safetensors") == 2


@pytest.mark.parametrize("kind", ["500", "401", "403"])
def test_a_download_that_is_refused_leaves_nothing_in_the_cache(hub, api, release, kind, tmp_path):
    push(api, release, REPO, "v1")
    hub.fail("GET", "/resolve/.*/config.json", kind)
    with pytest.raises(HfHubHTTPError, match=kind):
        hf_hub_download(REPO, "config.json", endpoint=hub.url, cache_dir=tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("snapshots/*/config.json"))
