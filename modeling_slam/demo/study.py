"""`make demo-study`: the paper's question in miniature. How many encoder layers does each language need, and
what does LoRA win back?

Depths 6 to 1, with and without LoRA, in three languages: 36 runs of `train.py` and `eval.py` with the
demo's recipe, several at a time. A run whose metrics.json exists is not repeated, so a stopped study goes
on. The end is a table (CSV and Markdown) and a plot of WER against kept layers, with bootstrap intervals.
"""

import argparse
import csv
import json
import shutil
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from modeling_slam.demo.commands import REPOSITORY, run, speech_flags
from modeling_slam.demo.plots import plot_depths

LANGUAGES = ("en", "nl", "da")
DEPTHS = (6, 5, 4, 3, 2, 1)
COLUMNS = ("language", "lora", "keep_layers", "wer", "low", "high", "substitutions", "deletions",
           "insertions", "empty_predictions", "repetition_loops")  # fmt: skip


@dataclass(frozen=True)
class Run:
    language: str
    keep_layers: int
    lora: bool

    @property
    def name(self) -> str:
        return f"{self.language}-{self.keep_layers}L{'-lora' if self.lora else ''}"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m modeling_slam.demo.study", description="WER against kept encoder layers."
    )
    parser.add_argument("--output_dir", type=Path, default=Path("runs/demo-study"))
    parser.add_argument("--max_steps", type=int, default=200, help="training steps of each run")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, one thread each")
    arguments = parser.parse_args()
    directory: Path = REPOSITORY / arguments.output_dir
    claim(directory, arguments.max_steps)

    runs = [
        Run(language, depth, lora) for depth in DEPTHS for language in LANGUAGES for lora in (False, True)
    ]
    left = [config for config in runs if not metrics_file(directory, config).is_file()]
    print(f"{len(runs)} runs, {len(runs) - len(left)} finished before.", flush=True)
    with ThreadPoolExecutor(arguments.workers) as pool:
        futures = [pool.submit(train_and_evaluate, directory, config, arguments.max_steps) for config in left]
        try:
            for future in tqdm(as_completed(futures), total=len(left), desc="runs", unit="run", smoothing=0):
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    rows = [row_of(directory, config) for config in runs]
    write_tables(directory, rows)
    plot_depths(rows, directory / "wer_by_depth.png")
    print((directory / "table.md").read_text(encoding="utf-8"))
    print(f"Tables and plot: {directory}/table.csv, table.md, wer_by_depth.png")


def claim(directory: Path, max_steps: int) -> None:
    """Runs of different lengths do not go into one table."""
    file, settings = directory / "study.json", {"max_steps": max_steps}
    if file.is_file() and (before := json.loads(file.read_text(encoding="utf-8"))) != settings:
        raise SystemExit(
            f"error: {directory} holds a study with {before}, this one has {settings}. "
            "Name another --output_dir."
        )
    directory.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(settings) + "\n", encoding="utf-8")


def metrics_file(directory: Path, config: Run) -> Path:
    return directory / "results" / config.name / "metrics.json"


def train_and_evaluate(directory: Path, config: Run, max_steps: int) -> None:
    model, results = directory / "models" / config.name, metrics_file(directory, config).parent
    for left_over in (model, results):  # of a run that was stopped
        shutil.rmtree(left_over, ignore_errors=True)
    log = directory / "logs" / f"{config.name}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    data = speech_flags(config.language)
    # fmt: off
    run("train.py", "recipes/demo.yaml", *data, "--keep_layers", f"{config.keep_layers}",
        *([] if config.lora else ["--lora_rank", "0"]), "--max_steps", f"{max_steps}",
        "--eval_strategy", "no", "--save_strategy", "no", "--output_dir", f"{model}", log=log, threads=1)
    run("eval.py", "--model", f"{model}", *data, "--output_dir", f"{results}", log=log, threads=1)
    # fmt: on


def row_of(directory: Path, config: Run) -> dict[str, str | int | float]:
    metrics = json.loads(metrics_file(directory, config).read_text(encoding="utf-8"))
    low, high = metrics["wer_interval"]
    values = metrics | asdict(config) | {"low": low, "high": high}
    return {name: values[name] for name in COLUMNS}


def write_tables(directory: Path, rows: list[dict]) -> None:
    with (directory / "table.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(rows)
    lines = ["| language, trained | " + " | ".join(f"{depth} layers" for depth in DEPTHS) + " |"]
    lines.append("|---" * (len(DEPTHS) + 1) + "|")
    for language in LANGUAGES:
        for lora in (False, True):
            wers = {
                row["keep_layers"]: row for row in rows if (row["language"], row["lora"]) == (language, lora)
            }
            cells = [f"{wers[n]['wer']:.1%} [{wers[n]['low']:.1%}, {wers[n]['high']:.1%}]" for n in DEPTHS]
            lines.append(
                f"| {language}, {'projector + LoRA' if lora else 'projector'} | {' | '.join(cells)} |"
            )
    (directory / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
