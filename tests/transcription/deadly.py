"""What processes do in place of `spreading.hear_group`: a recording named `deadly` ends them,
`second` the first time.

A module of its own, as processes import what they are given to do.
"""

import os
import signal
from pathlib import Path

from modeling_slam.transcription import spreading

hear_group = spreading.hear_group


def hear_unless_deadly(task, group):
    for recording in group:
        met = Path(f"{recording.path}.met")
        if recording.path.stem == "deadly" or (recording.path.stem == "second" and not met.exists()):
            met.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return hear_group(task, group)
