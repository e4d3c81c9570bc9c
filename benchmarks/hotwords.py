"""What hotwords in the prompt change: one test set without them, and with those drawn for each clip.

    python -m benchmarks.hotwords --model RUN --output_dir results/hotwords [flags of eval.py]

Decodes the test set four times with `eval.py`, each into a directory of `--output_dir`, and goes on where it
was stopped: told nothing, told some rare words of each clip (`oracle`), these among words of other clips
(`mixed`), and words of other clips only (`distractors`). Prints the table of docs/evaluation.md: beside the
figures of each those of the same told words in what was written without being told, which is what is
recognised, or misheard as one of them, anyway.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import eval as eval_script
from modeling_slam.common.files import read_json
from modeling_slam.evaluation.hotwords import HOTWORDS, Drawn, hotword_scores
from modeling_slam.evaluation.predictions import Prediction, read_predictions

COLUMNS = ("told", "WER", "recall", "recall untold", "said", "parroting", "parroting untold", "not said")


def main(argv: Sequence[str] | None = None) -> None:
    argv = list(sys.argv[1:] if argv is None else argv)
    if "--output_dir" not in argv[:-1]:
        raise SystemExit("`--output_dir` is missing: name a directory for the four evaluations.")
    place = argv.index("--output_dir") + 1
    directory = Path(argv[place])
    for name in ("nothing", *get_args(Drawn)):
        told = [] if name == "nothing" else ["--hotwords", name]
        eval_script.main([*argv[:place], str(directory / name), *argv[place + 1 :], *told])
    print("\n".join(table(directory)))


def table(directory: Path) -> list[str]:
    """Markdown, from the four evaluations on disk."""
    plain = read_predictions(directory / "nothing" / "predictions.jsonl")
    lines = [line(COLUMNS), line(["---"] * len(COLUMNS)), line(["nothing", wer(directory / "nothing")])]
    for name in get_args(Drawn):
        rows = read_predictions(directory / name / "predictions.jsonl")
        with_them, without = (hotword_scores(each)[HOTWORDS] for each in (rows, untold(plain, rows)))
        figures = [wer(directory / name)]
        for rate, count in (("recall", "said"), ("parroting", "not_said")):
            shown = [
                f"{100 * scores[rate]:.1f} %" if scores[count] else "" for scores in (with_them, without)
            ]
            figures += [*shown, f"{with_them[count]:,}"]
        lines.append(line([name, *figures]))
    return lines


def untold(plain: Sequence[Prediction], rows: Sequence[Prediction]) -> list[Prediction]:
    """What was written without hotwords, to be scored by those that were told elsewhere."""
    words = {row.id: row.hotwords for row in rows}
    return [dataclasses.replace(row, hotwords=words[row.id]) for row in plain]


def wer(directory: Path) -> str:
    return f"{100 * read_json(directory / 'metrics.json')['wer']:.2f} %"


def line(cells: Sequence[str]) -> str:
    return "| " + " | ".join([*cells, *[""] * (len(COLUMNS) - len(cells))]) + " |"


if __name__ == "__main__":
    main()
