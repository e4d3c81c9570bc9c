"""The peak memory of real training steps on a CPU, beside what `slam-asr plan` estimates.

    python -m benchmarks.training_memory --encoder DIR --llm DIR --batch 4 --seconds 10 [--lora_rank 16]
        [--gradient_checkpointing] [--loss_positions 256]

Random weights of the models' configurations serve as well as trained ones, and noise as well as speech. A
step is forward, backward and AdamW; two are made, as the optimizer's states are there from the end of the
first one on.
Memory is counted as in worker.py, from before the model is built: by the kernel, on Linux alone.
"""

import argparse
import json

import torch
from transformers import AutoConfig

from benchmarks.worker import peak_memory
from modeling_slam import SlamAsrConfig, SlamAsrForConditionalGeneration
from modeling_slam.common.cpu_products import use_onednn
from modeling_slam.plan.memory import Load, shapes_of, training_memory
from modeling_slam.training.label_loss import use_loss_positions

STEPS = 2


def measure(config: SlamAsrConfig, load: Load) -> dict[str, float]:
    """Bytes: `measured` peak of two steps, and the `estimated` one."""
    estimated = training_memory(config, load)
    one_step(SlamAsrForConditionalGeneration(small(config)), Load(1, 1.0, load.dtype))  # libraries are loaded

    def work() -> None:
        model = SlamAsrForConditionalGeneration(config)
        if load.checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        one_step(model, load)

    measured = peak_memory(work)["peak_extra_bytes"]
    if measured is None:
        raise SystemExit("error: on a CPU, peak memory is known on Linux alone.")
    return {"measured": float(measured), "estimated": estimated["total"], **estimated}


def one_step(model: SlamAsrForConditionalGeneration, load: Load) -> None:
    model.freeze()
    model.train()
    use_onednn(model)
    use_loss_positions(model, load.loss_positions)
    optimizer = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], lr=1e-4, fused=True)
    batch = batch_of(model.config, load)
    for _ in range(STEPS):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def batch_of(config: SlamAsrConfig, load: Load) -> dict[str, torch.Tensor]:
    """Noise of `load.seconds`, and as many words as the estimate has."""
    shapes, placeholder = shapes_of(config, load.seconds), int(config.audio_token_id or 0)
    bins, frames = config.audio_config.num_mel_bins, round(100 * load.seconds)
    text = torch.randint(0, 60, (load.clips, shapes.length - shapes.audio))
    audio = torch.full((load.clips, shapes.audio), placeholder)
    ids = torch.cat([audio, text], dim=1)
    labels = ids.clone()
    labels[:, : -(shapes.words + 1)] = -100
    return {
        "input_features": torch.randn(load.clips, bins, frames),
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": labels,
    }


def small(config: SlamAsrConfig) -> SlamAsrConfig:
    """Of the same kinds, and a layer of each."""
    changed = SlamAsrConfig.from_dict(config.to_dict())
    changed.kept_llm_layers, changed.num_encoder_layers = changed.kept_llm_layers[:1], 1
    changed.text_config.vocab_size, changed.text_config.pad_token_id = 64, None
    changed.audio_token_id = 64
    return changed


def main() -> None:
    parser = argparse.ArgumentParser(description="Peak memory of training steps beside its estimate.")
    for name in ("encoder", "llm"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--lora_rank", type=int, default=16)
    parser.add_argument("--encoder_lora_rank", type=int, default=0)
    parser.add_argument("--gradient_checkpointing", action="store_true")
    parser.add_argument("--loss_positions", type=int)
    given = parser.parse_args()
    config = SlamAsrConfig(
        audio_config=AutoConfig.from_pretrained(given.encoder, dtype=torch.float32),
        text_config=AutoConfig.from_pretrained(given.llm, dtype=torch.float32),
        projector_stack=4,
        lora_rank=given.lora_rank,
        encoder_lora_rank=given.encoder_lora_rank,
    )
    load = Load(
        given.batch, given.seconds, torch.float32, given.gradient_checkpointing,
        loss_positions=given.loss_positions,
    )  # fmt: skip
    print(json.dumps({name: round(size / 2**20) for name, size in measure(config, load).items()}))


if __name__ == "__main__":
    main()
