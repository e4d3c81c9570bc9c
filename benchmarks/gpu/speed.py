"""Time and memory of training and evaluation, ours and plain, batch after batch until memory ends.

`ours` is what `train.py` and `eval.py` run: clips at their own length in batches of like length, the
vocabulary where a label is due, the search of `fast_search.py`. `plain` is `plain.py` in training, and
`generate` on batches in the order of the data in evaluation.
"""

import statistics
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from benchmarks.flops import batch_needs
from benchmarks.gpu.device import Device
from benchmarks.gpu.lines import Line, Lines
from benchmarks.gpu.plain import PlainModel
from benchmarks.gpu.sizes import (
    EPOCH_HOURS,
    SIZES,
    TOKENS_PER_SECOND,
    cast,
    made_clips,
    model_config,
    processor,
    random_model,
    transcript_tokens,
)
from benchmarks.gpu.variants import attention_of, mel_in_loader, mel_on_device, put_on
from modeling_slam.evaluation.fast_search import transcribe
from modeling_slam.model.audio_lengths import SAMPLING_RATE

DTYPE = torch.bfloat16
BATCHES = 4  # of a training, from short clips to long ones
Clip = dict[str, Any]
Batch = dict[str, torch.Tensor]


class Speed:
    """Measures cases into `lines`; one model is held at a time."""

    def __init__(self, device: Device, size: str, lines: Lines):
        self.device, self.size, self.lines = device, size, lines
        self.sizes = SIZES[size]
        self.held: tuple[Any, Any] = (None, None)
        self.clips: list[Clip] = []

    # ---------------------------------------------------------------- the cases

    def trainings(self, model: str, side: str) -> None:
        for batch in self.sizes.batch_sizes:
            if self.training(model, side, batch).get("out_of_memory"):
                return

    def evaluations(self, model: str, side: str) -> None:
        for batch in self.sizes.eval_batch_sizes:
            if self.evaluation(model, side, batch).get("out_of_memory"):
                return

    def training(self, model: str, side: str, batch: int, variant: str | None = None) -> Line:
        facts = {"part": "training", "model": model, "side": side, "batch": batch, "variant": variant}
        return self.lines.line(facts, lambda: self._training(model, side, batch, variant))

    def evaluation(
        self, model: str, side: str, batch: int, beams: int = 2, variant: str | None = None
    ) -> Line:
        facts = {"part": "evaluation", "model": model, "side": side, "batch": batch, "beams": beams}
        facts["variant"] = variant
        return self.lines.line(facts, lambda: self._evaluation(model, side, batch, beams, variant))

    def features(self, model: str, where: str) -> Line:
        """Log-mel of a batch, by one process on the CPU or by the device."""
        facts = {"part": "features", "model": model, "where": where}
        return self.lines.line(facts, lambda: self._features(model, where))

    # ---------------------------------------------------------------- a training

    def _training(self, name: str, side: str, batch: int, variant: str | None) -> dict[str, Any]:
        """Rounds over some batches; a step is forward, backward, clipping and AdamW; batches are ready."""
        config, model = self._model(name, "plain" if side == "plain" else variant or "ours")
        batches, seconds, needed = self._batches(config, side, batch)
        model.train()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
        losses = []

        def step(batch: Batch) -> None:
            self.lines.check_time()
            with torch.autocast(self.device.torch.type, DTYPE):
                loss = model(**batch).loss
            loss.backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss.detach())

        try:
            self.device.forget()
            for each in (batches[-1], *batches):  # the longest first: the peak, and all is compiled
                step(each)
            peak = self.device.peak_gib()
            rounds = self._rounds(lambda: [step(each) for each in batches])
        finally:
            optimizer.zero_grad(set_to_none=True)
        round_seconds = statistics.median(rounds)
        rate = seconds / round_seconds
        return {
            "step_seconds": round(round_seconds / len(batches), 5),
            "rounds": len(rounds),
            "range": [round(min(rounds) / len(batches), 5), round(max(rounds) / len(batches), 5)],
            "audio_seconds_per_second": round(rate, 1),
            "epoch_minutes": round(EPOCH_HOURS * 60 / rate, 2),
            "tera_operations_needed": round(needed / 1e12, 3),
            "share_of_peak": round(needed / round_seconds / self.peak(), 4),
            "peak_gib": peak,
            "loss": round(float(losses[0]), 4),
        }

    def _rounds(self, work: Callable[[], Any]) -> list[float]:
        rounds: list[float] = []
        while not rounds or sum(rounds) < self.sizes.seconds:
            rounds.append(self.device.timed(work))
        return rounds

    def _batches(self, config: Any, side: str, batch: int) -> tuple[list[Batch], float, float]:
        """Batches on the device, the seconds of speech in them, the operations that they need."""
        clips = self.made(BATCHES * batch)
        if side != "plain":
            clips = sorted(clips, key=lambda clip: clip["duration"])
        prepare = processor(config)
        batches, needed = [], 0.0
        for rows in (clips[start : start + batch] for start in range(0, len(clips), batch)):
            self.lines.check_time()
            made = dict(prepare(audio=[row["audio"] for row in rows], text=[row["text"] for row in rows]))
            needed += batch_needs(config, made)
            if side == "plain":
                made = self._with_thirty_seconds(made, prepare.feature_extractor, rows)
            batches.append({name: tensor.to(self.device.torch) for name, tensor in made.items()})
        return batches, sum(clip["duration"] for clip in clips), needed

    def _with_thirty_seconds(self, made: Batch, extractor: Any, rows: list[Clip]) -> Batch:
        features = extractor(
            [row["audio"] for row in rows], sampling_rate=SAMPLING_RATE, return_tensors="pt",
            device=str(self.device.torch),
        )  # fmt: skip
        text = {name: made[name] for name in ("input_ids", "attention_mask", "labels")}
        return {"input_features": features["input_features"].to(DTYPE), **text}

    def made(self, count: int) -> list[Clip]:
        if not self.clips:
            self.clips = made_clips(self.sizes.made_clips)
        return [self.clips[number % len(self.clips)] for number in range(count)]

    def peak(self) -> float:
        """Operations a second of a product in bfloat16, measured once for all runs into one directory."""

        def work() -> dict[str, Any]:
            return {"tera_operations": self.device.matmul_peak(DTYPE, self.sizes.matmul) / 1e12}

        return 1e12 * self.lines.line({"part": "peak", "dtype": "bfloat16"}, work)["tera_operations"]

    # ---------------------------------------------------------------- features

    def _features(self, name: str, where: str) -> dict[str, Any]:
        prepare = processor(model_config(self.size, name, self.sizes.llm))
        clips = self.made(self.sizes.compared_batch)
        waves = [clip["audio"] for clip in clips]

        def work() -> None:
            if where == "device":
                mel_on_device(prepare, waves, self.device.torch)
            else:
                mel_in_loader(prepare, waves)

        work()
        seconds = statistics.median(self._rounds(work))
        audio = sum(clip["duration"] for clip in clips)
        return {
            "batch": len(clips),
            "seconds": round(seconds, 5),
            "times_real_time": round(audio / seconds, 1),
        }

    # ---------------------------------------------------------------- an evaluation

    def _evaluation(
        self, name: str, side: str, batch: int, beams: int, variant: str | None
    ) -> dict[str, Any]:
        """Speech in, tokens out; features are made in loader workers, as by `eval.py`."""
        config, model = self._model(name, "evaluation")
        clips = self.made(batch * self.sizes.eval_batches)
        if side != "plain":
            clips = sorted(clips, key=lambda clip: -clip["duration"])
        prepare = processor(config)
        search = transcribe if side != "plain" else type(model).generate
        options = {"num_beams": beams, "max_new_tokens": 200, "max_tokens_per_second": TOKENS_PER_SECOND}
        if variant == "static cache":
            search, options = type(model).generate, options | {"cache_implementation": "static"}

        def write(clips: list[Clip]) -> int:
            tokens = 0
            for inputs in self._loaded(prepare, clips, batch):
                self.lines.check_time()
                inputs = self._moved(inputs)
                tokens += sum(map(len, transcript_tokens(search(model, **inputs, **options))))
            return tokens

        with torch.no_grad() if variant else torch.inference_mode():  # in which graphs cannot be recorded
            self.device.forget()
            longest = sorted(clips, key=lambda clip: -clip["duration"])[:batch]
            write(longest)  # the peak, and all that is done once
            peak = self.device.peak_gib()
            tokens: list[int] = []
            seconds = self.device.timed(lambda: tokens.append(write(clips)))
        audio = sum(clip["duration"] for clip in clips)
        return {
            "clips": len(clips),
            "seconds": round(seconds, 4),
            "times_real_time": round(audio / seconds, 1),
            "tokens_per_second": round(tokens[0] / seconds, 1),
            "peak_gib": peak,
        }

    def _moved(self, inputs: Batch) -> Batch:
        moved = {name: tensor.to(self.device.torch) for name, tensor in inputs.items()}
        return moved | {"input_features": moved["input_features"].to(DTYPE)}

    def _loaded(self, prepare: Any, clips: list[Clip], batch: int) -> Iterator[Batch]:
        on_cpu = self.device.module is None
        return iter(
            DataLoader(
                clips,  # ty: ignore[invalid-argument-type] (a list is a dataset)
                batch_size=batch,
                collate_fn=lambda rows: dict(prepare(audio=[row["audio"] for row in rows])),
                num_workers=0 if on_cpu else 2,
                multiprocessing_context=None if on_cpu else "fork",
            )
        )

    # ---------------------------------------------------------------- models

    def release(self) -> None:
        """Let go of the model that is held."""
        self.held = (None, None)
        self.device.forget()

    def _model(self, name: str, kind: str) -> tuple[Any, Any]:
        """Config and model: "plain", "ours" or a variant of it, or "evaluation", all weights in bfloat16."""
        if self.held[0] != (name, kind):
            self.release()
            config = model_config(self.size, name, self.sizes.llm)
            if kind == "plain":
                model: Any = PlainModel(config, self.device.torch, DTYPE)
            else:
                model = random_model(config, self.device.torch, DTYPE, **attention_of(kind))
                put_on(model, kind, self.device)
            if kind == "evaluation":
                cast(model, DTYPE)
            self.held = ((name, kind), (config, model))
        return self.held[1]
