"""A small Hub on this machine: the endpoints huggingface_hub really calls to publish and load a model.

It speaks HTTP on a free port, so the real client is tested, not a mock of it. Everything a client can see
hangs on commits, and a commit appears whole or not at all, as on the Hub. `fail` scripts what goes wrong.

    with FakeHub() as hub:
        hub.fail("PUT", "/lfs/", "drop")           # the first upload breaks off in the middle
        HfApi(endpoint=hub.url, token=hub.token).create_repo("org/model")

Processes started with `hub.environment(directory)` use it as their Hub. To add an endpoint: a method of
`tests/fake_hub_answers.py` with its `route`.
"""

import hashlib
import json
import os
import re
import threading
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, Self

FaultKind = Literal["500", "401", "403", "slow", "drop", "lost"]
TOKEN, READ_TOKEN = "hf_" + "writes" * 6, "hf_" + "reads0" * 6


@dataclass(frozen=True)
class File:
    """One file of a commit."""

    content: bytes
    is_lfs: bool

    @property
    def oid(self) -> str:
        """As the Hub names it: sha256 of large files, git's blob hash of the others."""
        if self.is_lfs:
            return hashlib.sha256(self.content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()


@dataclass(frozen=True)
class Commit:
    oid: str
    title: str
    files: dict[str, File]


@dataclass
class Repository:
    """A line of commits, and tags that name some of them."""

    private: bool = False
    commits: list[Commit] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def head(self) -> Commit:
        return self.commits[-1]

    def commit(self, title: str, files: dict[str, File]) -> Commit:
        parent = self.commits[-1].oid if self.commits else ""
        tree = json.dumps([parent, title, sorted((path, file.oid) for path, file in files.items())])
        self.commits.append(Commit(hashlib.sha1(tree.encode()).hexdigest(), title, dict(files)))
        return self.head

    def find(self, revision: str) -> Commit | None:
        wanted = self.head.oid if revision == "main" else self.tags.get(revision, revision)
        return next((commit for commit in self.commits if commit.oid == wanted), None)


@dataclass
class Fault:
    """The next `times` requests that match go wrong, after `after` of them went well.

    `slow` never answers, `drop` breaks off half-way through the transfer, `lost` does the work and breaks off
    before the answer; a number is the status of the answer.
    """

    method: str
    pattern: str
    kind: FaultKind
    times: int
    after: int

    def strikes(self, method: str, path: str) -> bool:
        if method != self.method or not re.search(self.pattern, path) or not self.times:
            return False
        if self.after:
            self.after -= 1
            return False
        self.times -= 1
        return True


class FakeHub:
    """The Hub's state and its server. `token` may write, `read_token` may not."""

    token, read_token, user = TOKEN, READ_TOKEN, "org"

    def __init__(self):
        from fake_hub_answers import Answers

        self.repositories: dict[str, Repository] = {}
        self.collections: dict[str, dict[str, Any]] = {}
        self.large_files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()
        self.stopping = threading.Event()
        handler = type("Handler", (Answers,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> Self:
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()
        return self

    def __exit__(self, *_exception) -> None:
        self.stopping.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def fail(self, method: str, pattern: str, kind: FaultKind, times: int = 1, after: int = 0) -> None:
        self.faults.append(Fault(method, pattern, kind, times, after))

    def fault(self, method: str, path: str) -> FaultKind | None:
        with self.lock:
            return next((fault.kind for fault in self.faults if fault.strikes(method, path)), None)

    def count(self, method: str, pattern: str) -> int:
        """How many requests of this kind came in, failed ones too."""
        return sum(method == m and bool(re.search(pattern, path)) for m, path in self.requests)

    def add_directory(self, repo_id: str, directory: Path) -> str:
        """Put a directory's files into a repository by hand; returns the commit."""
        files = {
            path.relative_to(directory).as_posix(): File(path.read_bytes(), path.suffix == ".safetensors")
            for path in directory.rglob("*")
            if path.is_file()
        }
        return self.repositories.setdefault(repo_id, Repository()).commit("Upload", files).oid

    def environment(self, directory: Path, token: str | None = TOKEN) -> dict[str, str]:
        """Variables for a process that has this Hub, an empty cache below `directory`, and `token`."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        hub = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(directory / "hf_home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        return kept | hub | ({"HF_TOKEN": token} if token else {})
