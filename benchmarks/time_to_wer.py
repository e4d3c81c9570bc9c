"""`python -m benchmarks.time_to_wer`: what it takes until a model recognises, ours and the paper's way.

    python -m benchmarks.time_to_wer recipes/digits-en.yaml --mark 0.2 --out results/time-to-wer/digits-en \
        --keep_layers 3 --lora_rank 0 --max_steps 400

Flags that are not its own are `train.py`'s. *Ours* is `train.py` with them. *Paper* is the same with every
setting of `recipes/paper/_paper.yaml` that says how projector and LoRA are trained. It tries several learning
rates, each for a fifth of its budget; the best goes on alone until it reaches the mark or has used up
`--budget` times the operations that ours took.

All runs read the encoder's output from one cache, so it is counted once for each, and seconds begin when the
cache is full; validations are left out of both. Each run's figures are written when it ends; the same command
goes on with those that are missing.
"""

import argparse
import ast
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import train
from benchmarks.comparison import device_name, short_name
from benchmarks.flops import encoder_products, llm_products, projector_products, vocabulary_products
from benchmarks.sides import REPOSITORY, commit
from modeling_slam.common.command_line import as_flags, parse_arguments, read_recipe
from modeling_slam.common.files import read_json, write_json
from modeling_slam.data import load_speech
from modeling_slam.data.collator import SpeechCollator
from modeling_slam.model.audio_lengths import SAMPLING_RATE
from modeling_slam.model.checkpoints import base_tensors, llm_embeddings, trained_parts
from modeling_slam.model.ctc_head import BLANK
from modeling_slam.training.alignment import AlignmentModel
from modeling_slam.training.assembly import build_config, build_processor, encoding_of
from modeling_slam.training.by_projector import settle
from modeling_slam.training.feature_cache import FeatureCache
from modeling_slam.training.run_directory import ALIGNMENT, ALIGNMENT_FILE

PAPER = REPOSITORY / "recipes" / "paper" / "_paper.yaml"
# Of the paper's recipe, what is no way of training: models, data, batches, when to validate.
NOT_THE_WAY = {
    "llm", "layer_choice", "dataset", "min_seconds", "max_seconds", "max_validation_clips", "lora_rank",
    "lora_alpha", "learning_rate", "seed", "per_device_train_batch_size", "num_train_epochs", "eval_strategy",
    "predict_with_generate", "generation_num_beams", "generation_max_new_tokens", "save_strategy",
    "load_best_model_at_end", "metric_for_best_model", "early_stopping_patience",
}  # fmt: skip
RATES = (1e-4, 3e-4, 1e-3)
SAMPLED_CLIPS = 64
TRIAL_SHARE = 0.2


@dataclass
class Outcome:
    """How far a run came: `wer` is that of its best validation.

    `flop` counts encoder, alignment, projector and LLM; `llm_flop` the LLM alone.
    """

    reached: bool
    wer: float | None
    steps: int
    seconds: float
    flop: float = 0.0
    llm_flop: float = 0.0


class Needs:
    """Operations of a run by `train.py`'s flags, from a sample of its clips."""

    def __init__(self, argv: Sequence[str], run_directory: Path):
        groups = dict(
            zip(train.GROUPS, parse_arguments(*train.GROUPS.values(), description="", argv=argv), strict=True)
        )
        settle(groups["model"].projector_type, *groups.values())
        self.batch = groups["run"].per_device_train_batch_size * groups["run"].gradient_accumulation_steps
        self.config = build_config(groups["model"], groups["lora"])
        self.processor = build_processor(groups["model"], self.config)
        clips, _ = load_speech(groups["data"], "train")
        self.clips = len(clips)
        chosen = torch.randperm(len(clips), generator=torch.Generator().manual_seed(0))[:SAMPLED_CLIPS]
        self.sample = [clips[int(row)] for row in chosen]
        self.samples = [round(clip["duration"] * SAMPLING_RATE) for clip in self.sample]
        self.cache = FeatureCache(
            groups["cache"],
            self.config,
            self.processor,
            encoding_of(groups["model"], groups["run"], self.config),
        )
        self.directory = run_directory

    def of(self, outcome: Outcome) -> Outcome:
        """The outcome with its operations."""
        geometry, config = self.config.audio_geometry, self.config
        frames = [geometry.frames_of_samples(samples) for samples in self.samples]
        mel_frames = [geometry.features_of_samples(samples) for samples in self.samples]
        tokens = [config.audio_tokens(count) for count in frames]
        text = self.processor.text_features(frames, [clip["text"] for clip in self.sample])
        positions, labels = (
            text["attention_mask"].sum(dim=1).tolist(),
            (text["labels"] != -100).sum(dim=1).tolist(),
        )
        encoder = self.clips * mean(encoder_products(config, count) for count in mel_frames)
        projector = mean(projector_products(config, count) for count in tokens)
        alignment, dropped = 0.0, [0] * len(tokens)
        if (figures := self.directory / ALIGNMENT / ALIGNMENT_FILE).is_file():
            classes, dropped = self.head()
            # Logits forward, and back to the projector's output; the embeddings are frozen.
            projector += mean(2 * 2.0 * count * config.text_config.hidden_size * classes for count in tokens)
            alignment = read_json(figures)["epochs"] * self.clips * projector
        lengths = [length - fewer for length, fewer in zip(positions, dropped, strict=True)]
        llm = mean(llm_products(config, length) for length in lengths)
        llm += mean(vocabulary_products(config, count) for count in labels)
        met = outcome.steps * self.batch
        outcome.flop, outcome.llm_flop = encoder + alignment + met * (projector + llm), met * llm
        return outcome

    def head(self) -> tuple[int, list[int]]:
        """Classes of the aligned CTC head, and the audio tokens of each sampled clip that it lets drop."""
        weights = load_file(self.directory / ALIGNMENT / "model.safetensors")
        token_ids = weights["ctc_head.token_ids"]
        self.config.ctc_vocab_size = len(token_ids)
        parts = trained_parts(self.config)
        parts.load_state_dict(weights)
        classes = len(token_ids) + 1
        if self.config.drop_blanks is None:
            return classes, [0] * len(self.sample)
        embeddings = llm_embeddings(self.config, base_tensors(self.config))[token_ids]
        model = AlignmentModel(self.config, parts, embeddings, self.cache.encoder()).eval()
        dropped = []
        for clip in self.sample:
            inputs = SpeechCollator(self.processor)([clip])
            with torch.no_grad():
                logits = model(ctc_targets=torch.full((1, 0), -100), **inputs)["logits"]
            blank = logits[0].softmax(dim=-1)[:, BLANK]
            dropped.append(min(int((blank > self.config.drop_blanks).sum()), len(blank) - 1))
        return classes, dropped


def mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)


def follow(
    command: Sequence[str], log: Path, mark: float, eval_steps: int, most_steps: int | None = None
) -> Outcome:
    """Run `train.py` until a validation reaches the mark, or for `most_steps`; its output goes to `log`.

    Raises:
        RuntimeError: it failed.
    """
    outcome, started, validating, is_training, steps = Outcome(False, None, 0, 0.0), None, 0.0, False, 0
    process = subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    stopped = False
    with process, log.open("w", encoding="utf-8") as copy:
        for line in process.stdout:
            print(line, end="", file=copy, flush=True)
            if line.startswith("Encoder frames"):
                started = time.monotonic()
            is_training = is_training or line.startswith("Processes: ")  # behind the alignment
            if not line.startswith("{") or "eval_wer" not in line or stopped:
                continue
            logs = {name: float(value) for name, value in ast.literal_eval(line).items()}
            validating += logs["eval_runtime"]
            if not is_training:
                continue
            steps += eval_steps
            wer = logs["eval_wer"]
            outcome.reached, outcome.steps = wer <= mark, steps
            outcome.wer = wer if outcome.wer is None else min(wer, outcome.wer)
            outcome.seconds = round(time.monotonic() - (started or 0.0) - validating, 1)
            print(f"  step {steps}: WER {100 * wer:.1f} %, {outcome.seconds:.0f} s", flush=True)
            if outcome.reached or (most_steps is not None and steps >= most_steps):
                stopped = True
                process.send_signal(signal.SIGTERM)
    if process.returncode and not stopped:
        raise RuntimeError(f"train.py failed; its output is in {log}.")
    return outcome


class Comparison:
    """Ours, then the paper's way; every outcome in `<out>/time_to_wer.json`."""

    def __init__(self, arguments: argparse.Namespace, flags: Sequence[str]):
        self.arguments, self.flags, self.out = arguments, list(flags), Path(arguments.out)
        self.work = Path(arguments.work)
        self.file = self.out / "time_to_wer.json"
        self.outcomes: dict[str, dict[str, Any]] = (
            read_json(self.file)["outcomes"] if self.file.is_file() else {}
        )

    def run(self) -> None:
        ours = self.outcome("ours", [], lambda: self.needs([], "ours"))
        if not ours["reached"]:
            raise SystemExit(
                f"error: ours did not reach {self.arguments.mark} within its steps; give more `--max_steps`."
            )
        paper = read_recipe(PAPER)
        way = as_flags({name: value for name, value in paper.items() if name not in NOT_THE_WAY})
        needs = self.needs(way, "paper")  # of every rate
        none, one = (needs.of(Outcome(False, None, count, 0.0)).flop for count in (0, 1))
        step = one - none
        steps = round(self.arguments.budget * ours["flop"] / step / self.arguments.eval_steps + 0.5)
        steps *= self.arguments.eval_steps
        trials = {}
        for rate in self.arguments.rates:
            trial = max(1, round(TRIAL_SHARE * steps / self.arguments.eval_steps)) * self.arguments.eval_steps
            name, flags = (
                f"paper at {rate:g}, trial",
                [*way, "--learning_rate", str(rate), "--max_steps", str(steps)],
            )
            trials[rate] = self.outcome(name, flags, lambda: needs, trial)
        best = min(trials, key=lambda rate: trials[rate]["wer"])
        if not trials[best]["reached"]:
            flags = [*way, "--learning_rate", str(best), "--max_steps", str(steps)]
            self.outcome("paper", flags, lambda: needs)

    def argv(self, flags: Sequence[str], name: str) -> list[str]:
        own = {
            "cache_features": str(self.work / "frames"), "output_dir": str(self.directory(name)),
            "eval_strategy": "steps", "eval_steps": self.arguments.eval_steps, "save_strategy": "no",
            "early_stopping_patience": 0, "disable_tqdm": "true",
        }  # fmt: skip
        return [*self.flags, *flags, *as_flags(own)]

    def needs(self, flags: Sequence[str], name: str) -> Needs:
        return Needs(self.argv(flags, name), self.directory(name))

    def directory(self, name: str) -> Path:
        """Of a run."""
        return self.work / name.replace(" ", "-").replace(",", "")

    def outcome(
        self, name: str, flags: Sequence[str], needs: Callable[[], Needs], most_steps: int | None = None
    ) -> dict[str, Any]:
        if name not in self.outcomes:
            print(name, flush=True)
            self.work.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(self.directory(name), ignore_errors=True)  # of a run that was stopped
            command = [sys.executable, str(REPOSITORY / "train.py"), *self.argv(flags, name)]
            log = self.directory(name).with_suffix(".log")
            found = follow(command, log, self.arguments.mark, self.arguments.eval_steps, most_steps)
            self.outcomes[name] = asdict(needs().of(found))
            self.out.mkdir(parents=True, exist_ok=True)
            write_json(self.file, {"about": self.about(), "outcomes": self.outcomes})
        return self.outcomes[name]

    def about(self) -> dict[str, Any]:
        flags = " ".join(short_name(flag) if "/" in flag else flag for flag in self.flags)
        return {
            "mark": self.arguments.mark, "budget": self.arguments.budget, "train_flags": flags,
            "threads": torch.get_num_threads(), "device": device_name(), "commit": commit(REPOSITORY),
        }  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.time_to_wer",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--mark", type=float, required=True, help="WER in validation at which a run has arrived"
    )
    parser.add_argument("--out", required=True, help="receives time_to_wer.json")
    parser.add_argument(
        "--work", default="runs/time-to-wer", help="runs, their logs and the cache of encoder frames"
    )
    parser.add_argument("--eval_steps", type=int, default=50, help="steps between validations")
    parser.add_argument(
        "--budget", type=float, default=5.0, help="times our operations that the paper's way may use"
    )
    parser.add_argument(
        "--rates", type=float, nargs="+", default=RATES, help="learning rates of the paper's way"
    )
    arguments, flags = parser.parse_known_args(argv)
    comparison = Comparison(arguments, flags)
    comparison.run()
    print(json.dumps(comparison.outcomes, indent=1))


if __name__ == "__main__":
    main()
