"""`make demo`: train on the embedded speech, evaluate on unheard voices and sentences, show what was learned.

Five commands that anyone could type, and a summary of the files they leave. The first two make and score the
same model with its projector untrained, so that the difference is what training did.
"""

import argparse
import json
import shutil
import time
from pathlib import Path

from modeling_slam.demo.commands import REPOSITORY, run, speech_flags
from modeling_slam.demo.plots import plot_learning

EXAMPLES = 10
RECIPE = "recipes/demo.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m modeling_slam.demo.quickstart",
        description="Train and evaluate on the embedded speech.",
    )
    parser.add_argument("--output_dir", type=Path, default=Path("runs/demo"), help="replaced if it exists")
    parser.add_argument("--language", choices=["en", "nl", "da"], default="en")
    arguments = parser.parse_args()
    directory, language = arguments.output_dir, arguments.language

    begun = time.monotonic()
    shutil.rmtree(REPOSITORY / directory, ignore_errors=True)
    data = speech_flags(language)
    untrained, trained = directory / "untrained", directory / "model"

    def step(number: int, what: str, *command: str) -> None:
        print(f"\n[{number}/5] {what} ({time.monotonic() - begun:.0f} s so far)", flush=True)
        run(*command)

    # fmt: off
    step(1, "The same model before training: one step at learning rate 0",
         "train.py", RECIPE, *data, "--max_steps", "1", "--learning_rate", "0", "--eval_strategy", "no",
         "--output_dir", f"{untrained}")
    step(2, "Its word error rate",
         "eval.py", "--model", f"{untrained}", *data,
         "--output_dir", f"{directory}/results-untrained")
    step(3, "Training projector and LoRA",
         "train.py", RECIPE, *data, "--output_dir", f"{trained}")
    step(4, "Word error rate of the trained model, beam 2, voices and sentences not in training",
         "eval.py", "--model", f"{trained}", *data, "--output_dir", f"{directory}/results")
    step(5, "Its model card, as it would be published",
         "-m", "modeling_slam.publishing", f"{trained}", "--metrics", f"{directory}/results",
         "--format", "full", "--language", language, "--license", "apache-2.0", "--dry_run",
         "--card", f"{directory}/model_card.md")
    # fmt: on
    plot_learning(REPOSITORY / trained / "trainer_state.json", REPOSITORY / directory / "learning.png")
    print(summary(directory))
    print(f"Done in {time.monotonic() - begun:.0f} s.")


def summary(directory: Path) -> str:
    """What the files say, and where they lie."""
    metrics, before = (
        json.loads((REPOSITORY / directory / results / "metrics.json").read_text(encoding="utf-8"))
        for results in ("results", "results-untrained")
    )
    low, high = metrics["wer_interval"]
    rows = (REPOSITORY / directory / "results" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    lines = [f"\nTen of {len(rows)} utterances of unheard voices and sentences:"]
    for row in map(json.loads, rows[:: max(len(rows) // EXAMPLES, 1)][:EXAMPLES]):
        lines += [f"  said   {row['reference']}", f"  heard  {row['prediction']}", ""]
    lines += [
        f"WER untrained projector  {before['wer']:.1%}",
        f"WER after training       {metrics['wer']:.1%}   95 % interval {low:.1%} to {high:.1%}",
        "",
        f"checkpoint   {directory}/model",
        f"metrics      {directory}/results/metrics.json, predictions.jsonl",
        f"model card   {directory}/model_card.md",
        f"plot         {directory}/learning.png",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
