"""Programs in forks of this process, which has imported torch and all else that takes each of them seconds.

    python tests/forked_programs.py < jobs

A job is a line of JSON: `words` (the command: `python FILE`, `python -m MODULE`, `python -c CODE` or a
script, and arguments), `directory`, `log` (receives both streams). The answer is the exit code and the
processor time in seconds.
"""

import importlib
import json
import os
import runpy
import sys
from pathlib import Path

from programs import REPOSITORY

sys.path.insert(1, str(REPOSITORY))
importlib.import_module("train")
importlib.import_module("eval")


def main() -> None:
    for line in sys.stdin:
        child = os.fork()
        if not child:
            run(**json.loads(line))
            return
        _, status, used = os.wait4(child, 0)
        print(os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, flush=True)


def run(words: list[str], directory: str, log: str) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for stream, target in enumerate((nothing, file, file)):
        os.dup2(target, stream)
    os.chdir(directory)
    program, *arguments = words
    if program == "python" and arguments[0] in ("-m", "-c"):
        how, what, *arguments = arguments
        sys.argv, sys.path[0] = [how, *arguments], directory
        if how == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(compile(what, "<snippet>", "exec"), {"__name__": "__main__"})
    else:
        script = arguments.pop(0) if program == "python" else program
        sys.argv, sys.path[0] = [script, *arguments], str(Path(script).resolve().parent)
        runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
