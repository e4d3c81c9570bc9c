"""Runs a script that ends when its engine does: `python child.py FD train.py ARGUMENTS`.

FD is the reading end of a pipe whose other end the engine holds. However the engine dies, SIGKILL included,
the pipe closes, and this process ends with everything it has started. It is started by its path and imports
nothing of the package, so that the script is first to do so.
"""

import os
import runpy
import signal
import sys
import threading
from pathlib import Path


def main() -> None:
    descriptor, *sys.argv[:] = sys.argv[1:]
    sys.path[0] = str(Path(sys.argv[0]).parent)  # as if the script had been started itself
    threading.Thread(target=end_with_engine, args=(int(descriptor),), daemon=True).start()
    runpy.run_path(sys.argv[0], run_name="__main__")


def end_with_engine(descriptor: int) -> None:
    os.read(descriptor, 1)  # nothing is ever written, so this returns when the other end is closed
    os.killpg(os.getpgid(0), signal.SIGTERM)


if __name__ == "__main__":
    main()
