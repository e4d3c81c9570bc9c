"""The project's scripts one after the other in this process: importing torch takes longer than they do.

    accelerate launch --multi_gpu --num_processes 2 tests/scripts_in_turn.py train.py FLAGS + eval.py FLAGS

Each runs as if it were started by itself, and joins the other processes by itself.
"""

import itertools
import os
import runpy
import socket
import sys
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

REPOSITORY = Path(__file__).parents[1]


def main(arguments: list[str]) -> None:
    sys.path.insert(0, str(REPOSITORY))
    for between, command in itertools.groupby(arguments, lambda argument: argument == "+"):
        if between:
            part()
            continue
        sys.argv[:] = command
        runpy.run_path(str(REPOSITORY / sys.argv[0]), run_name="__main__")


def part() -> None:
    """Leave the group of processes; they can meet again at a place where nothing is left of this meeting."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = [free.getsockname()[1]]
    broadcast_object_list(port)
    os.environ |= {"MASTER_PORT": str(port[0]), "TORCHELASTIC_USE_AGENT_STORE": "False"}
    PartialState().destroy_process_group()
    PartialState._reset_state()


if __name__ == "__main__":
    main(sys.argv[1:])
