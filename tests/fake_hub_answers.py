"""What the fake Hub answers, one method per endpoint; see `fake_hub.py` for its state and faults.

Paths, fields and error codes are those that huggingface_hub 2.4 sends and reads.
"""

import base64
import json
import re
import socket
import struct
from http.server import BaseHTTPRequestHandler
from pathlib import PurePath
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

from fake_hub import Commit, FakeHub, File, Repository
from hub_card_rules import check_card

ROUTES: list[tuple[str, re.Pattern, str]] = []
LARGE = 10 * 1024 * 1024
REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"


class HubError(Exception):
    def __init__(self, status: int, message: str, code: str | None = None):
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


def route(method: str, pattern: str):
    def register(function):
        ROUTES.append((method, re.compile(pattern), function.__name__))
        return function

    return register


class Answers(BaseHTTPRequestHandler):
    hub: ClassVar[FakeHub]
    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments: Any) -> None:
        """No log on the terminal: `hub.requests` is the log."""

    def do_GET(self) -> None:
        self.answer()

    do_POST = do_PUT = do_HEAD = do_GET  # noqa: N815 (names that http.server looks for)

    # ---------------------------------------------------------------- one request

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        with self.hub.lock:
            self.hub.requests.append((self.command, path))
        kind = self.hub.fault(self.command, path)
        if kind == "slow":
            self.read_body()
            self.hub.stopping.wait(60)
            return self.break_off()
        if kind == "drop" and self.command in ("POST", "PUT"):
            self.rfile.read(int(self.headers.get("Content-Length", 0)) // 2)
            return self.break_off()
        self.body = self.read_body()
        try:
            if kind in ("500", "401", "403"):
                raise HubError(int(kind), "scripted")
            status, headers, content = self.dispatch(path)
        except HubError as error:
            return self.send_error_answer(error)
        if kind == "lost":
            return self.break_off()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if kind == "drop" else content)
        if kind == "drop":
            self.close_connection = True

    def dispatch(self, path: str) -> tuple[int, dict[str, str], bytes]:
        # Datasets and Spaces are kept and answered for as models are.
        path = re.sub("^/api/(datasets|spaces)/", "/api/models/", path)
        path = re.sub("^/(datasets|spaces)/", "/", path)
        for method, pattern, name in ROUTES:
            match = pattern.fullmatch(path)
            if match and (method == self.command or (method, self.command) == ("GET", "HEAD")):
                with self.hub.lock:
                    result = getattr(self, name)(**match.groupdict())
                if isinstance(result, tuple):
                    return result
                return 200, {"Content-Type": "application/json"}, json.dumps(result).encode()
        raise HubError(404, f"the fake Hub has no {self.command} {path}")

    def send_error_answer(self, error: HubError) -> None:
        # A proxy's own errors are no JSON.
        if error.status >= 500:
            content = b"<html>Internal Error</html>"
        else:
            content = json.dumps({"error": error.message}).encode()
        self.send_response(error.status)
        if error.code:
            self.send_header("X-Error-Code", error.code)
        if error.message != "scripted":
            self.send_header("X-Error-Message", error.message)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def break_off(self) -> None:
        """Reset the connection, as a cable that is pulled."""
        self.close_connection = True
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    # ---------------------------------------------------------------- who asks for what

    def may_write(self) -> None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in (self.hub.token, self.hub.read_token):
            raise HubError(401, "Invalid credentials in Authorization header")
        if token != self.hub.token:
            raise HubError(403, "You don't have the required permissions: this token only reads.")

    def repository(self, repo: str) -> Repository:
        found = self.hub.repositories.get(repo)
        if found is None or (found.private and self.hub.token not in self.headers.get("Authorization", "")):
            raise HubError(401 if "Authorization" not in self.headers else 404, "Not found", "RepoNotFound")
        return found

    def commit_of(self, repo: str, revision: str) -> Commit:
        commit = self.repository(repo).find(revision)
        if commit is None:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    # ---------------------------------------------------------------- accounts, repositories, cards

    @route("GET", "/api/whoami-v2")
    def whoami(self) -> dict:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in (self.hub.token, self.hub.read_token):
            raise HubError(401, "Invalid credentials in Authorization header")
        role = "write" if token == self.hub.token else "read"
        access = {"accessToken": {"displayName": "test", "role": role}}
        return {"type": "user", "name": self.hub.user, "orgs": [], "auth": access}

    @route("POST", "/api/repos/create")
    def create_repository(self) -> Any:
        self.may_write()
        asked = json.loads(self.body)
        if asked.get("type") == "space" and asked.get("sdk") not in ("gradio", "docker", "static"):
            raise HubError(400, "A Space needs an sdk")
        owner = asked.get("organization") or self.hub.user
        if owner != self.hub.user:
            raise HubError(403, f'You don\'t have the rights to create a model under the namespace "{owner}"')
        name = f"{owner}/{asked['name']}"
        result = {"url": f"{self.hub.url}/{name}", "name": name}
        if name in self.hub.repositories:
            return 409, {}, json.dumps({"error": "You already created this model repo", **result}).encode()
        repository = self.hub.repositories[name] = Repository(private=asked.get("visibility") == "private")
        repository.commit("initial commit", {".gitattributes": File(b"*.safetensors filter=lfs\n", False)})
        return result

    @route("POST", "/api/validate-yaml")
    def validate_yaml(self) -> Any:
        errors, warnings = check_card(json.loads(self.body)["content"])
        result = {"errors": [{"message": text} for text in errors]}
        result["warnings"] = [{"message": text} for text in warnings]
        return (400 if errors else 200), {}, json.dumps(result).encode()

    @route("GET", f"/api/models/{REPO}(/revision/(?P<revision>.+))?")
    def model_info(self, repo: str, revision: str | None) -> dict:
        commit = self.commit_of(repo, revision or "main")
        siblings = [{"rfilename": path, "size": len(file.content)} for path, file in commit.files.items()]
        private = self.repository(repo).private
        return {"id": repo, "sha": commit.oid, "private": private, "siblings": siblings, "tags": []}

    @route("GET", f"/api/models/{REPO}/tree/(?P<revision>[^/]+)(/(?P<folder>.+))?")
    def tree(self, repo: str, revision: str, folder: str | None) -> list[dict]:
        rows, folders = [], set()
        for path, file in self.commit_of(repo, revision).files.items():
            if folder is None or path.startswith(f"{folder}/"):
                row = {"type": "file", "path": path, "size": len(file.content), "oid": file.oid}
                rows.append(row | ({"lfs": self.lfs_fields(file)} if file.is_lfs else {}))
                folders |= {str(parent) for parent in PurePath(path).parents} - {".", folder}
        return rows + [{"type": "directory", "path": name, "oid": "0" * 40} for name in sorted(folders)]

    @staticmethod
    def lfs_fields(file: File) -> dict:
        return {"oid": file.oid, "size": len(file.content), "pointerSize": 134}

    # ---------------------------------------------------------------- commits, refs, collections

    @route("POST", f"/api/models/{REPO}/preupload/(?P<revision>.+)")
    def preupload(self, repo: str, revision: str) -> dict:
        self.may_write()
        present = self.commit_of(repo, revision).files
        answers = []
        for file in json.loads(self.body)["files"]:
            path = file["path"]
            mode = "lfs" if path.endswith(".safetensors") or file["size"] > LARGE else "regular"
            oid = present[path].oid if path in present else None
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return {"files": answers}

    @route("POST", f"/{REPO}\\.git/info/lfs/objects/batch")
    def lfs_batch(self, repo: str) -> dict:
        self.may_write()
        self.repository(repo)
        answers = []
        for wanted in json.loads(self.body)["objects"]:
            answer = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.large_files:
                verify = {"href": f"{self.hub.url}/{repo}.git/info/lfs/verify"}
                answer["actions"] = {
                    "upload": {"href": f"{self.hub.url}/lfs/{wanted['oid']}"},
                    "verify": verify,
                }
            answers.append(answer)
        return {"transfer": "basic", "objects": answers}

    @route("PUT", "/lfs/(?P<oid>[0-9a-f]{64})")
    def lfs_put(self, oid: str) -> dict:
        if File(self.body, is_lfs=True).oid != oid:
            raise HubError(400, "the content is not what the hash says")
        self.hub.large_files[oid] = self.body
        return {}

    @route("POST", f"/{REPO}\\.git/info/lfs/verify")
    def lfs_verify(self, repo: str) -> dict:
        asked = json.loads(self.body)
        if len(self.hub.large_files.get(asked["oid"], b"")) != asked["size"]:
            raise HubError(404, f"{asked['oid']} of {repo} is not there")
        return {}

    @route("POST", f"/api/models/{REPO}/commit/(?P<revision>.+)")
    def create_commit(self, repo: str, revision: str) -> dict:
        self.may_write()
        repository, files = self.repository(repo), dict(self.commit_of(repo, revision).files)
        title = ""
        for line in self.body.splitlines():
            item = json.loads(line)
            key, value = item["key"], item["value"]
            if key == "header":
                title = value["summary"]
                if value.get("parentCommit", repository.head.oid) != repository.head.oid:
                    raise HubError(412, "A commit has happened since. Please refresh and try again.")
            elif key == "file":
                files[value["path"]] = File(base64.b64decode(value["content"]), is_lfs=False)
            elif key == "lfsFile":
                if value["oid"] not in self.hub.large_files:
                    raise HubError(400, f"{value['path']}: its content was never uploaded")
                files[value["path"]] = File(self.hub.large_files[value["oid"]], is_lfs=True)
            elif key == "deletedFile":
                if files.pop(value["path"], None) is None:
                    raise HubError(404, "A file with this name doesn't exist", "EntryNotFound")
            else:
                raise HubError(400, f"the fake Hub has no operation {key}")
        commit = repository.commit(title, files)
        return {
            "success": True,
            "commitOid": commit.oid,
            "commitUrl": f"{self.hub.url}/{repo}/commit/{commit.oid}",
        }

    @route("GET", f"/api/models/{REPO}/commits/(?P<revision>.+)")
    def commits(self, repo: str, revision: str) -> list[dict]:
        self.commit_of(repo, revision)
        row = {"authors": [{"user": self.hub.user}], "date": "2026-01-01T00:00:00.000Z", "message": ""}
        return [row | {"id": c.oid, "title": c.title} for c in reversed(self.repository(repo).commits)]

    @route("GET", f"/api/models/{REPO}/refs")
    def refs(self, repo: str) -> dict:
        repository = self.repository(repo)
        main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repository.head.oid}
        tags = [
            {"name": n, "ref": f"refs/tags/{n}", "targetCommit": oid} for n, oid in repository.tags.items()
        ]
        return {"branches": [main], "converts": [], "tags": tags}

    @route("POST", f"/api/models/{REPO}/tag/(?P<revision>.+)")
    def tag(self, repo: str, revision: str) -> dict:
        self.may_write()
        name = json.loads(self.body)["tag"]
        if name in self.repository(repo).tags:
            raise HubError(409, f"Reference {name} already exists")
        self.repository(repo).tags[name] = self.commit_of(repo, revision).oid
        return {}

    @route("POST", "/api/collections")
    def create_collection(self) -> Any:
        self.may_write()
        asked = json.loads(self.body)
        slug = f"{asked['namespace']}/{asked['title'].lower().replace(' ', '-')}-0123456789abcdef01234567"
        known = slug in self.hub.collections
        fields = {
            "slug": slug,
            "title": asked["title"],
            "items": [],
            "owner": {},
            "position": 0,
            "upvotes": 0,
        }
        fields |= {"lastUpdated": "2026-01-01T00:00:00.000Z", "private": False, "theme": "blue"}
        collection = self.hub.collections.setdefault(slug, fields)
        return (409 if known else 200), {}, json.dumps(collection).encode()

    @route("GET", "/api/collections/(?P<slug>[^/]+/[^/]+)")
    def collection(self, slug: str) -> dict:
        if slug not in self.hub.collections:
            raise HubError(404, f"There is no collection {slug}")
        return self.hub.collections[slug]

    @route("POST", "/api/collections/(?P<slug>[^/]+/[^/]+)/items")
    def add_item(self, slug: str) -> dict:
        self.may_write()
        collection, item = self.collection(slug), json.loads(self.body)["item"]
        if any(known["id"] == item["id"] for known in collection["items"]):
            raise HubError(409, "Item already in collection")
        collection["items"].append({"_id": "0", "position": 0, **item})
        return collection

    # ---------------------------------------------------------------- files

    @route("GET", f"/{REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
    def resolve(self, repo: str, revision: str, path: str) -> Any:
        commit = self.commit_of(repo, revision)
        file = commit.files.get(path)
        if file is None:
            raise HubError(404, f"Entry not found: {path}", "EntryNotFound")
        headers = {"ETag": f'"{file.oid}"', "X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            return 200, headers, file.content
        start, end = int(wanted[1]), int(wanted[2] or len(file.content) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(file.content)}"
        return 206, headers, file.content[start : end + 1]
