"""Ctrl-C, SIGTERM and a full disk end a program in one line that says how to go on.

SIGTERM is what SLURM, docker and a study's engine send; Python would die of it at once and leave behind
the temporary files that `finally` and `atexit` were to remove.
"""

import _thread
import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator
from typing import Any

from modeling_slam.common.command_line import debugging
from modeling_slam.common.files import DiskFullError

SECONDS_TO_CLEAN_UP = 5.0
EXIT_CODES: dict[int, int] = {signal.SIGINT: 130, signal.SIGTERM: 143}  # as shells give them


class Terminated(KeyboardInterrupt):
    """SIGTERM came; libraries clean up for it as they do for Ctrl-C."""


@contextlib.contextmanager
def ends_in_one_line(advice: Callable[[], str]) -> Generator[None]:
    """Ctrl-C, SIGTERM and a full disk in the block raise SystemExit with a line that ends with `advice()`.

    Only the main thread can be told of signals; elsewhere the block changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    program, received, ending = os.getpid(), [], threading.Event()

    def stop(number: int, _frame: Any) -> None:
        if os.getpid() == program:
            if not received:
                threading.Thread(target=_insist, args=(number, ending), daemon=True).start()
            received.append(number)
            _end_workers()
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
        # A data loader's worker got a copy of this handler. Ctrl-C reaches it too, but ending it is our part.
        if number == signal.SIGTERM:
            os._exit(EXIT_CODES[number])

    before = {number: signal.signal(number, stop) for number in EXIT_CODES}
    try:
        yield
    except BaseException as error:
        ending.set()
        number = received[0] if received else _signal_behind(error)
        full = error.__cause__ if isinstance(error, SystemExit) else error
        if number is None and isinstance(full, DiskFullError) and not debugging():
            raise SystemExit(f"error: {full} {advice()}") from full
        if number is None:
            raise
        # Once is enough: what follows is cleaning up, and helpers that die with us have nothing to add.
        before = dict.fromkeys(EXIT_CODES, signal.SIG_IGN)
        _end_workers()
        threading.excepthook = lambda *_: None
        logging.disable()
        if os.environ.get("RANK", "0") == "0":
            print(f"\nStopped by {signal.Signals(number).name}. {advice()}", file=sys.stderr, flush=True)
        raise SystemExit(EXIT_CODES[number]) from None
    finally:
        ending.set()
        for number, handler in before.items():
            signal.signal(number, handler)


def _insist(number: Any, ending: threading.Event) -> None:
    """Raise again what was swallowed where an exception cannot leave, such as a callback of libsndfile."""
    while not ending.wait(SECONDS_TO_CLEAN_UP):
        _thread.interrupt_main(number)


def _end_workers() -> None:
    """Data loaders' workers would complain if they found us gone, and torch if it found them gone."""
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for worker in multiprocessing.active_children():
        worker.kill()


def _signal_behind(error: BaseException) -> signal.Signals | None:
    """The signal that an error tells of, before or without one that was sent to us."""
    if isinstance(error, KeyboardInterrupt):
        return signal.SIGINT
    # A signal to the whole group of processes may end a data loader's worker first.
    ended = isinstance(error, RuntimeError) and "killed by signal: Terminated" in str(error)
    return signal.SIGTERM if ended else None
