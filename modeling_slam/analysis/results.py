"""The results of a study as DataFrames: what its runs wrote, read once, scored from predictions alone.

    from modeling_slam.analysis import StudyResults

    study = StudyResults.load("runs/digits-study")
    study.runs[["keep_layers", "mode", "wer", "wer_low", "wer_high"]]

Rates are fractions, parameters are counts, times are seconds. A directory under `runs/` counts when its
`run.json` is there, which the engine writes last. To add a column of `runs`, add it to `run_row`.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd

from modeling_slam.analysis.counts import COUNTS_FILE, Counted, kept_frame, read_counts
from modeling_slam.analysis.utterances import utterance_frame
from modeling_slam.common.files import read_entries, read_json
from modeling_slam.evaluation.intervals import INTERVAL_METHOD
from modeling_slam.evaluation.metrics import (
    ERROR_RATES,
    METRICS,
    ErrorCounts,
    count_word_errors,
    interval_of,
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


@dataclass
class StudyResults:
    """What a study found.

    Attributes:
        directory: the study's directory, or None for numbers that come from elsewhere.
        name: as its study file says.
        runs: one row a finished run, sorted by encoder, language, depth (deepest encoder first), mode, seed.
            A run that was evaluated with several decoders has a row of each, the first under its own name.
        baselines: one row for each Whisper that was scored with its own decoder; the same columns.
        planned: names of all rows that the study will have.
        axes: what its runs differ in beside encoder, depth, mode, language and seed: column -> title.
    """

    directory: Path | None
    name: str
    runs: pd.DataFrame
    baselines: pd.DataFrame
    planned: list[str] = field(default_factory=list)
    axes: dict[str, str] = field(default_factory=dict)
    places: dict[str, Path] = field(default_factory=dict, repr=False)  # where each row's evaluation lies
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
        study = read_entries(study_file, "name", "specs")
        finished = sorted(file.parent for file in directory.glob(f"runs/*/{RUN_FILE}"))
        if not finished:
            raise ValueError(f"No run of {directory} is finished yet: there is no runs/*/{RUN_FILE}.")
        runs = pd.DataFrame(run_rows(directory, finished))
        evaluated = [place for run in finished for place in evaluations_of(run)]
        files = [
            file for name in (METRICS_FILE, COUNTS_FILE) for file in directory.glob(f"baselines/*/{name}")
        ]
        baselines = [baseline_row(baseline) for baseline in sorted({file.parent for file in files})]
        return cls(
            directory,
            study["name"],
            sort_runs(runs, study.get("axes", {})),
            pd.DataFrame(baselines),
            [one for spec in study["specs"] for one in rows_of(spec)],
            study.get("axes", {}),
            {place.name: place.directory for place in evaluated},
        )

    def utterances(self, run: str) -> pd.DataFrame:
        """One row an utterance of one run, indexed by id, with its counts of words.

        Columns: run, reference, prediction, raw_reference, duration, seconds, speaker, language,
        substitutions, deletions, insertions, hits, errors, reference_words, wer, loop, and alignment: a
        string such as "e3s1i2", words in a row that are equal, substituted, deleted (d) or inserted. Of a run
        without texts these are None, and it has all columns of counts.parquet.
        """
        if run not in self._utterances:
            kept = self.counts(run) if self.is_without_text(run) else None
            frame = utterance_frame(run, self.read(run)) if kept is None else kept_frame(run, kept)
            of_run = self.runs.loc[self.runs["name"] == run, "dataset"]
            name = Path(of_run.iloc[0]).name if len(of_run) else None
            self._utterances[run] = frame.assign(dataset=frame["dataset"].astype(object).fillna(name))
        return self._utterances[run]

    def run_directory(self, run: str) -> Path:
        """The directory of the run that a row is of, whichever of its evaluations."""
        place = self.places[run]
        return place if (place / RUN_FILE).is_file() else place.parent

    def is_without_text(self, run: str) -> bool:
        """Whether only the run's counts were kept."""
        return run in self.places and not (self.places[run] / PREDICTIONS_FILE).is_file()

    def counts(self, run: str) -> pd.DataFrame | None:
        """Its counts.parquet; None of a run of an older version, which has none."""
        file = self.places[run] / COUNTS_FILE if run in self.places else None
        return read_counts(file) if file is not None and file.is_file() else None

    def read(self, run: str) -> list[Prediction]:
        """The predictions of one run, as eval.py wrote them.

        Raises:
            ValueError: they are damaged, or were not kept.
        """
        if self.directory is None:
            raise ValueError(f"{self.name} has no predictions: only its published rates are known.")
        if self.is_without_text(run):
            raise ValueError(f"{run} has no predictions: only its counts were kept, which hold no text.")
        return read_rows(self.places[run])

    @property
    def predictions(self) -> pd.DataFrame:
        """All utterances of all runs in one frame. Large: 204 runs of 12,000 clips are 2.4 million rows."""
        return pd.concat([self.utterances(run).reset_index() for run in self.runs["name"]], ignore_index=True)

    @property
    def unfinished(self) -> list[str]:
        return [name for name in self.planned if name not in set(self.runs["name"])]

    @property
    def unplanned(self) -> list[str]:
        """Runs of before the study shrank: they are finished, and in its results."""
        return [name for name in self.runs["name"] if name not in set(self.planned)]


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of a run: the name of its row, where its files lie, and what decoded."""

    name: str
    directory: Path
    decoder: str


def decoders_of(eval_flags: Mapping[str, Any]) -> list[str]:
    """What a run is evaluated with, the first in its own directory, each other one in one of its name."""
    decoders = eval_flags.get("decoder", "llm")
    return list(decoders) if isinstance(decoders, list) else [decoders]


def evaluations_of(run_directory: Path) -> list[Evaluation]:
    """All evaluations of a finished run, the run's own first."""
    spec = read_record(run_directory)["spec"]
    return evaluations(spec["name"], spec.get("eval_flags", {}), run_directory)


def rows_of(spec: Mapping[str, Any]) -> list[str]:
    """Names of the rows that a run of this specification has when it is finished."""
    return [one.name for one in evaluations(spec["name"], spec.get("eval_flags", {}), Path())]


def evaluations(name: str, eval_flags: Mapping[str, Any], run_directory: Path) -> list[Evaluation]:
    """All evaluations of the run of this name and these flags of eval.py, its own first."""
    first, *others = decoders_of(eval_flags)
    return [
        Evaluation(name, run_directory, first),
        *(Evaluation(f"{name}-{other}", run_directory / other, other) for other in others),
    ]


def read_record(run_directory: Path) -> dict[str, Any]:
    """The run.json of a finished run."""
    names = ("spec", "finished", "commit", "train_seconds", "evaluate_seconds")
    return read_entries(run_directory / RUN_FILE, *names)


def read_metrics(directory: Path) -> dict[str, Any]:
    """The metrics.json that eval.py wrote there."""
    return read_entries(directory / METRICS_FILE, "utterances", "parameters", "settings")


def run_row(directory: str | os.PathLike, evaluation: Evaluation | None = None) -> dict[str, Any]:
    """One row of `StudyResults.runs` from one run's directory, of its own evaluation if none is named.

    It has every one of `METRICS`, as metrics.json says; those of written text are NaN for other models.
    `wer_low` and `wer_high` (and so for the other error rates) bound the 95 % interval over utterances;
    `speaker_low` and `speaker_high` that of the WER over speakers, where at least two are known: the honest
    one when few people speak a test set.
    """
    directory = Path(directory)
    record = read_record(directory)
    evaluation = evaluation or evaluations_of(directory)[0]
    spec = {
        name: " + ".join(value) if isinstance(value, list) else value  # several datasets
        for name, value in record["spec"].items()
        if not isinstance(value, dict)
    }
    return {
        **spec,
        **record["spec"].get("axes", {}),
        "name": evaluation.name,
        "decoder": evaluation.decoder,
        **scores_row(evaluation.directory),
        "train_seconds": record["train_seconds"],
        "evaluate_seconds": record["evaluate_seconds"],
        "commit": record["commit"],
        "finished": record["finished"],
    }


def scores_row(directory: Path) -> dict[str, Any]:
    """What eval.py's two files in `directory` say, or the counts that were kept of them."""
    kept = not (directory / METRICS_FILE).is_file()
    metrics, words, speakers = (scores_of_counts if kept else scores_of_predictions)(directory)
    parameters = metrics["parameters"]
    # `encoder` is that of a Whisper with its own decoder.
    encoder = parameters.get("encoder_kept", parameters.get("encoder"))
    known = {speaker for speaker in speakers if speaker is not None}
    # A clip of nobody is its own speaker.
    low, high = rate_interval(words, groups=speakers) if len(known) >= MIN_SPEAKERS else (nan, nan)
    bounds = {name: metrics.get(interval_of(name), (nan, nan)) for name in ERROR_RATES}
    return {
        **{name: metrics.get(name, nan) for name in METRICS},
        **{f"{name}_low": low for name, (low, _) in bounds.items()},
        **{f"{name}_high": high for name, (_, high) in bounds.items()},
        "speaker_low": low,
        "speaker_high": high,
        "speakers": len(known),
        "interval_method": INTERVAL_METHOD,
        "whisper_rules": metrics["whisper_rules"],
        "encoder_parameters": encoder,
        "encoder_parameters_full": encoder + parameters.get("encoder_removed", 0),
        "projector_parameters": parameters.get("projector"),
        "lora_parameters": parameters.get("lora"),
        "llm_parameters": parameters.get("llm"),
        "total_parameters": parameters.get("total"),
    }


Scores = tuple[dict[str, Any], ErrorCounts, list[str | None]]  # metrics, words of each clip, its speaker


def scores_of_predictions(directory: Path) -> Scores:
    metrics, rows = read_metrics(directory), read_rows(directory)
    rules = rules_in_use(row.language for row in rows)
    if metrics.get("whisper_rules") != rules:  # from a machine with or without the list of spellings
        metrics.pop("whisper_wer", None)
    text_style = metrics["settings"].get("text_style", "normalized")
    metrics |= measure_later(rows, [name for name in METRICS if name not in metrics], text_style)
    if metrics.get("interval_method") != INTERVAL_METHOD:  # of an older version, whose intervals were others
        again = measure_later(rows, ERROR_RATES, text_style)
        metrics |= {name: again[name] for name in map(interval_of, ERROR_RATES) if name in again}
    words = count_word_errors([row.reference for row in rows], [row.prediction for row in rows])
    return metrics | {"whisper_rules": rules}, words, [row.speaker for row in rows]


def scores_of_counts(directory: Path) -> Scores:
    counted = Counted(read_counts(directory / COUNTS_FILE))
    speakers = [None if pd.isna(speaker) else str(speaker) for speaker in counted.counts["speaker"]]
    return counted.counts.attrs["scored"] | counted.measure(), counted.words, speakers


def read_rows(directory: Path) -> list[Prediction]:
    """The predictions of one run or baseline.

    Raises:
        ValueError: a line is damaged, or there are not as many as `eval.py` scored.
    """
    advice = f"Restore the file from a copy, or delete the directory {directory} and run the study again."
    rows = read_predictions(directory / PREDICTIONS_FILE, advice)
    scored = read_metrics(directory)["utterances"]
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
        methods = {"interval_method", "whisper_rules", "decoder", "llm_parameters"}
        if {"name", "finished", *methods, *METRICS, *bounds} <= set(index.columns):
            rules = index["language"].map(lambda code: rules_in_use([code]))
            index = index[(index["interval_method"] == INTERVAL_METHOD) & (index["whisper_rules"] == rules)]
            known = {(row["name"], row["finished"]): row for row in index.to_dict("records")}
    rows = []
    for run in finished:
        when = read_record(run)["finished"]
        rows += [known.get((one.name, when)) or run_row(run, one) for one in evaluations_of(run)]
    return rows


def trained_on(run_directory: Path) -> dict[str, dict[str, Any]]:
    """Clips and hours by split, from the reports that train.py left beside the model."""
    found = {}
    for split in ("train", "validation"):
        report = run_directory / "model" / f"data_{split}.json"
        if report.is_file():
            kept = read_json(report)
            found[split] = {"clips": kept["kept_clips"], "hours": kept["kept_hours"]}
    return found


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
