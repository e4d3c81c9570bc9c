"""Where all fixtures come from, and how tests share the cores under `pytest -n 2 --dist loadfile`."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    hands_out_tests = config.getoption("numprocesses", None) and not hasattr(config, "workerinput")
    if hands_out_tests:
        # In the order below, not files of many tests first: those with the most work have few.
        config.option.loadscopereorder = False
    else:  # only workers need torch, and they start when that process is ready
        config.pluginmanager.import_plugin("tiny_models")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Training first: a worker that meets a long file last leaves the others with nothing to do."""
    items.sort(key=lambda item: item.path.parent.name != "training")
