"""A few clips for the error browser: those on which the runs differ most, as small Ogg Opus files.

Audio is no part of a study's results, so it is read again from the dataset the study names. Mind its licence
before you publish a report with clips.
"""

import io
from pathlib import Path
from typing import Any

import pandas as pd
import soundfile

from modeling_slam.analysis.frames import groups
from modeling_slam.analysis.results import METRICS_FILE, RUN_FILE, StudyResults, read_json
from modeling_slam.common.files import write_bytes
from modeling_slam.data import DataArguments, load_speech
from modeling_slam.model.audio_io import load_audio
from modeling_slam.model.audio_lengths import SAMPLING_RATE
from modeling_slam.report.view import View


def write_clips(study: StudyResults, directory: Path, count: int, view: View) -> dict[tuple[str, str], str]:
    """Write `count` clips of each language; returns (language, id) -> path from the directory above.

    Raises:
        ValueError: the dataset of a run no longer has its clips.
    """
    directory.mkdir(parents=True, exist_ok=True)
    written = {}
    for language, runs in groups(study.runs, "language"):
        wanted = most_different(study, list(runs["name"]), count, view)
        for number, (clip, samples) in enumerate(read_clips(study, runs["name"].iloc[0], wanted)):
            file = directory / f"{language}-{number:03}.ogg"
            encoded = io.BytesIO()
            soundfile.write(encoded, samples, SAMPLING_RATE, format="OGG", subtype="OPUS")
            write_bytes(file, encoded.getvalue())
            written[language, clip] = f"{directory.name}/{file.name}"
    return written


def most_different(study: StudyResults, runs: list[str], count: int, view: View) -> list[str]:
    """Ids of the utterances whose WER varies most from run to run, of those that the view quotes."""
    frames = {run: study.utterances(run) for run in runs}
    wer = pd.DataFrame({run: frame.loc[view.quotes(frame), "wer"] for run, frame in frames.items()})
    spread = (wer.max(axis=1) - wer.min(axis=1)).sort_values(ascending=False, kind="stable")
    return [str(clip) for clip in spread.index[:count]]


def read_clips(study: StudyResults, run: str, wanted: list[str]) -> list[tuple[str, Any]]:
    """(id, samples) of the wanted utterances, from the dataset that the run was evaluated on."""
    if study.directory is None:
        raise ValueError(f"{study.name} names no dataset, so there are no clips.")
    spec = read_json(study.run_directory(run) / RUN_FILE)["spec"]
    split = read_json(study.places[run] / METRICS_FILE)["settings"]["split"]
    known = DataArguments.__dataclass_fields__
    flags = {name: value for name, value in spec["eval_flags"].items() if name in known}
    dataset, read = load_speech(
        DataArguments(**{"dataset": spec["dataset"], "language": spec["language"], **flags}), split
    )
    places = {clip: place for place, clip in enumerate(dataset["id"])}
    if missing := [clip for clip in wanted if clip not in places]:
        raise ValueError(
            f"{read.source} has no clip {missing[0]} (and {len(missing) - 1} more) that {run} was "
            "evaluated on. Restore the dataset, or make the report without `--clips`."
        )
    return [(clip, load_audio(dataset[places[clip]]["audio"])) for clip in wanted]
