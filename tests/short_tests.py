"""A pytest plugin that keeps `make test` short: a test that takes long and is not marked `e2e` fails.

What counts is processor time, of the test, its fixtures and the programs it ran: a busy machine adds little.
"""

import os
from collections.abc import Iterator

import pytest

MOST_SECONDS = 30
MARKS = {"e2e", "nightly", "slow", "browser"}
STARTED = pytest.StashKey[float]()


def processor_seconds() -> float:
    """Of this process and of all that it started and that have ended."""
    return sum(os.times()[:4])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    item.stash[STARTED] = processor_seconds()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Iterator[None]:
    report = yield
    seconds = processor_seconds() - item.stash[STARTED]
    if call.when == "call" and report.passed and seconds > MOST_SECONDS and not item.keywords.keys() & MARKS:
        report.outcome = "failed"
        report.longrepr = (
            f"This test took {seconds:.1f} s of processor time, with its fixtures; at most {MOST_SECONDS} s "
            "are for `make test`. Make it faster, or mark it `@pytest.mark.e2e`."
        )
    return report
