"""What was measured: a file of JSON lines, one a case, each written when it is there.

The first line says where. A second run reads the file and measures what is not there. A case that ended the
process twice is left out from then on.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.device import Device, OutOfMemoryError
from modeling_slam.common.differences import differences
from modeling_slam.common.files import read_json, write_json

Line = dict[str, Any]
TRIES = 2  # of a case that takes the process with it


class OutOfTimeError(Exception):
    """The time that this run was given is over; what was under way is measured by the next one."""


class BrokenDeviceError(Exception):
    """An error has left the device useless to this process."""


class Lines:
    """The file `gpu.jsonl` of a directory, by case."""

    def __init__(self, directory: Path, about: Mapping[str, Any], device: Device, minutes: float | None):
        """Raises ValueError if the file holds figures of another device, other libraries or sizes."""
        directory.mkdir(parents=True, exist_ok=True)
        self.path, self.begun_path = directory / "gpu.jsonl", directory / "begun.json"
        self.about, self.device = dict(about), device
        self.end = None if minutes is None else time.monotonic() + 60 * minutes
        self.lines: dict[str, Line] = {}
        if self.path.exists():
            stored, *lines = map(json.loads, whole_lines(self.path))
            if changed := differences(stored["about"], self.about):
                raise ValueError(
                    f"{self.path} holds figures made otherwise: {'; '.join(changed)}. Give another `--out`."
                )
            self.lines = {line["case"]: line for line in lines}
        else:
            self._write({"about": self.about})
        self.begun: dict[str, int] = read_json(self.begun_path) if self.begun_path.exists() else {}

    def check_time(self) -> None:
        """Raises OutOfTimeError when the time is over."""
        if self.end is not None and time.monotonic() > self.end:
            raise OutOfTimeError

    def line(self, facts: Mapping[str, Any], work: Callable[[], Mapping[str, Any]]) -> Line:
        """The line with these facts: the stored one, or what `work` finds, written before it is returned.

        What `work` raises is written as `error`, the end of memory as `out_of_memory`.

        Raises:
            OutOfTimeError: nothing was written. BrokenDeviceError: a new process can go on.
        """
        case = " ".join(str(value) for value in facts.values() if value is not None)
        if case in self.lines:
            return self.lines[case]
        self.check_time()
        found: Line = {"case": case, **facts}
        if self.begun.get(case, 0) >= TRIES:
            return self._add(found | {"error": f"It ended the process {TRIES} times, or was stopped in it."})
        self._count(case, +1)
        start = time.monotonic()
        error = None
        try:
            with self.device.noticing_the_end_of_memory():
                found |= work()
        except (OutOfTimeError, KeyboardInterrupt):
            self._count(case, -1)
            raise
        except OutOfMemoryError as full:
            found |= {"out_of_memory": True, "error": str(full)}
        except Exception as other:
            error = f"{type(other).__name__}: {' '.join(str(other).split())[:500]}"
            found |= {"error": error}
        self._count(case, -1)
        self._add(found | {"took_seconds": round(time.monotonic() - start, 2)})
        self.device.forget()
        if error:
            self._check_device(case)
        return self.lines[case]

    def _check_device(self, case: str) -> None:
        try:
            self.device.timed(lambda: torch.ones(8, device=self.device.torch).sum())
        except Exception as error:
            raise BrokenDeviceError(f"{case}: {error}") from error

    def _add(self, line: Line) -> Line:
        self.lines[line["case"]] = line
        self._write(line)
        print(json.dumps(line), flush=True)
        return line

    def _write(self, line: Line) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _count(self, case: str, change: int) -> None:
        self.begun[case] = self.begun.get(case, 0) + change
        write_json(self.begun_path, {name: times for name, times in self.begun.items() if times})


def whole_lines(path: Path) -> list[str]:
    """A process that was killed while it wrote leaves a line without an end: it goes."""
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole, encoding="utf-8")
    return whole.splitlines()
