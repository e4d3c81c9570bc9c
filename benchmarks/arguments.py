"""What is measured, on what, and how long. Base models and speech: `ModelArguments`, `DataArguments`."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Part = Literal["training", "evaluation", "loading", "curves", "data_parallel", "peer"]
PARTS = get_args(Part)

OURS = "ours"


@dataclass
class BenchmarkArguments:
    """Benchmark"""

    parts: list[str] = field(
        default_factory=lambda: [part for part in PARTS if part != "peer"],
        metadata={"help": f"What to measure: {', '.join(PARTS)}; `peer` is added by --peer."},
    )
    peer: str | None = field(
        default=None,
        metadata={"help": "Another implementation's command, run in turn with ours (benchmarks/README.md)."},
    )
    settings: list[str] = field(
        default_factory=lambda: [OURS, "plain", "plain, no checkpointing", "plain, 30 s"],
        metadata={"help": "Ways to train that are compared, 'ours' among them."},
    )
    evaluations: list[str] = field(
        default_factory=lambda: [OURS, "plain", "plain, 30 s"],
        metadata={"help": "Ways to transcribe that are compared, 'ours' among them."},
    )
    curves: list[str] = field(
        default_factory=lambda: ["clip seconds", "batch size", "kept layers", "vocabulary"],
        metadata={"help": "What cost curves run over."},
    )
    lora_ranks: list[int] = field(
        default_factory=lambda: [0, 16], metadata={"help": "LoRA ranks to train; 0 is the projector alone."}
    )
    checkpoint: str | None = field(
        default=None,
        metadata={
            "help": "Trained checkpoint to evaluate and load; without it a fresh one, cut at 32 tokens."
        },
    )
    steps: int = field(default=8, metadata={"help": "Timed steps of each setting, after one to warm up."})
    batch_size: int = field(default=4, metadata={"help": "Clips per training step."})
    eval_clips: int = field(default=64, metadata={"help": "Test clips that an evaluation transcribes."})
    eval_rounds: int = field(default=3, metadata={"help": "Times that each way transcribes them, in turn."})
    num_beams: int = field(default=2, metadata={"help": "Beams of an evaluation."})
    threads: int = field(default=2, metadata={"help": "CPU threads."})
    memory: bool = field(default=True, metadata={"help": "Measure peak memory, in processes of their own."})
    seed: int = field(default=0, metadata={"help": "Seed of the choice of clips, their order and dropout."})
    name: str = field(default="", metadata={"help": "Added to the names of the result files."})
    output_dir: str = field(
        default="benchmarks/results", metadata={"help": "Receives one JSON file for each part."}
    )

    def __post_init__(self):
        unknown = sorted(set(self.parts) - set(PARTS))
        if unknown or not self.parts:
            raise ValueError(f"`parts` must be any of {[*PARTS]}, got {self.parts}.")
        if self.peer is None and "peer" in self.parts:
            raise ValueError("`parts` has peer; name its command: --peer 'CMD'.")
        if self.peer is not None and "peer" not in self.parts:
            self.parts = [*self.parts, "peer"]
        for name in ("settings", "evaluations"):
            if OURS not in getattr(self, name):
                raise ValueError(f"`{name}` must have {OURS!r} among it, got {getattr(self, name)}.")
        for name in ("steps", "batch_size", "eval_clips", "eval_rounds", "num_beams", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")


def check_known(name: str, asked: Collection[str], known: Collection[str]) -> None:
    """Raises `ValueError` where the argument `name` asks for what there is not."""
    unknown = sorted(set(asked) - set(known))
    if unknown:
        raise ValueError(f"`{name}` must be any of {[*known]}, got {unknown}.")


def add_ratios(settings: dict[str, dict[str, Any]]) -> None:
    """Put `ratio_to_ours`, of median seconds, beside the other figures of each setting."""
    for figures in settings.values():
        figures["ratio_to_ours"] = figures["median_seconds"] / settings[OURS]["median_seconds"]
