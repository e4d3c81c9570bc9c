"""Runs `train.py` and `eval.py` as a user would, each in a process of its own, and shows the command.

For the demo's scripts alone: they need a clone of the repository, as the two scripts are not installed with
the package.
"""

import os
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


def run(script: str, *arguments: str, log: Path | None = None, threads: int | None = None) -> None:
    """`python script arguments` from the repository's root; with `log` its output goes there instead.

    Raises:
        RuntimeError: the command failed; the message has the end of its log.
    """
    command = [script, *arguments]
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    if log is None:
        print(f"\n$ python {shlex.join(command)}", flush=True)
        finished = subprocess.run([sys.executable, *command], cwd=REPOSITORY, env=environment)
        tail = "See its output above."
    else:
        with log.open("a") as output:
            output.write(f"$ python {shlex.join(command)}\n")
            output.flush()
            finished = subprocess.run(
                [sys.executable, *command], cwd=REPOSITORY, env=environment, stdout=output, stderr=output
            )
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    if finished.returncode:
        raise RuntimeError(f"`python {shlex.join(command)}` ended with status {finished.returncode}. {tail}")
