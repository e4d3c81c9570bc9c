"""Study, report, paper and analysis: imported in one direction, and without what only POSIX has."""

import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "modeling_slam"
LAYERS = ("analysis", "report", "paper", "study")


@pytest.mark.parametrize("name", LAYERS)
def test_imports_go_down_the_layers(name):
    above = LAYERS[LAYERS.index(name) + 1 :]
    for file in (PACKAGE / name).rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert not [layer for layer in above if f"from modeling_slam.{layer}" in text], file


def test_the_data_do_not_know_the_paper():
    assert not [
        file for file in (PACKAGE / "data").rglob("*.py") if "paper" in file.read_text("utf-8").lower()
    ]


WITHOUT_POSIX = """
import builtins
plain = builtins.__import__

def without_posix(name, globals=None, *rest, **options):
    importer = (globals or {}).get("__name__", "")
    if name in ("fcntl", "resource", "pwd", "termios") and importer.startswith("modeling_slam"):
        raise ImportError(f"{importer} imports {name}")
    return plain(name, globals, *rest, **options)

builtins.__import__ = without_posix
import modeling_slam.study, modeling_slam.study.__main__, modeling_slam.study.schedulers
import modeling_slam.analysis, modeling_slam.report.pages, modeling_slam.paper.notes, modeling_slam.paper.view
"""


def test_planning_reporting_and_publishing_need_nothing_that_only_posix_has():
    ended = subprocess.run([sys.executable, "-c", WITHOUT_POSIX], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
