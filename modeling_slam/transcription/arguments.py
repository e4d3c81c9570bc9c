"""Arguments of `slam-asr transcribe`."""

from dataclasses import dataclass, field
from typing import Literal

from modeling_slam.common.numbers import check_numbers
from modeling_slam.common.shipped import did_you_mean
from modeling_slam.transcription.formats import FORMATS


@dataclass
class TranscribeArguments:
    """Which recordings, and what becomes of them"""

    model: str = field(metadata={"help": "Checkpoint directory or Hub id; may be given first."})
    files: list[str] = field(
        metadata={"help": "Recordings, audio or video, and folders of them; may follow the model."}
    )
    format: str = field(
        default="txt", metadata={"help": f"What is written, joined by commas: {', '.join(FORMATS)}."}
    )
    recursive: bool = field(default=False, metadata={"help": "Look into the folders of a folder as well."})
    language: str | None = field(
        default=None, metadata={"help": "Spoken language, such as nl; the run's own if not given."}
    )
    hotwords: str | None = field(
        default=None,
        metadata={"help": "Text file of words or phrases to expect, one a line; for models trained for it."},
    )
    output_dir: str = field(
        default="transcripts", metadata={"help": "Where files go, each with its recording's name."}
    )
    num_beams: int | None = field(
        default=None, metadata={"help": "Beams; 1 is greedy and faster. The checkpoint's own if not given."}
    )
    ctc_weight: float = field(
        default=0.0,
        metadata={"help": "Above 0: LLM and CTC head choose together; 0.3 does well, with 4 beams."},
    )
    batch_size: int = field(default=8, metadata={"help": "Pieces of recordings decoded together."})
    num_processes: int | None = field(
        default=None,
        metadata={
            "help": "Processes that share the recordings, a model in each; 1, with `--ray` as many as fit."
        },
    )
    ray: str | None = field(
        default=None,
        metadata={"help": "Ray cluster that hears them: auto, an address, or local for this machine's own."},
    )
    dtype: Literal["auto", "float32", "bfloat16"] = field(
        default="auto", metadata={"help": "Weights; auto is bfloat16 on GPUs that have it, else float32."}
    )

    def __post_init__(self):
        check_numbers(self, ("num_beams", "batch_size", "num_processes"), at_least=1)
        check_numbers(self, ("ctc_weight",), at_least=0)
        for name in self.formats:
            if name not in FORMATS:
                raise ValueError(
                    f"`format` has {name!r}.{did_you_mean(name, FORMATS)} Expected some of "
                    f"{', '.join(FORMATS)}, joined by commas."
                )

    @property
    def formats(self) -> list[str]:
        return [name.strip() for name in self.format.split(",")]
