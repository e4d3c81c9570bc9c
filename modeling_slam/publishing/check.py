"""The check before anything is sent: a fresh process loads the files as a stranger would, and transcribes.

That process gets the files, the Hub and trust_remote_code, and cannot import this project. What it measures
goes into the card.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("fresh_load.py")
ERROR_LINES = 12


@dataclass(frozen=True)
class CheckResult:
    """What the fresh process saw."""

    transcripts: list[str]  # of the clips, one by one
    transcripts_in_batch: list[str]  # of the same clips in one batch
    logit_difference: float  # the largest between the two, at the first token to be written
    dtype: str
    parameters: dict[str, int]
    clip: str  # name of the file, or "generated"

    @property
    def batch_invariant(self) -> bool:
        return self.transcripts == self.transcripts_in_batch


def check_in_fresh_process(directory: Path, clip: str | None = None) -> CheckResult:
    """Load `directory` in a fresh process and transcribe `clip`, or a generated one.

    Raises:
        ValueError: it does not load or does not transcribe; the message ends with that process's last words.
    """
    with tempfile.TemporaryDirectory() as scratch:
        results = Path(scratch) / "results.json"
        # -P: not even the working directory is searched for modules.
        command = [sys.executable, "-P", str(SCRIPT), str(directory.resolve()), str(results)]
        if clip is not None:
            command.append(str(Path(clip).resolve()))
        environment = os.environ | {"HF_MODULES_CACHE": str(Path(scratch) / "modules")}
        done = subprocess.run(
            command, cwd=scratch, env=environment, capture_output=True, text=True, errors="replace"
        )
        if done.returncode:
            words = "\n".join(done.stderr.strip().splitlines()[-ERROR_LINES:])
            raise ValueError(
                "The files do not load and transcribe in a process that lacks this project, so nobody else "
                f"could use them; nothing was sent. Its last words:\n{words}"
            )
        return CheckResult(**json.loads(results.read_text(encoding="utf-8")))
