"""Runs commands as a user would, each in a process of its own, and shows them."""

import shlex
import subprocess
import sys

from modeling_slam.common.shipped import at_home

ASSETS = "modeling_slam/demo/assets"


def speech_flags(language: str) -> list[str]:
    """The embedded speech of one language, for training and evaluation alike."""
    dataset = at_home(f"{ASSETS}/speech/{language}")
    return ["--dataset", dataset, "--language", language, "--id_column", "id", "--speaker_column", "speaker"]


def run(*command: str) -> None:
    """`slam-asr COMMAND`, to its end.

    Raises:
        RuntimeError: the command failed.
    """
    shown = f"slam-asr {shlex.join(command)}"
    print(f"\n$ {shown}", flush=True)
    status = subprocess.run([sys.executable, "-m", "slam_asr", *command]).returncode
    if status:
        raise RuntimeError(f"`{shown}` ended with status {status}: see above.")
