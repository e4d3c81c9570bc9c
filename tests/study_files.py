"""What the tests of the study read in a study's directory."""

import json
from pathlib import Path


def commands(run_directory: Path) -> list[str]:
    """The scripts that were started for a run, in order."""
    lines = (run_directory / "log.txt").read_text(encoding="utf-8").splitlines()
    return [line.split()[2] for line in lines if line.startswith("$ python ")]


def transcripts(directory: Path) -> list[tuple]:
    """What a run heard; times aside, two equal runs have equal ones."""
    lines = (directory / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return [
        tuple(row[name] for name in ("id", "reference", "raw_prediction", "tokens"))
        for row in map(json.loads, lines)
    ]
