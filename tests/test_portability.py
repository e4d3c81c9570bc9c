"""Training, evaluation and all packages but the study's workers import on systems that are not POSIX."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("common", "data", "demo", "evaluation", "model", "publishing", "training", "transcription")

# Modules that Windows lacks are refused to this project's files; libraries have their own ways without them.
SCRIPT = """
import builtins, importlib, pathlib, sys

MISSING = {"fcntl", "grp", "pwd", "pty", "resource", "termios", "tty", "syslog", "posix"}
usual = builtins.__import__

def without_posix(name, globals=None, *rest, **named):
    asking = pathlib.Path((globals or {}).get("__file__") or "")
    ours = "modeling_slam" in asking.parts or asking.name in ("train.py", "eval.py")
    if ours and name.partition(".")[0] in MISSING:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return usual(name, globals, *rest, **named)

builtins.__import__ = without_posix
import train, eval
root = pathlib.Path("modeling_slam")
for package in sys.argv[1:]:
    for file in sorted((root / package).rglob("*.py")):
        if file.name not in ("__main__.py", "fresh_load.py"):
            importlib.import_module(".".join(file.with_suffix("").parts).removesuffix(".__init__"))
print("imported")
"""


def test_everything_but_the_study_imports_without_what_only_posix_has():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *PACKAGES], cwd=REPOSITORY, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip().endswith("imported"), done.stderr
