"""Arguments of `slam-asr serve`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from modeling_slam.common.numbers import check_numbers


@dataclass
class ServeArguments:
    """Which model, where, and how much at once"""

    model: str = field(metadata={"help": "Checkpoint directory or Hub id; may be given first."})
    name: str | None = field(
        default=None, metadata={"help": "What clients call the model; its directory's or Hub id's own name."}
    )
    host: str = field(
        default="127.0.0.1", metadata={"help": "Address to listen at; 0.0.0.0 for other machines."}
    )
    port: int = field(default=8000, metadata={"help": "Port to listen at; 0 takes a free one."})
    language: str | None = field(
        default=None, metadata={"help": "Where a request names none; the run's own if not given."}
    )
    num_beams: int | None = field(
        default=None, metadata={"help": "Beams; 1 is greedy and faster. The checkpoint's own if not given."}
    )
    ctc_weight: float = field(
        default=0.0,
        metadata={"help": "Above 0: LLM and CTC head choose together; 0.3 does well, with 4 beams."},
    )
    dtype: Literal["auto", "float32", "bfloat16"] = field(
        default="auto", metadata={"help": "Weights; auto is bfloat16 on GPUs that have it, else float32."}
    )
    batch_seconds: float = field(
        default=120.0, metadata={"help": "Sound decoded at once, padding included, over all requests."}
    )
    max_requests: int = field(
        default=64, metadata={"help": "Requests taken at a time; further ones are told to wait (429)."}
    )
    max_megabytes: float = field(default=100.0, metadata={"help": "Largest upload; more is refused (413)."})
    max_seconds: float = field(
        default=7200.0, metadata={"help": "Longest recording, seconds of sound; more is refused (413)."}
    )
    timeout_seconds: float = field(
        default=600.0, metadata={"help": "Longest time of a request: upload (408), wait and work (504)."}
    )

    def __post_init__(self):
        check_numbers(self, ("num_beams", "max_requests"), at_least=1)
        check_numbers(self, ("ctc_weight",), at_least=0)
        check_numbers(self, ("port",), at_least=0, below=65_536)
        check_numbers(self, ("batch_seconds", "max_megabytes", "max_seconds", "timeout_seconds"), above=0)
        if self.name is not None and not self.name.strip():
            raise ValueError("`name` is empty; leave it out for the model's own.")

    @property
    def served_name(self) -> str:
        """A Hub id as it is; of a directory its last part."""
        return self.name or (Path(self.model).resolve().name if Path(self.model).is_dir() else self.model)
