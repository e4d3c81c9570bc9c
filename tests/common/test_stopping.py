"""What a program says when it is stopped, and what becomes of a stop that something swallowed."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest

from modeling_slam.common import stopping
from modeling_slam.common.stopping import ends_in_one_line


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_block_with_the_advice_and_the_code_of_shells(capsys, number, code):
    with pytest.raises(SystemExit) as ended, ends_in_one_line(lambda: "Do this."):
        signal.raise_signal(number)
    assert ended.value.code == code
    assert capsys.readouterr().err.strip() == f"Stopped by {signal.Signals(number).name}. Do this."


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """Signals are ignored after a stop, and the log is silent: not so in the tests that follow."""
    before = {number: signal.getsignal(number) for number in (*stopping.EXIT_CODES, signal.SIGCHLD)}
    monkeypatch.setattr("logging.root.manager.disable", 0)
    monkeypatch.setattr("threading.excepthook", sys.__excepthook__)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def stopped(block) -> int:
    """The exit code of `block`, which gets the exception that SIGTERM raises."""
    with pytest.raises(SystemExit) as ended, ends_in_one_line(lambda: "Do this."):
        block()
    return ended.value.code


def test_what_is_to_be_removed_is_removed(capsys):
    def block():
        with contextlib.ExitStack() as stack:
            stack.callback(print, "removed")
            signal.raise_signal(signal.SIGTERM)

    assert stopped(block) == 143
    assert capsys.readouterr().out == "removed\n"


def test_an_error_while_it_ends_is_no_second_message(capsys):
    def block():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            raise RuntimeError("the connection is gone")

    assert stopped(block) == 143
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_stop_that_was_swallowed_comes_again(monkeypatch):
    monkeypatch.setattr(stopping, "SECONDS_TO_CLEAN_UP", 0.05)

    def block():
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        while True:
            pass

    assert stopped(block) == 143


def test_other_errors_pass_and_the_handlers_are_those_of_before():
    before = [signal.getsignal(number) for number in stopping.EXIT_CODES]
    with pytest.raises(RuntimeError, match="a bug"), ends_in_one_line(lambda: ""):
        raise RuntimeError("a bug")
    with ends_in_one_line(lambda: ""):
        pass
    assert [signal.getsignal(number) for number in stopping.EXIT_CODES] == before


def test_only_the_main_process_of_several_speaks():
    script = (
        "import signal\nfrom modeling_slam.common.stopping import ends_in_one_line\n"
        "with ends_in_one_line(lambda: 'Do this.'):\n    signal.raise_signal(signal.SIGTERM)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | {"RANK": "1"}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (143, "")
