"""A real Chromium for tests of pages."""

import contextlib
import os
import shutil
from collections.abc import Iterator

import pytest

# Chromium's own background traffic is off: a test says nothing to anyone.
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
           "--disable-component-update", "--disable-sync"]  # fmt: skip


def find_chromium() -> str:
    found = os.environ.get("CHROMIUM") or next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if found is None:
        pytest.fail(
            "There is no Chromium. Install one (Debian: apt-get install chromium), or set CHROMIUM to it."
        )
    return found


@contextlib.contextmanager
def open_chromium(*options: str) -> Iterator:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=[*OPTIONS, *options])
        yield browser
        browser.close()
