"""The page in a real Chromium: a recording in, a transcript out, and not a word to anyone else."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from real_chromium import open_chromium
from sound_files import coded

from modeling_slam.app.__main__ import open_page
from modeling_slam.app.arguments import AppArguments

pytestmark = pytest.mark.browser

MICROPHONE = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")
SIZES = [(390, 844), (1280, 900)]
PICTURES = os.environ.get("SLAM_PICTURES")  # a directory: what the page looks like, for people


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    with open_chromium(*MICROPHONE) as browser:
        yield browser


@pytest.fixture
def called(monkeypatch) -> list[str]:
    """The hosts that this process talks to; pytest's own thread and Gradio's."""
    hosts, connect = [], socket.socket.connect

    def watched(self, address):
        hosts.append(address[0] if isinstance(address, tuple) else "local")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", watched)
    return hosts


@pytest.fixture
def opened(called, tmp_path, monkeypatch) -> Iterator:
    """Opens the page of a checkpoint; returns its address."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    pages = []

    def open_(checkpoint: Path) -> str:
        pages.append(open_page(AppArguments(str(checkpoint))))
        return pages[-1].local_url

    yield open_
    for page in pages:
        page.close()
    assert set(called) <= {"127.0.0.1", "localhost", "local"}


@pytest.fixture
def page(chromium) -> Iterator:
    """A window in which no script fails, and which fetches nothing from anywhere else."""
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    problems: list[str] = []
    ours = ("http://127.0.0.1:", "data:", "blob:")
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda asked: None if asked.url.startswith(ours) else problems.append(asked.url))
    yield page
    page.close()
    assert problems == []


def upload(page, url: str, file: Path) -> None:
    page.goto(url)
    page.get_by_role("tab", name="File").click()
    page.set_input_files("#file input[type=file]", file)
    page.get_by_text(file.stem).wait_for()


def picture(page, name: str) -> None:
    if PICTURES:
        page.screenshot(path=Path(PICTURES, f"{name}.png"), full_page=True)


@pytest.mark.parametrize("size", SIZES)
def test_an_uploaded_recording_gives_words_and_subtitles(page, opened, any_depth_checkpoint, recording, size):
    page.set_viewport_size({"width": size[0], "height": size[1]})
    upload(page, opened(any_depth_checkpoint), recording)
    page.click("#transcribe")
    page.locator(".transcript").wait_for()
    assert page.locator(".transcript").inner_text().strip()
    assert page.locator(".legend mark").count() == 2
    page.wait_for_function("document.querySelector('#player audio').duration > 2")
    page.evaluate("document.querySelector('#player audio').currentTime = 1")
    page.wait_for_function("document.querySelector('.stage').textContent")
    said = page.locator(".stage").inner_text().split()
    assert said == page.locator(".transcript").inner_text().split()[: len(said)]
    with page.expect_download() as download:
        page.get_by_role("button", name="srt", exact=True).click()
    assert download.value.suggested_filename == "my talk.srt"
    assert " --> " in Path(download.value.path()).read_text()
    page.get_by_role("button", name="Subtitles").click()
    assert " --> " in page.locator("textarea").input_value()
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    picture(page, f"words-{size[0]}")


def test_a_film_carries_its_subtitles(page, opened, any_depth_checkpoint, tmp_path):
    (tmp_path / "film.mp4").write_bytes(coded("mp4", "aac", video=True))
    upload(page, opened(any_depth_checkpoint), tmp_path / "film.mp4")
    page.click("#transcribe")
    page.locator("#player video").wait_for()
    page.wait_for_function("document.querySelector('#player video').textTracks[0]?.cues?.length > 0")
    assert page.locator(".stage").count() == 0


def test_depths_are_compared_side_by_side(page, opened, any_depth_checkpoint, recording):
    upload(page, opened(any_depth_checkpoint), recording)
    page.get_by_role("button", name="Compare depths 3, 2, 1").click()
    page.wait_for_function("document.querySelectorAll('#depths article').length == 3")
    page.wait_for_function("!document.querySelector('#depths').textContent.includes('waiting')")
    assert page.locator("#depths mark").count() > 1
    lefts = page.evaluate("[...document.querySelectorAll('#depths article')].map(card => card.offsetLeft)")
    assert lefts == sorted(set(lefts))
    picture(page, "depths-1280")


def test_a_model_without_head_says_what_it_lacks(page, opened, checkpoint, recording):
    upload(page, opened(checkpoint), recording)
    assert "no CTC head" in page.locator("body").inner_text()
    assert not page.locator("#compare").is_visible()
    page.click("#transcribe")
    page.locator(".transcript").wait_for()
    page.get_by_role("button", name="txt", exact=True).wait_for()
    assert page.locator("mark").count() == 0
    assert page.get_by_role("button", name="srt").count() == 0
    assert page.locator("track").count() == 0


def test_a_bad_file_and_none_at_all_are_told_on_the_page(page, opened, checkpoint, tmp_path):
    (tmp_path / "notes.mp3").write_text("no audio at all")
    url = opened(checkpoint)
    page.goto(url)
    page.click("#transcribe")
    page.get_by_role("alert").filter(has_text="choose a file first").wait_for()
    upload(page, url, tmp_path / "notes.mp3")
    page.click("#transcribe")
    page.get_by_role("alert").filter(has_text="notes.mp3: not readable as audio").wait_for()
    assert str(tmp_path) not in page.locator("body").inner_text()
    assert "Traceback" not in page.locator("body").inner_text()


def test_what_is_recorded_is_heard_and_the_last_of_two_inputs_counts(
    page, opened, any_depth_checkpoint, recording
):
    upload(page, opened(any_depth_checkpoint), recording)
    page.get_by_role("tab", name="Record").click()
    page.get_by_role("button", name="Record", exact=True).click()
    page.wait_for_timeout(2000)
    with page.expect_response("**/upload*"):
        page.get_by_role("button", name="Stop", exact=True).click()
    page.wait_for_timeout(500)
    page.click("#transcribe")
    page.locator("#player audio").wait_for()
    assert "my%20talk" not in page.locator("#player audio").get_attribute("src")


def test_silence_gives_no_text_and_no_subtitles(page, opened, any_depth_checkpoint, tmp_path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(16_000, np.float32), 16_000)
    upload(page, opened(any_depth_checkpoint), tmp_path / "silent.wav")
    page.click("#transcribe")
    page.locator("#player audio").wait_for()
    picture(page, "silence-1280")
