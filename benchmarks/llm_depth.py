"""`python -m benchmarks.llm_depth`: what leaving out layers of the LLM saves, and which layers do least.

    python -m benchmarks.llm_depth --llm DIR --encoder DIR --dataset DIR --language en --keep 24 18 12 6

prints two tables: the angular distances that `--llm_layer_choice angular` goes by, and for each depth what an
untrained lean checkpoint takes to load and to transcribe. Each depth has a process of its own, depths take
turns, and the fastest round counts. Seconds are those of the processor, which other work on the machine
changes little; files are in the page cache. All transcripts have `TOKENS` tokens, so that seconds compare.
"""

import argparse
import json
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
from modeling_slam.training.layer_choice import Stack, closest_block
from modeling_slam.training.llm_layers import Distances, angular_distances, loaded, spread, text_batches

CLIPS, TOKENS = 4, 20
INPUTS = "clips.pt"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name in ("llm", "encoder", "dataset", "language"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--keep", type=int, nargs="+", required=True, help="Depths of the LLM.")
    parser.add_argument("--rounds", type=int, default=3, help="Times that each depth is measured.")
    arguments = parser.parse_args()
    model_args = ModelArguments(encoder=arguments.encoder, llm=arguments.llm)
    config = build_config(model_args, LoraArguments(lora_rank=0))
    processor = build_processor(model_args, config)
    data, _ = load_speech(DataArguments(dataset=arguments.dataset, language=arguments.language), "train")

    began = time.process_time()
    batches = [*text_batches(processor.tokenizer, processor.instruction, spread(data))]
    distances = angular_distances(loaded(arguments.llm, None, "cpu"), batches)
    tokens = sum(int(counted.sum()) for _, _, counted in batches)
    print(f"{tokens} tokens, {time.process_time() - began:.1f} s\n")
    print(table([block_row(distances, kept) for kept in arguments.keep]), flush=True)
    stack = Stack(config.text_config.num_hidden_layers)
    kept = {depth: closest_block(stack, depth, distances).layers for depth in arguments.keep}
    clips = [data[row]["audio"] for row in range(0, len(data), len(data) // CLIPS)][:CLIPS]
    print(f"\n{table(measured(config, processor, clips, kept, arguments.rounds))}")


def block_row(distances: Distances, kept: int) -> dict[str, Any]:
    """The block that is dropped to keep so many layers, and how it compares with other blocks of its size."""
    chosen = closest_block(Stack(len(distances) - 1), kept, distances)
    of_blocks = chosen.scores.get("block_dropped_from_layer", {})
    dropped = [layer for layer in range(len(distances) - 1) if layer not in chosen.layers]
    return {
        "kept": kept,
        "dropped": f"{dropped[0]} to {dropped[-1]}" if dropped else "none",
        "distance": of_blocks[dropped[0]] if dropped else None,
        "of the top ones": of_blocks[kept] if dropped else None,
        "largest": max(of_blocks.values()) if dropped else None,
    }


def table(rows: list[dict[str, Any]]) -> str:
    return pd.DataFrame(rows).to_markdown(index=False, floatfmt=".3f")


def measured(
    config: SlamAsrConfig,
    processor: SlamAsrProcessor,
    clips: list[Any],
    kept: dict[int, list[int]],
    rounds: int,
) -> list[dict[str, Any]]:
    """One row for each depth."""
    with tempfile.TemporaryDirectory() as directory:
        shallow = SlamAsrConfig.from_dict(config.to_dict(), num_llm_layers=1)
        SlamAsrForConditionalGeneration.from_base_models(shallow).save_pretrained(directory)
        torch.save(dict(processor(audio=clips)), Path(directory, INPUTS))
        found = [{depth: in_a_process(directory, kept[depth]) for depth in kept} for _ in range(rounds)]
    return [
        {"kept": depth} | {name: min(of[depth][name] for of in found) for name in found[0][depth]}
        for depth in kept
    ]


def in_a_process(checkpoint: str, layers: list[int]) -> dict[str, float]:
    program = f"from benchmarks.llm_depth import measure; measure({checkpoint!r}, {layers})"
    ended = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(ended.stdout.splitlines()[-1])


def measure(checkpoint: str, layers: list[int]) -> None:
    """Load the checkpoint, which holds nothing of the LLM, with these layers; prints what it took as JSON."""
    config = SlamAsrConfig.from_pretrained(checkpoint, kept_llm_layers=layers)
    config.save_pretrained(checkpoint)
    began = time.process_time()
    model = SlamAsrForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
    load_seconds = time.process_time() - began
    read = [t for name, t in base_tensors(model.config).items() if name.startswith("language_model.")]
    use_onednn(model)
    inputs = torch.load(Path(checkpoint, INPUTS))

    def transcribe(tokens: int) -> float:
        began = time.process_time()
        model.generate(
            **inputs, num_beams=1, min_new_tokens=tokens, max_new_tokens=tokens, max_tokens_per_second=None,
            pad_token_id=0,
        )  # fmt: skip
        return (time.process_time() - began) / CLIPS

    transcribe(1)  # packs the weights
    counts = model.parameter_counts()
    print(json.dumps({
        "LLM (M)": counts["llm"] / 1e6,
        "all (M)": counts["total"] / 1e6,
        "read of the LLM (MB)": sum(t[...].numel() * t[...].element_size() for t in read) / 1e6,
        "to load (s)": load_seconds,
        "weights (MB)": sum(p.numel() * p.element_size() for p in model.parameters()) / 1e6,
        "a clip (s)": transcribe(TOKENS),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
