"""`python -m benchmarks [COMMAND]`: a command of the table below, or the comparison of `comparison.py`.

Commands are imported when they are asked for: those of a bundle run where the data libraries are missing.
"""

import importlib
import sys

COMMANDS = {
    "gpu": "benchmarks.gpu.command",  # is it right on this GPU, how fast, how much memory
    "bundle": "benchmarks.gpu.bundle",  # a folder that runs `gpu` where there is no network
    "mission": "benchmarks.mission",  # the paper's own sizes built, trained a step, saved and loaded
}


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    command = argv[0] if argv and argv[0] in COMMANDS else None
    module = importlib.import_module(COMMANDS.get(command or "", "benchmarks.comparison"))
    module.main(argv[1:] if command else argv)


if __name__ == "__main__":
    main()
