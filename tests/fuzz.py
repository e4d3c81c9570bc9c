"""The tests marked `fuzz` on examples that are drawn anew, round after round, until the minutes are over.

    python tests/fuzz.py --minutes 60

A round draws 500 examples for each property, by the seed that is printed before it. The first failure ends
it: pytest shows the smallest example that fails, and keeps it in `.hypothesis`, so that the same test fails
at once until it is mended.
"""

import argparse
import random
import subprocess
import sys
import time

PYTEST = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "fuzz", "--hypothesis-profile", "fuzz"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0, help="No round starts after them.")
    minutes = parser.parse_args().minutes
    started, rounds = time.monotonic(), 0
    while time.monotonic() - started < 60 * minutes:
        seed = random.randrange(2**32)
        print(f"Round {rounds + 1}, --hypothesis-seed {seed}", flush=True)
        if subprocess.run([*PYTEST, "--hypothesis-seed", str(seed)], check=False).returncode:
            raise SystemExit(f"Round {rounds + 1} failed; run it again by --hypothesis-seed {seed}.")
        rounds += 1
    print(f"{rounds} rounds in {(time.monotonic() - started) / 60:.0f} minutes, no failure.")


if __name__ == "__main__":
    main()
