"""Mozilla Data Collective: the real client against a small server that speaks its API."""

import hashlib
import http.server
import json
import tarfile
import threading

import pytest

from modeling_slam.data import DataArguments, DataError, load_speech


@pytest.fixture
def mozilla_server(common_voice, tmp_path, monkeypatch):
    """Serves one release under the id `nl-22`; returns the list of requests it saw."""
    release = common_voice(tmp_path / "published")
    archive = tmp_path / "published" / "cv-corpus-22.0-2025-06-20-nl.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(release, arcname=release.name)
    content = archive.read_bytes()
    checksum = hashlib.sha256(content).hexdigest()
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self, body: bytes):
            requests.append((self.command, self.path, self.headers.get("Authorization")))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            if self.path.startswith("/files/"):
                self.answer(content)
            else:
                details = {"id": "nl-22", "filename": archive.name, "checksum": checksum}
                self.answer(json.dumps({**details, "sizeBytes": len(content)}).encode())

        def do_POST(self):
            link = f"http://127.0.0.1:{self.server.server_port}/files/{archive.name}"
            plan = {"downloadUrl": link, "sizeBytes": len(content), "checksum": checksum}
            self.answer(json.dumps(plan).encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MDC_API_URL", f"http://127.0.0.1:{server.server_port}/api")
        monkeypatch.setenv("MDC_DOWNLOAD_PATH", str(tmp_path / "downloads"))
        yield requests
        server.shutdown()


def test_the_real_client_fetches_a_release_once_and_it_loads(mozilla_server, monkeypatch):
    monkeypatch.setenv("MDC_API_KEY", "secret")
    arguments = DataArguments("mdc:nl-22", language="nl")
    clips, report = load_speech(arguments, "train")
    assert len(clips) == 4
    assert len(report.dropped) == 3
    assert (report.kind, report.language, report.split) == ("Common Voice", "nl", "train")
    assert ("POST", "/api/datasets/nl-22/download", "Bearer secret") in mozilla_server
    load_speech(arguments, "test")
    assert sum(path.startswith("/files/") for _, path, _ in mozilla_server) == 1


def test_without_a_key_nothing_is_asked_of_the_network(mozilla_server, monkeypatch):
    monkeypatch.delenv("MDC_API_KEY", raising=False)
    with pytest.raises(DataError, match="MDC_API_KEY"):
        load_speech(DataArguments("mdc:nl-22"), "train")
    assert mozilla_server == []


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datacollective", None)  # As if it were not installed.
    with pytest.raises(DataError, match=r'pip install "slam-asr\[mdc\]"'):
        load_speech(DataArguments("mdc:nl-22"), "train")


def test_an_id_is_needed():
    with pytest.raises(DataError, match="without an id"):
        load_speech(DataArguments("mdc:"), "train")
