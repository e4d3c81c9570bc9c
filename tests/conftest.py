"""Where all fixtures come from, and how tests share the cores under `pytest -n 2 --dist loadfile`."""

import os

import pytest
from hypothesis import settings

# Before torch is imported, here and in the programs that tests start. On two cores two workers of two threads
# each would spend most of their time waiting for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("nightly", max_examples=10_000, deadline=None)
settings.register_profile("fuzz", max_examples=500, deadline=None)  # in each of the rounds of tests/fuzz.py


def pytest_configure(config: pytest.Config) -> None:
    hands_out_tests = config.getoption("numprocesses", None) and not hasattr(config, "workerinput")
    config.pluginmanager.import_plugin("short_tests")
    if hands_out_tests:
        # In the order below, not files of many tests first: those with the most work have few.
        config.option.loadscopereorder = False
    else:  # only workers need torch, and they start when that process is ready
        config.pluginmanager.import_plugin("tiny_models")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first: a worker that meets a long file last leaves the others with nothing to do."""
    items.sort(key=lambda item: ("e2e" not in item.keywords, item.path.parent.name != "training"))
