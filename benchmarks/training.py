"""Time and memory of a training step, its share of the machine's limit, and what each saving is worth.

A step is forward, backward, clipping and AdamW of the trained weights, on the CPU in float32. `SETTINGS`
holds our way and others that undo savings; to measure another way, add a row. All settings see the same
clips and take turns in one process (A B C A B C ...), so a machine that slows down does not bend a ratio.
Audio and mel are prepared beforehand: data loader workers do that beside the step.
"""

import contextlib
import random
import statistics
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import torch
import transformers
from modeling_slam.model.adapters import is_trained
from torch import nn
from tqdm import tqdm

from benchmarks.arguments import OURS, BenchmarkArguments, add_ratios, check_known
from benchmarks.flops import Needed, batch_needs, padding_shares
from benchmarks.machine import MatmulPeak
from benchmarks.memory import give_back_freed_memory, in_fresh_process, peak_extra_bytes
from benchmarks.stages import TrainingStages, linear_layers_alone
from modeling_slam import SlamAsrForConditionalGeneration
from modeling_slam.data import DataArguments, load_speech
from modeling_slam.data.collator import SpeechCollator
from modeling_slam.model import frozen_linear
from modeling_slam.training.arguments import LoraArguments, ModelArguments
from modeling_slam.training.assembly import build_config, build_model, build_processor

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Setting:
    """A way to run the step; the defaults are ours."""

    grouped: bool = True  # batches of clips of like length
    padded: bool = False  # rows padded to the longest, through the LLM's own forward
    full_logits: bool = False  # vocabulary projected at every position, not at the labels alone
    checkpointing: bool = False  # activations computed again in the backward pass
    frozen_gradients: bool = False  # gradients of the LLM's frozen weights too, to be thrown away
    torch_linears: bool = False  # frozen weights multiplied by torch's own linear layers
    cached_frames: bool = False  # the encoder's output is there already, as from `--cache_features`
    pad_to_seconds: float | None = None

    @property
    def same_batches(self) -> bool:
        """Whether each step has our clips at their own length, so that losses must be ours."""
        return self.grouped and self.pad_to_seconds is None


PLAIN = Setting(grouped=False, padded=True, full_logits=True, torch_linears=True)
SETTINGS = {
    OURS: Setting(),
    "cached frames": Setting(cached_frames=True),
    "random batches": Setting(grouped=False),
    "padded rows": Setting(padded=True),
    "full logits": Setting(padded=True, full_logits=True),
    "torch's linear layers": Setting(torch_linears=True),
    "gradient checkpointing": Setting(checkpointing=True),
    "frozen-weight gradients": Setting(frozen_gradients=True),
    # What one gets without care for cost. The first is how the authors' code runs.
    "plain": replace(PLAIN, checkpointing=True),
    "plain, no checkpointing": PLAIN,
    "plain, 30 s": replace(PLAIN, checkpointing=True, pad_to_seconds=30.0),
}


@dataclass
class StepBench:
    """One model and its clips. Holds no weights, so it can be sent to a fresh process."""

    bench_args: BenchmarkArguments
    model_args: ModelArguments
    lora_args: LoraArguments
    rows: list[dict[str, Any]]  # of `load_speech`, in random order, a whole number of batches

    def build(self) -> tuple[SlamAsrForConditionalGeneration, torch.optim.Optimizer]:
        torch.set_num_threads(self.bench_args.threads)
        transformers.set_seed(self.bench_args.seed)
        config = build_config(self.model_args, self.lora_args)
        model = build_model(config, build_processor(self.model_args, config), self.model_args, bf16=False)
        return model, new_optimizer(model)

    def groups(self, setting: Setting) -> list[list[dict[str, Any]]]:
        """All the clips in batches, in this setting's order."""
        rows = sorted(self.rows, key=lambda row: row["duration"]) if setting.grouped else self.rows
        size = self.bench_args.batch_size
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def batches(self, setting: Setting, model: SlamAsrForConditionalGeneration) -> list[Batch]:
        seconds = setting.pad_to_seconds or self.model_args.pad_to_seconds
        collate = self._collator(replace(self.model_args, pad_to_seconds=seconds))
        batches = [collate(group) for group in self.groups(setting)]
        return [with_frames(model, batch) for batch in batches] if setting.cached_frames else batches

    def needs(self, setting: Setting) -> list[Needed]:
        """Operations that each of the setting's steps needs, whatever it pads to: at the clips' lengths."""
        config = build_config(self.model_args, self.lora_args)
        collate = self._collator(self.model_args)
        needs = [batch_needs(config, collate(group)) for group in self.groups(setting)]
        return [replace(needed, encoder=0.0) for needed in needs] if setting.cached_frames else needs

    def _collator(self, model_args: ModelArguments) -> SpeechCollator:
        return SpeechCollator(build_processor(model_args, build_config(model_args, self.lora_args)))

    def time_in_turn(self) -> dict[str, Any]:
        """Timed steps of each setting, the peak measured between them, and the stages of ours."""
        model, optimizer = self.build()
        batches = {name: self.batches(SETTINGS[name], model) for name in self.bench_args.settings}
        needs = {name: self.needs(SETTINGS[name]) for name in batches}
        groups = {name: self.groups(SETTINGS[name]) for name in batches}
        seconds: dict[str, list[float]] = {name: [] for name in batches}
        stages: list[dict[str, float]] = []
        alone: list[dict[str, float]] = []
        peak = MatmulPeak(model.language_model.dtype)
        for number in tqdm(range(self.bench_args.steps + 1), desc="timing", unit="round"):  # 0 warms up
            peak.measure()
            for name in batches:
                prepare(model, SETTINGS[name])
                start = time.perf_counter()
                training_step(model, optimizer, batches[name][number], SETTINGS[name])
                seconds[name].append(time.perf_counter() - start)
            prepare(model, SETTINGS[OURS])
            with TrainingStages(model) as clock:  # one step more, so that the hooks are in no figure above
                training_step(model, optimizer, batches[OURS][number], SETTINGS[OURS], clock.mark)
            stages.append(clock.seconds)
            rows = int(batches[OURS][number]["attention_mask"].sum())
            alone.append(linear_layers_alone(model, rows))
        settings = {
            name: summarise(
                seconds[name][1:],
                [sum(row["duration"] for row in group) for group in groups[name][1:]],
                [needed.total for needed in needs[name][1:]],
                peak,
                self.bench_args.batch_size,
            )
            | {"padding": padding_shares(batches[name][1:])}
            for name in batches
        }
        needed = median_of([vars(each) for each in needs[OURS][1:]])
        stages_of_ours = {
            "seconds": median_of(stages[1:]),
            "linear_layers_alone": median_of(alone[1:]),
            "needed_flop": needed,
            "matmul_peak": peak.best,
        }
        return {"settings": settings, "stages": stages_of_ours}

    def peak_memory(self) -> dict[str, dict[str, Any]]:
        """Each setting's peak extra bytes and losses on its heaviest batch; run in a fresh process.

        The weights are there before; gradients, AdamW's state, activations and logits count. Losses are those
        without dropout, which draws other numbers where rows are packed.
        """
        give_back_freed_memory()
        model, _ = self.build()
        for parameter in model.parameters():
            parameter.sum()  # a memory-mapped weight enters memory when it is used
        trained = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
        results: dict[str, dict[str, Any]] = {}
        for name in tqdm(self.bench_args.settings, desc="memory", unit="setting"):
            setting = SETTINGS[name]
            batch = max(self.batches(setting, model), key=lambda batch: batch["input_ids"].numel())
            prepare(model, setting)
            results[name] = {"peak_extra_bytes": peak_extra_bytes(lambda: two_steps(model, batch, setting))}  # noqa: B023
            if setting.same_batches:
                model.load_state_dict(trained, strict=False)
                with without_dropout(model):
                    results[name]["losses"] = two_steps(model, batch, setting)
        return results


@contextlib.contextmanager
def without_dropout(model: nn.Module) -> Generator[None]:
    dropouts = [(module, module.p) for module in model.modules() if isinstance(module, nn.Dropout)]
    for module, _ in dropouts:
        module.p = 0.0
    yield
    for module, share in dropouts:
        module.p = share


def median_of(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def summarise(
    seconds: list[float], audio_seconds: list[float], needed: list[float], peak: MatmulPeak, clips: int
) -> dict[str, Any]:
    """Figures of one setting; the share of the limit is that of the median step."""
    return {
        "median_seconds": statistics.median(seconds),
        "clips_per_second": clips * len(seconds) / sum(seconds),
        "real_time_factor": sum(seconds) / sum(audio_seconds),
        "needed_flop": statistics.median(needed),
        "limit_seconds": statistics.median(needed) / peak.best,
        "share_of_limit": statistics.median(
            flop / peak.best / taken for flop, taken in zip(needed, seconds, strict=True)
        ),
        "matmul_peak": peak.best,
        "torch_mm_peak": peak.of_torch,
        "seconds": seconds,
        "matmul_peaks": peak.samples,
    }


def with_frames(model: SlamAsrForConditionalGeneration, batch: Batch) -> Batch:
    """The batch with the encoder's output in the place of log-mel."""
    text = {name: tensor for name, tensor in batch.items() if not name.startswith("input_features")}
    with torch.no_grad():
        frames, mask = model.encoder(batch["input_features"], batch["input_features_mask"])
    return text | {"encoder_frames": frames, "encoder_frames_mask": mask}


def new_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    trained = [parameter for name, parameter in model.named_parameters() if is_trained(name)]
    return torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.01, fused=True)


def prepare(model: SlamAsrForConditionalGeneration, setting: Setting) -> None:
    model.freeze()
    if setting.frozen_gradients:
        model.language_model.requires_grad_(True)
    model.activation_checkpointing_disable()
    if setting.checkpointing:
        model.activation_checkpointing_enable()
    model.train()


def two_steps(model: SlamAsrForConditionalGeneration, batch: Batch, setting: Setting) -> list[float]:
    """Losses. AdamW's state exists from the end of the first step on, so the second one has the peak."""
    optimizer = new_optimizer(model)
    return [training_step(model, optimizer, batch, setting) for _ in range(2)]


def training_step(
    model: SlamAsrForConditionalGeneration,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    setting: Setting,
    mark: Callable[[str], None] = lambda stage: None,
) -> float:
    """One step and its loss; `mark` is told when a stage is over."""
    with linear_layers(setting.torch_linears):
        loss = loss_of(model, batch, setting)
        mark("vocabulary and loss, forward")
        loss.backward()
    mark("projector, backward")
    nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
    optimizer.step()
    model.zero_grad(set_to_none=True)
    mark("clipping and optimizer")
    return loss.item()


@contextlib.contextmanager
def linear_layers(torchs_own: bool) -> Generator[None]:
    """Frozen linear layers compute as torch's own for a while, if so asked."""
    suits = (lambda *_: False) if torchs_own else frozen_linear._suits_onednn
    with patch.object(frozen_linear, "_suits_onednn", suits):
        yield


def loss_of(model: SlamAsrForConditionalGeneration, batch: Batch, setting: Setting) -> torch.Tensor:
    if not setting.padded:
        return model(**batch).loss
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    due = nn.functional.pad(batch["labels"][:, 1:], (0, 1), value=-100)
    places: Any = 0 if setting.full_logits else due != -100
    logits = model(**inputs, logits_to_keep=places, use_cache=False).logits  # (B, L, V) or (labels, V)
    targets = due.flatten() if setting.full_logits else due[places]
    return nn.functional.cross_entropy(logits.flatten(0, -2), targets, ignore_index=-100)


def choose_clips(bench_args: BenchmarkArguments, data_args: DataArguments) -> list[dict[str, Any]]:
    """Clips of one warm-up step and the timed ones."""
    speech, _ = load_speech(data_args, "train")
    wanted = bench_args.batch_size * (bench_args.steps + 1)
    if len(speech) < wanted:
        raise ValueError(f"{wanted} clips are needed, the train split has {len(speech)}: lower `steps`.")
    return [speech[i] for i in random.Random(bench_args.seed).sample(range(len(speech)), wanted)]


def measure(bench: StepBench) -> dict[str, Any]:
    """All settings: time in turn in one fresh process, then memory in another."""
    check_known("settings", bench.bench_args.settings, SETTINGS)
    measured = in_fresh_process(bench.time_in_turn)
    results = measured["settings"]
    add_ratios(results)
    if bench.bench_args.memory:
        for name, memory in in_fresh_process(bench.peak_memory).items():
            results[name] |= memory
        check_same_losses(results)
    return measured


def check_same_losses(results: dict[str, dict[str, Any]]) -> None:
    """On equal batches a setting must have our losses, before an update and after it."""
    ours = torch.tensor(results[OURS]["losses"])
    for name in results:
        if not SETTINGS[name].same_batches:
            continue
        losses = torch.tensor(results[name]["losses"])
        if not torch.allclose(losses, ours, rtol=1e-4):
            raise RuntimeError(f"{name!r} computes something else: losses {losses}, ours {ours}.")
