"""What plans, reports and publishes a study runs where POSIX is not."""

import subprocess
import sys

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
