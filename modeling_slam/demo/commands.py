"""Runs `train.py` and `eval.py` as a user would, each in a process of its own, and shows the command.

For the demo's scripts alone: they need a clone of the repository, as the two scripts are not installed with
the package.
"""

import shlex
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
ASSETS = Path("modeling_slam/demo/assets")  # below REPOSITORY, where the commands run


def speech_flags(language: str) -> list[str]:
    """The embedded speech of one language, for `train.py` and `eval.py` alike."""
    dataset = f"{ASSETS}/speech/{language}"
    return ["--dataset", dataset, "--language", language, "--id_column", "id", "--speaker_column", "speaker"]


def run(script: str, *arguments: str) -> None:
    """`python script arguments` from the repository's root.

    Raises:
        RuntimeError: the command failed.
    """
    command = [script, *arguments]
    print(f"\n$ python {shlex.join(command)}", flush=True)
    status = subprocess.run([sys.executable, *command], cwd=REPOSITORY).returncode
    if status:
        raise RuntimeError(f"`python {shlex.join(command)}` ended with status {status}: see above.")
