"""`make test` stays short: a test that takes long says so by its mark, or fails."""

from collections.abc import Callable

import pytest
import short_tests

pytest_plugins = ["pytester"]

WORK = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
HEAD = f"import pytest, subprocess, sys\nWORK = {WORK!r}\n"


@pytest.fixture
def outcomes(pytester, monkeypatch) -> Callable[[str], tuple[int, int]]:
    """How many tests of a file pass and fail where none may take more than a fifth of a second."""
    pytester.makeini("[pytest]\nmarkers = e2e: whole programs")

    def run(source: str) -> tuple[int, int]:
        pytester.makepyfile(HEAD + source)
        with monkeypatch.context() as limit:
            limit.setattr(short_tests, "MOST_SECONDS", 0.2)
            passed, _, failed = pytester.inline_run("-q", plugins=[short_tests]).listoutcomes()
        return len(passed), len(failed)

    return run


def test_a_test_that_takes_long_fails_unless_it_is_marked(outcomes):
    long, marked, short = (
        "def test_long(): exec(WORK)\n",
        "@pytest.mark.e2e\ndef test_marked(): exec(WORK)\n",
        "def test_short(): pass\n",
    )
    assert outcomes(long + marked + short) == (2, 1)


def test_the_time_of_fixtures_and_of_programs_counts(outcomes):
    program = "def test_program(): subprocess.run([sys.executable, '-c', WORK])\n"
    fixture = "@pytest.fixture\ndef made(): exec(WORK)\ndef test_fixture(made): pass\n"
    assert outcomes(program + fixture) == (0, 2)
