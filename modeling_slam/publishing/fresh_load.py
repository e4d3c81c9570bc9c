"""Run by `check.py` as a process of its own: load a checkpoint as a stranger would, transcribe, report.

    python -P fresh_load.py DIRECTORY RESULTS.json [CLIP]

It imports nothing of this project, and sees to it that the checkpoint's code cannot either.
"""

import json
import sys
from pathlib import Path

sys.modules["modeling_slam"] = None  # ty: ignore[invalid-assignment] (an import of it now fails)

import numpy as np  # noqa: E402
import torch  # noqa: E402
from transformers import AutoModel, AutoProcessor  # noqa: E402

SAMPLING_RATE = 16_000
MAX_NEW_TOKENS = 64


def generated_clip(seconds: float) -> np.ndarray:
    """A gliding tone in light noise, the same each time."""
    time = np.arange(int(seconds * SAMPLING_RATE)) / SAMPLING_RATE
    noise = np.random.default_rng(0).standard_normal(len(time))
    return (0.3 * np.sin(2 * np.pi * (200 + 100 * time) * time) + 0.02 * noise).astype(np.float32)


def main(directory: str, results: str, clip: str | None = None) -> None:
    model = AutoModel.from_pretrained(directory, trust_remote_code=True).eval()
    processor = AutoProcessor.from_pretrained(directory, trust_remote_code=True)
    # Any language: what is compared is the same clip in two batches.
    named = {"language": "en"} if "{language}" in processor.instruction else {}
    clips = [clip or generated_clip(2.0), generated_clip(3.1)]

    @torch.no_grad()
    def run(batch: list) -> tuple[list[str], torch.Tensor]:
        inputs = processor(batch, **named)
        inputs["input_features"] = inputs["input_features"].to(model.dtype)
        logits = model(**inputs, logits_to_keep=1).logits[:, -1].float()
        ids = model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS)
        return processor.batch_decode(ids, skip_special_tokens=True), logits

    alone = [run([one]) for one in clips]
    texts, logits = run(clips)
    report = {
        "transcripts": [text for (text,), _ in alone],
        "transcripts_in_batch": texts,
        "logit_difference": float((torch.cat([one for _, one in alone]) - logits).abs().max()),
        "dtype": str(model.dtype).removeprefix("torch."),
        "parameters": model.parameter_counts(),
        "clip": Path(clip).name if clip else "generated",
    }
    Path(results).write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
