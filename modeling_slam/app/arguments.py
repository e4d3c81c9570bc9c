"""Arguments of `slam-asr app`."""

from dataclasses import dataclass, field
from typing import Literal

from modeling_slam.common.numbers import check_numbers


@dataclass
class AppArguments:
    """Which model, and where its page is"""

    model: str = field(metadata={"help": "Checkpoint directory or Hub id; may be given first."})
    language: str | None = field(
        default=None, metadata={"help": "Spoken language, such as nl; the run's own if not given."}
    )
    depths: list[int] = field(
        default_factory=list,
        metadata={"help": "Depths that can be compared; the run's own `--train_depths` if not given."},
    )
    num_beams: int | None = field(
        default=None, metadata={"help": "Beams; 1 is greedy and faster. The checkpoint's own if not given."}
    )
    batch_size: int = field(default=8, metadata={"help": "Pieces of a recording decoded together."})
    dtype: Literal["auto", "float32", "bfloat16"] = field(
        default="auto", metadata={"help": "Weights; auto is bfloat16 on GPUs that have it, else float32."}
    )
    host: str | None = field(
        default=None, metadata={"help": "Address to listen at; this machine alone if not given."}
    )
    port: int | None = field(
        default=None, metadata={"help": "Port; the first that is free from 7860 on if not given."}
    )

    def __post_init__(self):
        check_numbers(self, ("num_beams", "batch_size", "port"), at_least=1)
