"""What is known about a checkpoint, read from the files its run and its evaluation wrote.

A card says only what stands here. Results must be this checkpoint's: `metrics.json` names the content of the
files it was measured on, and other content is refused.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modeling_slam.common.files import read_json
from modeling_slam.evaluation.settings import checkpoint_fingerprint
from modeling_slam.publishing.check import CheckResult
from modeling_slam.training.run_directory import RUN_FILE

STATE_FILE = "trainer_state.json"


@dataclass(frozen=True)
class Result:
    """A metrics.json of the checkpoint, and those of Whispers that decoded the same clips."""

    metrics: dict[str, Any]
    baselines: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Validation:
    """The WER that training saw on its validation split; it chose the checkpoint, so it is no test result."""

    wer: float
    step: int


@dataclass
class Evidence:
    """Everything a card is made of. What was not recorded is `None` or empty."""

    config: Any
    parameters: dict[str, int]
    run: dict[str, Any] | None = None
    data: dict[str, dict[str, Any]] = field(default_factory=dict)  # split -> data report
    train: dict[str, Any] = field(default_factory=dict)  # what the trainer measured of itself
    steps: int | None = None
    validation: Validation | None = None
    results: list[Result] = field(default_factory=list)
    check: CheckResult | None = None
    generation: dict[str, Any] = field(default_factory=dict)  # generation_config.json
    instruction: str = ""  # of the processor: what the LLM reads between audio and transcript

    @property
    def languages(self) -> list[str]:
        """ISO codes that training, or else an evaluation, was told; each once."""
        told = [self.run["data"]["language"]] if self.run else []
        told += [result.metrics["settings"]["language"] for result in self.results]
        return codes_of(next(filter(None, told), None))

    @property
    def language(self) -> str | None:
        """The only one of them, if it is."""
        return self.languages[0] if len(self.languages) == 1 else None


def codes_of(language: str | list[str | None] | None) -> list[str]:
    """The setting `language`, of one dataset or of each, as its codes, each once."""
    given = language if isinstance(language, list) else [language]
    return [code for code in dict.fromkeys(given) if code]


def gather(source: Path, config: Any, metrics_directories: list[str], parameters: dict[str, int]) -> Evidence:
    """Read what lies in a checkpoint directory or, for checkpoint-N, in the run's directory above it.

    Raises:
        ValueError: a metrics.json is missing or belongs to another checkpoint.
    """
    run_directory = source if (source / RUN_FILE).is_file() else source.resolve().parent
    run = read_if_there(run_directory / RUN_FILE)
    reports = {
        split: read_if_there(run_directory / f"data_{split}.json") for split in ("train", "validation")
    }
    state = read_if_there(source / STATE_FILE) or {}
    return Evidence(
        config=config,
        parameters=parameters,
        run=run,
        data={split: report for split, report in reports.items() if report and run},
        train=next(
            (entry for entry in reversed(state.get("log_history", [])) if "train_runtime" in entry), {}
        ),
        steps=state.get("global_step"),
        validation=validation_of(state, whole_run=source == run_directory),
        results=load_results(metrics_directories, checkpoint_fingerprint(source / "config.json")),
        generation=read_if_there(source / "generation_config.json") or {},
        instruction=(read_if_there(source / "processor_config.json") or {}).get("instruction", ""),
    )


def read_if_there(path: Path) -> Any:
    return read_json(path) if path.is_file() else None


def validation_of(state: dict[str, Any], whole_run: bool) -> Validation | None:
    """Of the best step for a finished run, which ends with it, else of the last one validated."""
    rows = [row for row in state.get("log_history", []) if "eval_wer" in row]
    if whole_run and state.get("best_global_step"):
        rows = [row for row in rows if row["step"] == state["best_global_step"]]
    return Validation(rows[-1]["eval_wer"], rows[-1]["step"]) if rows else None


def load_results(directories: list[str], fingerprint: str) -> list[Result]:
    """The results in these directories, each with its baselines and its CTC head's control."""
    results, baselines = [], []
    for directory in directories:
        metrics = read_if_there(Path(directory) / "metrics.json")
        if metrics is None:
            raise ValueError(
                f"There is no metrics.json in {directory}. Run eval.py with that `--output_dir`."
            )
        if metrics["settings"]["baseline"] != "none":
            baselines.append((directory, metrics))
            continue
        if is_control(metrics):
            baselines.append((directory, metrics))
        measured = metrics["settings"]["checkpoint"]
        if measured != fingerprint:
            raise ValueError(
                f"{directory} was measured on another checkpoint ({metrics['settings']['model']}, content "
                f"{measured}; this one is {fingerprint}). Evaluate this one."
            )
        if not is_control(metrics):
            results.append(Result(metrics))
    for directory, metrics in baselines:
        partners = [result for result in results if same_clips(result.metrics, metrics)]
        if not partners:
            raise ValueError(
                f"The baseline in {directory} was decoded on other clips than every result given; a "
                "comparison would mislead. Evaluate both on the same data."
            )
        for result in partners:
            result.baselines.append(metrics)
    return results


def is_control(metrics: dict[str, Any]) -> bool:
    """Whether this is what the CTC head read by itself, a control for the model's own result."""
    return metrics["settings"].get("decoder") == "ctc"


def same_clips(one: dict[str, Any], other: dict[str, Any]) -> bool:
    names = ("content", "split", "utterances")
    return all(one["settings"][name] == other["settings"][name] for name in names)
