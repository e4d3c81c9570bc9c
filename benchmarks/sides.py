"""The sides of a comparison: programs that do one job in rounds, in turn.

The environment variable `SLAM_BENCH_JOB` names a JSON file with the job. After each round a side prints a
line of JSON with `seconds`. A side that adds `"again": true` waits for a line on its input before the next
round; any other is started anew for every round.
"""

import contextlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import IO, Any, cast

REPOSITORY = Path(__file__).parents[1]
COMMIT_FILE = "commit.txt"  # in a bundle
WORKER = Path(__file__).with_name("worker.py")


class Side:
    """A program and its job; it starts when its first round is due."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path):
        """`log` receives what the program says on its error stream."""
        self.command, self.environment, self.log = command, environment, log
        self.process: subprocess.Popen[str] | None = None

    def round(self) -> dict[str, Any]:
        """The answer to one round.

        Raises:
            ChildProcessError: the program ended without one; with the end of what it said.
        """
        if self.process is None:
            pipe = subprocess.PIPE
            with self.log.open("w") as log:
                self.process = subprocess.Popen(
                    self.command, env=self.environment, stdin=pipe, stdout=pipe, stderr=log, text=True
                )
        else:
            with contextlib.suppress(BrokenPipeError):  # it has died: `_read` says of what
                print(file=self.process.stdin, flush=True)
        answer = self._read(self.process)
        if not answer.get("again"):
            self.close()
        return answer

    def _read(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        said = []
        for line in cast(IO[str], process.stdout):
            with contextlib.suppress(ValueError):
                answer = json.loads(line)
                if isinstance(answer, dict) and "seconds" in answer:
                    return answer
            said.append(line)
        code = process.wait()
        said.append(self.log.read_text(encoding="utf-8", errors="replace"))
        raise ChildProcessError(
            f"`{shlex.join(self.command)}` ended with {code} and without a line of JSON that has `seconds`:\n"
            + "".join(said)[-4000:]
        )

    def close(self) -> None:
        """Tell the program that no round follows, and wait for its end."""
        if self.process is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.communicate()
            self.process = None

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.close()


@contextlib.contextmanager
def sides_of(
    jobs: dict[str, dict[str, Any]], programs: dict[str, tuple[list[str], dict[str, str]]], directory: Path
) -> Generator[dict[str, Side]]:
    """A side for each job, by name, with its files in `directory`; all have ended afterwards."""
    sides = {}
    for name, job in jobs.items():
        file = directory / f"{name}.json"
        file.write_text(json.dumps(job), encoding="utf-8")
        command, variables = programs[name]
        environment = os.environ | variables | {"SLAM_BENCH_JOB": str(file)}
        sides[name] = Side(command, environment, directory / f"{name}.log")
    try:
        yield sides
        for side in sides.values():
            side.close()
    finally:
        for side in sides.values():
            side.kill()


def worker(checkout: Path) -> tuple[list[str], dict[str, str]]:
    """Our worker on a checkout of this project: command, environment. Uses the checkout's `.venv` if any."""
    own = checkout / ".venv/bin/python"
    python = str(own.absolute()) if checkout != REPOSITORY and own.exists() else sys.executable
    # `-P`: modules are not searched for beside the worker.
    return [python, "-P", str(WORKER)], {"PYTHONPATH": str(checkout.absolute())}


def commit(checkout: Path) -> str | None:
    """Of a checkout, with a mark if files that are measured differ from it; of a bundle, what it has."""
    if (checkout / COMMIT_FILE).is_file():
        return (checkout / COMMIT_FILE).read_text(encoding="utf-8").strip()
    git = ["git", "-C", str(checkout)]
    try:
        head = subprocess.check_output([*git, "rev-parse", "--short", "HEAD"], text=True)
        changes = subprocess.check_output([*git, "status", "--porcelain", "-uno", "modeling_slam"], text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.strip() + ("+changes" if changes.strip() else "")
