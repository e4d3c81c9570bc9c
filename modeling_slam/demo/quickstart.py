"""`slam-asr demo`: train on the embedded speech, evaluate on unheard voices, show what was learned.

Five commands that anyone could type, and a summary of the files they leave. The first two make and score the
same model with its projector untrained, so that the difference is what training did.
"""

import importlib.util
import json
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from modeling_slam.common.command_line import clear_errors, parse_arguments, program
from modeling_slam.common.files import check_writable
from modeling_slam.demo.commands import run, speech_flags

EXAMPLES = 10
DESCRIPTION = "Train and evaluate on the embedded speech: no network, no GPU, some four minutes."


@dataclass
class DemoArguments:
    """Where the demo goes, and which language it speaks"""

    output_dir: str = field(default="runs/demo", metadata={"help": "Directory; replaced if it exists."})
    language: Literal["en", "nl", "da"] = field(default="en", metadata={"help": "Of the embedded speech."})


def main(argv: list[str] | None = None) -> None:
    usage = f"{program('modeling_slam.demo.quickstart')} [--flag value ...]"
    (arguments,) = parse_arguments(DemoArguments, description=DESCRIPTION, argv=argv, usage=usage)
    with clear_errors((ValueError, OSError, RuntimeError)):
        check_writable(arguments.output_dir, "output_dir")
        demonstrate(Path(arguments.output_dir), arguments.language)


def demonstrate(directory: Path, language: str) -> None:
    begun = time.monotonic()
    shutil.rmtree(directory, ignore_errors=True)
    data = speech_flags(language)
    untrained, trained = directory / "untrained", directory / "model"

    def step(number: int, what: str, *command: str) -> None:
        print(f"\n[{number}/5] {what} ({time.monotonic() - begun:.0f} s so far)", flush=True)
        run(*command)

    # fmt: off
    step(1, "The same model before training: one step at learning rate 0",
         "train", "demo", *data, "--max_steps", "1", "--learning_rate", "0", "--eval_strategy", "no",
         "--output_dir", f"{untrained}")
    step(2, "Its word error rate",
         "eval", "--model", f"{untrained}", *data,
         "--output_dir", f"{directory}/results-untrained")
    step(3, "Training projector and LoRA",
         "train", "demo", *data, "--output_dir", f"{trained}")
    step(4, "Word error rate of the trained model, beam 2, voices and sentences not in training",
         "eval", "--model", f"{trained}", *data, "--output_dir", f"{directory}/results")
    step(5, "Its model card, as it would be published",
         "publish", f"{trained}", "--metrics", f"{directory}/results",
         "--format", "full", "--language", language, "--license", "apache-2.0", "--dry_run",
         "--card", f"{directory}/model_card.md")
    # fmt: on
    if importlib.util.find_spec("matplotlib"):
        from modeling_slam.demo.plots import plot_learning

        plot_learning(trained / "trainer_state.json", directory / "learning.png")
    print(summary(directory))
    print(f"Done in {time.monotonic() - begun:.0f} s.")


def summary(directory: Path) -> str:
    """What the files say, and where they lie."""
    metrics, before = (
        json.loads((directory / results / "metrics.json").read_text(encoding="utf-8"))
        for results in ("results", "results-untrained")
    )
    low, high = metrics["wer_interval"]
    rows = (directory / "results" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
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
    ]
    if (directory / "learning.png").exists():
        lines.append(f"plot         {directory}/learning.png")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
