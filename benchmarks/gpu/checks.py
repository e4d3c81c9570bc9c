"""Is it right on this device: numbers beside a reference, with random weights in float32 and bfloat16.

Each check returns `ok` (None where it does not apply) and the numbers that say so. Differences of logits are
the largest one over the largest logit. What bfloat16 may differ by is not a constant of ours: it is measured,
against the same weights in float32 on the same clip alone.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

from benchmarks.gpu.device import Device
from benchmarks.gpu.sizes import (
    SIZES,
    TOKENS_PER_SECOND,
    cast,
    made_clips,
    model_config,
    processor,
    random_model,
    transcript_tokens,
    write_base_models,
)
from benchmarks.gpu.variants import (
    ATTENTIONS,
    COMPILED,
    LOSS_IN_PARTS,
    PACKED,
    mel_in_loader,
    mel_on_device,
    put_on,
)
from modeling_slam import SlamAsrForConditionalGeneration
from modeling_slam.evaluation.fast_search import transcribe

Found = dict[str, Any]
FLOAT32_AGREES = 1e-4  # docs/architecture.md: what the model says about a clip
BF16_FACTOR = 2.0  # times what bfloat16 differs from float32 by itself
COMPARED = "small"  # of `MODELS`, with the small LLM


class Checks:
    """The checks by name, in order; models are built for each."""

    def __init__(self, device: Device, size: str):
        self.device = device
        self.config = model_config(size, COMPARED, SIZES[size].small_llm)
        self.tiny_config = model_config("tiny", COMPARED, "tiny")
        self.prepare = processor(self.config)
        self.clips = made_clips(SIZES[size].checked_clips)
        # cuDNN's convolutions would round float32 to TF32.
        torch.backends.cudnn.allow_tf32 = False

    def all(self) -> dict[str, Callable[[], Found]]:
        return {
            "batch invariance": self.batch_invariance,
            "device against CPU": self.device_against_cpu,
            "own search": self.own_search,
            "resume": self.resume,
            "attention": self.attention,
            "flash attention": self.flash_attention,
            "compile": lambda: self.as_plain(COMPILED),
            "packed rows": lambda: self.as_plain(PACKED),
            "loss in parts": lambda: self.as_plain(LOSS_IN_PARTS),
            "features on the device": self.features_on_device,
            "static cache": self.static_cache,
        }

    # ---------------------------------------------------------------- what is compared

    def model(self, dtype: torch.dtype = torch.float32, tiny: bool = False, **options: Any) -> Any:
        """Weights are those of bfloat16 in both types, so that the types differ in computing alone."""
        config = self.tiny_config if tiny else self.config
        model = random_model(config, self.device.torch, torch.float32, **options)
        cast(model, torch.bfloat16)
        cast(model, dtype)
        return model

    def inputs(self, clips: list[dict[str, Any]], model: Any) -> Any:
        made = self.prepare(audio=[clip["audio"] for clip in clips])
        return made.to(model.device, model.dtype)

    def labelled(self) -> Any:
        audio, text = ([clip[name] for clip in self.clips] for name in ("audio", "text"))
        return self.prepare(audio=audio, text=text).to(self.device.torch)

    @torch.inference_mode()
    def logits(self, model: Any, alone: bool = False) -> torch.Tensor:
        """(B, V) float32 on the CPU: of the first token of each clip."""
        batches = [[clip] for clip in self.clips] if alone else [self.clips]
        rows = [model(**self.inputs(batch, model), logits_to_keep=1).logits[:, -1] for batch in batches]
        return torch.cat(rows).float().cpu()

    @torch.no_grad()
    def tokens(self, model: Any, search: Callable[..., torch.Tensor], **options: Any) -> list[list[int]]:
        made = search(
            model, **self.inputs(self.clips, model), max_tokens_per_second=TOKENS_PER_SECOND, **options
        )
        return transcript_tokens(made)

    # ---------------------------------------------------------------- the checks

    def batch_invariance(self) -> Found:
        """What the model says about a clip does not depend on its neighbours."""
        exact = self.model()
        alone = self.logits(exact, alone=True)
        in_float32 = difference(self.logits(exact), alone)
        cast(exact, torch.bfloat16)
        rounded = self.logits(exact, alone=True)
        in_bf16, of_bf16 = difference(self.logits(exact), rounded), difference(rounded, alone)
        return {
            "ok": in_float32 <= FLOAT32_AGREES and in_bf16 <= BF16_FACTOR * of_bf16,
            "batch_float32": in_float32,
            "batch_bf16": in_bf16,
            "bf16_against_float32": of_bf16,
        }

    def device_against_cpu(self) -> Found:
        if self.device.module is None:
            return {"ok": None, "why": "this device is the CPU"}
        model = self.model()
        here = self.logits(model)
        found = difference(here, self.logits(model.to("cpu")))
        return {"ok": found <= FLOAT32_AGREES, "float32": found}

    def own_search(self) -> Found:
        """The tokens of transformers' own beam and greedy search, which in float32 are the same."""
        model, found = self.model(), {}
        for dtype in (torch.float32, torch.bfloat16):
            cast(model, dtype)
            for beams in (2, 1):
                options = {"num_beams": beams, "max_new_tokens": 60}
                ours = self.tokens(model, transcribe, **options)
                theirs = self.tokens(model, type(model).generate, **options)
                same = sum(one == other for one, other in zip(ours, theirs, strict=True))
                found[f"same_{str(dtype).removeprefix('torch.')}_beams_{beams}"] = same
        clips = len(self.clips)
        return {"ok": found["same_float32_beams_2"] == found["same_float32_beams_1"] == clips} | {
            "clips": clips, **found,
        }  # fmt: skip

    def resume(self) -> Found:
        """Four steps, and two, a checkpoint and two more, end in the same bits; the device allowing.

        Where two equal runs differ by themselves, a resumed one may differ as they do.
        """
        with tempfile.TemporaryDirectory() as directory:
            bases = write_base_models(Path(directory), "tiny", "small", "tiny", torch.bfloat16)
            train = TinyTraining(Path(directory), bases, self.device)
            straight, again = train.until(4, "straight"), train.until(4, "again")
            train.until(2, "resumed")
            resumed = train.until(4, "resumed", resume=True)
        own, found = largest_change(straight, again), largest_change(straight, resumed)
        return {"ok": found <= 2 * own, "equal_runs_differ_by": own, "resumed_differs_by": found}

    def attention(self) -> Found:
        """sdpa is eager attention in float32, and as near to it as eager is in bfloat16."""
        found = self.against_eager("sdpa") | {
            "sdpa_float32": self.against_eager("sdpa", dtype=torch.float32)["sdpa"]
        }
        near = found["sdpa"] <= BF16_FACTOR * found["eager"]
        return {"ok": near and found["sdpa_float32"] <= FLOAT32_AGREES, **found}

    def flash_attention(self) -> Found:
        if not ATTENTIONS:
            return {"ok": None, "why": "flash-attn is not installed"}
        found = self.against_eager(*ATTENTIONS)
        return {"ok": all(value <= BF16_FACTOR * found["eager"] for value in found.values()), **found}

    def against_eager(self, *kinds: str, dtype: torch.dtype = torch.bfloat16) -> Found:
        """Differences of these implementations, and of eager itself, in a type from eager float32."""
        reference = self.logits(self.model(attn_implementation="eager"))
        return {
            kind: difference(self.logits(self.model(dtype, attn_implementation=kind)), reference)
            for kind in (*kinds, "eager")
        }

    def as_plain(self, variant: str) -> Found:
        """Loss and gradients of a variant, in float32; of a tiny model, as compiling takes minutes."""
        model, batch = self.model(tiny=True), self.labelled()
        plain = loss_and_gradients(model, batch)
        put_on(model, variant, self.device)
        made = loss_and_gradients(model, batch)
        found = {"loss": difference(made[0], plain[0]), "gradients": difference(made[1], plain[1])}
        return {"ok": found["loss"] <= FLOAT32_AGREES and found["gradients"] <= 10 * FLOAT32_AGREES, **found}

    def features_on_device(self) -> Found:
        """Log-mel of all clips at once, and clip by clip on the CPU."""
        waves = [clip["audio"] for clip in self.clips]
        made = mel_on_device(self.prepare, waves, self.device.torch).cpu()
        found = difference(made, mel_in_loader(self.prepare, waves))
        return {"ok": found <= FLOAT32_AGREES, "float32": found}

    def static_cache(self) -> Found:
        """Decoding with a cache of fixed shape, CUDA graphs on a GPU; of a tiny model."""
        model = self.model(tiny=True)
        found = {}
        for beams in (2, 1):
            options = {"num_beams": beams, "max_new_tokens": 24}
            dynamic = self.tokens(model, transcribe, **options)
            static = self.tokens(model, type(model).generate, cache_implementation="static", **options)
            same = sum(one == other for one, other in zip(dynamic, static, strict=True))
            found[f"same_float32_beams_{beams}"] = same
        clips = len(self.clips)
        return {"ok": set(found.values()) == {clips}, "clips": clips, **found}


class TinyTraining:
    """Trains a tiny model with transformers' Trainer in bfloat16, as `train.py` does, with dropout."""

    def __init__(self, directory: Path, bases: dict[str, str], device: Device):
        self.directory, self.bases, self.device = directory, bases, device
        self.clips = made_clips(8)

    def until(self, steps: int, name: str, resume: bool = False) -> dict[str, torch.Tensor]:
        """What is trained after so many steps."""
        torch.manual_seed(0)
        config = model_config("tiny", COMPARED, "tiny", **self.bases)
        prepare = processor(config)
        model = SlamAsrForConditionalGeneration.from_base_models(config, dtype=torch.bfloat16)
        settings = TrainingArguments(
            output_dir=str(self.directory / name), max_steps=steps, per_device_train_batch_size=2,
            save_steps=2, lr_scheduler_type="constant", bf16=True, use_cpu=self.device.module is None,
            remove_unused_columns=False, report_to="none", disable_tqdm=True, logging_strategy="no", seed=1,
        )  # fmt: skip

        def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            return dict(prepare(audio=[r["audio"] for r in rows], text=[r["text"] for r in rows]))

        trainer = Trainer(
            model=model,
            args=settings,
            train_dataset=self.clips,  # ty: ignore[invalid-argument-type] (a list is a dataset)
            data_collator=collate,
        )
        trainer.train(resume_from_checkpoint=resume)
        return {
            name: weight.detach().float().cpu().clone()
            for name, weight in model.named_parameters()
            if weight.requires_grad
        }


def loss_and_gradients(model: Any, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """(1,) and all gradients in one row."""
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return loss.detach()[None], torch.cat(gradients)


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference over the largest value."""
    return float((one - other).abs().max() / other.abs().max())


def largest_change(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)
