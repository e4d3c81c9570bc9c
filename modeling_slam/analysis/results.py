"""The results of a study as DataFrames: what its runs wrote, read once, scored from predictions alone.

    from modeling_slam.analysis import StudyResults

    study = StudyResults.load("runs/digits-study")
    study.runs[["keep_layers", "mode", "wer", "wer_low", "wer_high"]]

Rates are fractions, parameters are counts, times are seconds. A directory under `runs/` counts when its
`run.json` is there, which the engine writes last. To add a column of `runs`, add it to `run_row`.
"""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from math import nan
from pathlib import Path
from typing import Any

import jiwer
import pandas as pd

from modeling_slam.common.files import read_json
from modeling_slam.evaluation.intervals import INTERVAL_METHOD
from modeling_slam.evaluation.metrics import (
    ERROR_RATES,
    METRICS,
    count_word_errors,
    error_counts,
    interval_of,
    is_loop,
    measure,
    rate_interval,
)
from modeling_slam.evaluation.predictions import Prediction, read_predictions
from modeling_slam.evaluation.report import scored_rows
from modeling_slam.evaluation.whisper_rules import rules_in_use
from modeling_slam.model.configuration_slam import TextStyle

# Names of a study's files; `store.py` says what is in them.
STUDY_FILE = "study.json"
RUN_FILE = "run.json"
METRICS_FILE = "metrics.json"
PREDICTIONS_FILE = "predictions.jsonl"
INDEX_FILE = "index.parquet"
MIN_SPEAKERS = 2  # one speaker does not tell how speakers differ
CURVE = ["encoder_name", "language"]  # what one curve of WER against depth belongs to
COUNTS = ["substitutions", "deletions", "insertions", "hits"]


@dataclass
class StudyResults:
    """What a study found.

    Attributes:
        directory: the study's directory, or None for numbers that come from elsewhere.
        name: as its study file says.
        runs: one row a finished run, sorted by encoder, language, depth (deepest encoder first), mode, seed.
        baselines: one row for each Whisper that was scored with its own decoder; the same columns.
        planned: names of all runs of the study, finished or not.
        axes: what its runs differ in beside encoder, depth, mode, language and seed: column -> title.
    """

    directory: Path | None
    name: str
    runs: pd.DataFrame
    baselines: pd.DataFrame
    planned: list[str] = field(default_factory=list)
    axes: dict[str, str] = field(default_factory=dict)
    _utterances: dict[str, pd.DataFrame] = field(default_factory=dict, repr=False)
    comparisons: dict[Any, Any] = field(default_factory=dict, repr=False)  # what `significance.compare` found

    @classmethod
    def load(cls, directory: str | os.PathLike) -> "StudyResults":
        """Read STUDY_DIR.

        Raises:
            ValueError: it is no study's directory, or no run in it is finished.
        """
        directory = Path(directory)
        study_file = directory / STUDY_FILE
        if not study_file.is_file():
            raise ValueError(
                f"{directory} holds no study: there is no {study_file.name} in it. Give the output directory "
                "of `python -m modeling_slam.study run`."
            )
        study = read_json(study_file)
        finished = sorted(file.parent for file in directory.glob(f"runs/*/{RUN_FILE}"))
        if not finished:
            raise ValueError(f"No run of {directory} is finished yet: there is no runs/*/{RUN_FILE}.")
        runs = pd.DataFrame(run_rows(directory, finished))
        baselines = [
            baseline_row(file.parent) for file in sorted(directory.glob(f"baselines/*/{METRICS_FILE}"))
        ]
        return cls(
            directory,
            study["name"],
            sort_runs(runs, study.get("axes", {})),
            pd.DataFrame(baselines),
            [spec["name"] for spec in study["specs"]],
            study.get("axes", {}),
        )

    def utterances(self, run: str) -> pd.DataFrame:
        """One row an utterance of one run, indexed by id, with its counts of words.

        Columns: run, reference, prediction, raw_reference, duration, seconds, speaker, language,
        substitutions, deletions, insertions, hits, errors, reference_words, wer, loop, and alignment: a
        string such as "e3s1i2", words in a row that are equal, substituted, deleted (d) or inserted.
        """
        if run not in self._utterances:
            self._utterances[run] = utterance_frame(run, self.read(run))
        return self._utterances[run]

    def read(self, run: str) -> list[Prediction]:
        """The predictions of one run, as eval.py wrote them."""
        if self.directory is None:
            raise ValueError(f"{self.name} has no predictions: only its published rates are known.")
        return read_rows(self.directory / "runs" / run)

    @property
    def predictions(self) -> pd.DataFrame:
        """All utterances of all runs in one frame. Large: 204 runs of 12,000 clips are 2.4 million rows."""
        return pd.concat([self.utterances(run).reset_index() for run in self.runs["name"]], ignore_index=True)

    @property
    def unfinished(self) -> list[str]:
        return [name for name in self.planned if name not in set(self.runs["name"])]


def run_row(directory: str | os.PathLike) -> dict[str, Any]:
    """One row of `StudyResults.runs` from one run's directory.

    It has every one of `METRICS`, as metrics.json says; those of written text are NaN for other models.
    `wer_low` and `wer_high` (and so for the other error rates) bound the 95 % interval over utterances;
    `speaker_low` and `speaker_high` that of the WER over speakers, where at least two are known: the honest
    one when few people speak a test set.
    """
    directory = Path(directory)
    record = read_json(directory / RUN_FILE)
    spec = {
        name: " + ".join(value) if isinstance(value, list) else value  # several datasets
        for name, value in record["spec"].items()
        if not isinstance(value, dict)
    }
    scores = scores_row(directory)
    return {
        **spec,
        **record["spec"].get("axes", {}),
        **scores,
        "train_seconds": record["train_seconds"],
        "evaluate_seconds": record["evaluate_seconds"],
        "commit": record["commit"],
        "finished": record["finished"],
    }


def scores_row(directory: Path) -> dict[str, Any]:
    """What eval.py's two files in `directory` say."""
    metrics = read_json(directory / METRICS_FILE)
    parameters = metrics["parameters"]
    encoder = parameters.get(
        "encoder_kept", parameters.get("encoder")
    )  # the latter of Whisper with its own decoder
    rows = read_rows(directory)
    rules = rules_in_use(row.language for row in rows)
    if metrics.get("whisper_rules") != rules:  # from a machine with or without the list of spellings
        metrics.pop("whisper_wer", None)
    text_style = metrics["settings"].get("text_style", "normalized")
    metrics |= measure_later(rows, [name for name in METRICS if name not in metrics], text_style)
    if metrics.get("interval_method") != INTERVAL_METHOD:  # of an older version, whose intervals were others
        again = measure_later(rows, ERROR_RATES, text_style)
        metrics |= {name: again[name] for name in map(interval_of, ERROR_RATES) if name in again}
    speakers = sorted({row.speaker for row in rows if row.speaker is not None})
    speaker_low, speaker_high = speaker_interval(rows) if len(speakers) >= MIN_SPEAKERS else (nan, nan)
    bounds = {name: metrics.get(interval_of(name), (nan, nan)) for name in ERROR_RATES}
    return {
        **{name: metrics.get(name, nan) for name in METRICS},
        **{f"{name}_low": low for name, (low, _) in bounds.items()},
        **{f"{name}_high": high for name, (_, high) in bounds.items()},
        "speaker_low": speaker_low,
        "speaker_high": speaker_high,
        "speakers": len(speakers),
        "interval_method": INTERVAL_METHOD,
        "whisper_rules": rules,
        "encoder_parameters": encoder,
        "encoder_parameters_full": encoder + parameters.get("encoder_removed", 0),
        "projector_parameters": parameters.get("projector"),
        "lora_parameters": parameters.get("lora"),
        "total_parameters": parameters.get("total"),
    }


def read_rows(directory: Path) -> list[Prediction]:
    """The predictions of one run or baseline.

    Raises:
        ValueError: a line is damaged, or there are not as many as `eval.py` scored.
    """
    advice = f"Restore the file from a copy, or delete the directory {directory} and run the study again."
    rows = read_predictions(directory / PREDICTIONS_FILE, advice)
    scored = read_json(directory / METRICS_FILE)["utterances"]
    if len(rows) != scored:
        raise ValueError(
            f"{directory / PREDICTIONS_FILE} holds {len(rows)} predictions, and {METRICS_FILE} beside it is "
            f"of {scored}. {advice}"
        )
    return rows


def measure_later(
    rows: Sequence[Prediction], names: Iterable[str], text_style: TextStyle = "normalized"
) -> dict[str, Any]:
    """Metrics that an older metrics.json lacks, from the predictions beside it, as far as they follow."""
    scored = scored_rows(rows, text_style)
    names = [name for name in names if METRICS[name].follows_from(scored)]
    return measure(scored, names) if names else {}


def speaker_interval(rows: Sequence[Prediction]) -> list[float]:
    """95 % interval of the WER over speakers; a clip of nobody is its own speaker."""
    counts = count_word_errors([row.reference for row in rows], [row.prediction for row in rows])
    return rate_interval(counts, groups=[row.speaker for row in rows])


def baseline_row(directory: Path) -> dict[str, Any]:
    """A Whisper with its own decoder; its directory is called ENCODER-LANGUAGE."""
    encoder_name, _, language = directory.name.rpartition("-")
    return {"name": directory.name, "encoder_name": encoder_name, "language": language} | scores_row(
        directory
    )


def run_rows(directory: Path, finished: Sequence[Path]) -> list[dict[str, Any]]:
    """`run_row` of each finished run, taken from the index where that knows the run as it is now."""
    file, known = directory / INDEX_FILE, {}
    if file.is_file():
        index = pd.read_parquet(file)
        bounds = {f"{name}_{end}" for name in (*ERROR_RATES, "speaker") for end in ("low", "high")}
        # An index of an older version lacks columns or has other intervals; one of another machine may have
        # other rules of Whisper's.
        methods = {"interval_method", "whisper_rules"}
        if {"name", "finished", *methods, *METRICS, *bounds} <= set(index.columns):
            rules = index["language"].map(lambda code: rules_in_use([code]))
            index = index[(index["interval_method"] == INTERVAL_METHOD) & (index["whisper_rules"] == rules)]
            known = {(row["name"], row["finished"]): row for row in index.to_dict("records")}
    keys = [(run.name, read_json(run / RUN_FILE)["finished"]) for run in finished]
    return [known.get(key) or run_row(run) for key, run in zip(keys, finished, strict=True)]


def shown_rates(runs: pd.DataFrame) -> list[str]:
    """The error rates beside the WER that any of these has."""
    return [name for name in ERROR_RATES[1:] if runs[name].notna().any()]


def sort_runs(runs: pd.DataFrame, axes: Iterable[str] = ()) -> pd.DataFrame:
    """Encoders by size, languages by name, deep encoders and the projector alone first."""
    runs = runs.assign(_lora=runs["mode"] == "lora")
    further = [axis for axis in axes if axis in runs]
    keys = ["encoder_layers", "encoder_name", "language", "keep_layers", "_lora", *further, "seed"]
    runs = runs.sort_values(keys, ascending=[key != "keep_layers" for key in keys], ignore_index=True)
    return runs.drop(columns="_lora")


def utterance_frame(run: str, rows: Sequence[Prediction]) -> pd.DataFrame:
    """Predictions with jiwer's alignment of each utterance and the counts that follow from it."""
    output = jiwer.process_words([row.reference for row in rows], [row.prediction for row in rows])
    counts = error_counts(output)
    frame = pd.DataFrame([asdict(row) for row in rows]).assign(
        run=run,
        **{name: getattr(counts, name) for name in COUNTS},
        errors=counts.errors,
        reference_words=counts.reference_lengths,
        alignment=[encode_alignment(chunks) for chunks in output.alignments],
        loop=[is_loop(row.reference, row.prediction) for row in rows],
    )
    frame["wer"] = frame["errors"] / frame["reference_words"].clip(lower=1)
    return frame.set_index("id")


def encode_alignment(chunks: Sequence[jiwer.AlignmentChunk]) -> str:
    """jiwer's chunks as a string: a letter and a number of words each."""
    letters = {"equal": "e", "substitute": "s", "delete": "d", "insert": "i"}
    return "".join(
        f"{letters[chunk.type]}"
        f"{max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)}"
        for chunk in chunks
    )


def operations(alignment: str) -> list[tuple[str, int]]:
    """(letter, number of words) of an alignment in that form."""
    return [(letter, int(size)) for letter, size in re.findall(r"([esdi])(\d+)", alignment)]


def same_utterances(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """`second` in the order of `first`.

    Raises:
        ValueError: the two do not hold the same ids with the same references, so no pair of them compares.
    """
    if set(first.index) != set(second.index):
        raise ValueError(
            f"{first['run'].iloc[0]} and {second['run'].iloc[0]} were decoded on different clips "
            f"({len(set(first.index) ^ set(second.index))} ids are in one alone). "
            "Evaluate both on one test set."
        )
    second = second.loc[first.index]
    if not (first["reference"] == second["reference"]).all():
        raise ValueError(
            f"{first['run'].iloc[0]} and {second['run'].iloc[0]} have the same ids with other references. "
            "Evaluate both with the same text rules."
        )
    return second
