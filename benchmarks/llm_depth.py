"""`python -m benchmarks.llm_depth`: what leaving out layers of the LLM saves, and which layers do least.

    python -m benchmarks.llm_depth --llm DIR --encoder DIR --dataset DIR --language en --keep 24 18 12 6

prints two tables: the angular distances that `--llm_layer_choice angular` goes by, and for each depth a lean
checkpoint that it writes, loads and transcribes with, untrained: parameters, bytes read of the base LLM, seconds
to load, peak memory, and seconds a clip. Each depth is loaded in a process of its own, depths take turns, and
the fastest round counts. Transcripts all have `TOKENS` tokens, so that seconds compare.
"""  # noqa: E501 (commands to be copied)

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from modeling_slam import SlamAsrConfig, SlamAsrForConditionalGeneration, SlamAsrProcessor
from modeling_slam.common.cpu_products import use_onednn
from modeling_slam.data import DataArguments, load_speech
from modeling_slam.model.checkpoints import base_tensors
from modeling_slam.training.arguments import LoraArguments, ModelArguments
from modeling_slam.training.assembly import build_config, build_processor
from modeling_slam.training.llm_layers import (
    angular_distances,
    loaded,
    spread,
    text_batches,
    without_closest_block,
)

ROUNDS, CLIPS, TOKENS = 3, 4, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name in ("llm", "encoder", "dataset", "language"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--keep", type=int, nargs="+", required=True, help="Depths of the LLM.")
    arguments = parser.parse_args()
    model_args = ModelArguments(encoder=arguments.encoder, llm=arguments.llm)
    config = build_config(model_args, LoraArguments(lora_rank=0))
    processor = build_processor(model_args, config)
    data, _ = load_speech(DataArguments(dataset=arguments.dataset, language=arguments.language), "train")

    began = time.perf_counter()
    llm = loaded(arguments.llm, None, "cpu")
    batches = [*text_batches(processor.tokenizer, processor.instruction, spread(data))]
    distances = angular_distances(llm, batches)
    tokens = sum(int(counted.sum()) for _, _, counted in batches)
    print(
        f"{tokens} tokens of {min(64, len(data))} texts, {time.perf_counter() - began:.1f} s, loading included\n"
    )
    print(table([block_row(distances, kept) for kept in arguments.keep]))
    del llm

    with tempfile.TemporaryDirectory() as directory:
        clips = [data[row]["audio"] for row in range(0, len(data), len(data) // CLIPS)][:CLIPS]
        torch.save(
            processor(audio=clips[:CLIPS], language=[arguments.language] * CLIPS).data,
            f"{directory}/clips.pt",
        )
        rows = {}
        for kept in arguments.keep:
            layers, _ = without_closest_block(kept, distances)
            cut = SlamAsrConfig.from_dict(config.to_dict(), kept_llm_layers=layers)
            model = SlamAsrForConditionalGeneration.from_base_models(cut)
            model.save_pretrained(f"{directory}/{kept}")
            counts = model.parameter_counts()
            rows[kept] = {"layers": kept, "LLM (M)": counts["llm"] / 1e6, "all (M)": counts["total"] / 1e6}
            del model
        rounds = [
            {kept: in_a_process(f"{directory}/{kept}") for kept in arguments.keep} for _ in range(ROUNDS)
        ]
    for kept, row in rows.items():
        row |= {name: min(of_round[kept][name] for of_round in rounds) for name in rounds[0][kept]}
    print()
    print(table(list(rows.values())))


def block_row(distances: list[list[float]], kept: int) -> dict[str, Any]:
    layers, scores = without_closest_block(kept, distances)
    of_blocks = scores["block_dropped_from_layer"]
    dropped = [layer for layer in range(len(distances) - 1) if layer not in layers]
    return {
        "keeps": kept,
        "drops": f"{dropped[0]} to {dropped[-1]}" if dropped else "none",
        "distance": min(of_blocks.values()),
        "of the top ones": of_blocks[kept],
        "largest": max(of_blocks.values()),
    }


def table(rows: list[dict[str, Any]]) -> str:
    return pd.DataFrame(rows).to_markdown(index=False, floatfmt=".3f")


def in_a_process(checkpoint: str) -> dict[str, float]:
    command = [sys.executable, "-c", f"from benchmarks.llm_depth import measure; measure({checkpoint!r})"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(ended.stdout.splitlines()[-1])


def measure(checkpoint: str) -> None:
    """Load a checkpoint and transcribe; prints what it took as JSON."""
    began = time.perf_counter()
    model = SlamAsrForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
    load_seconds = time.perf_counter() - began
    llm = [t for name, t in base_tensors(model.config).items() if name.startswith("language_model.")]
    use_onednn(model)
    inputs = torch.load(Path(checkpoint).parent / "clips.pt")
    seconds = []
    for _ in range(2):  # the first one packs the weights
        began = time.perf_counter()
        model.generate(
            **inputs, num_beams=1, min_new_tokens=TOKENS, max_new_tokens=TOKENS, max_tokens_per_second=None,
            pad_token_id=0,
        )  # fmt: skip
        seconds.append((time.perf_counter() - began) / CLIPS)
    print(json.dumps({
        "read of the LLM (MB)": sum(t[...].numel() * t[...].element_size() for t in llm) / 1e6,
        "load (s)": load_seconds,
        "peak (MB)": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "seconds a clip": min(seconds),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
