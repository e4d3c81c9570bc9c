"""Arguments of `python -m modeling_slam.study`, one dataclass a command."""

from dataclasses import dataclass, field
from typing import Literal

import yaml

from modeling_slam.common.hub_ids import check_repo_id
from modeling_slam.common.numbers import check_numbers
from modeling_slam.training.feature_cache import CacheArguments


@dataclass
class RunStudyArguments:
    """Which study runs, where, and how many runs at a time"""

    study: str = field(metadata={"help": "Study file; may be given first, without its flag."})
    output_dir: str | None = field(
        default=None, metadata={"help": "Directory of the study; runs/NAME-study if not given."}
    )
    set: list[str] = field(
        default_factory=list,
        metadata={"help": "Change settings of the study file: llm=DIR encoders.base.model=DIR."},
    )
    only: list[str] = field(
        default_factory=list, metadata={"help": "Run only what matches, such as 'base-4L-*'; quote it."}
    )
    results: str | None = field(
        default=None,
        metadata={"help": "Directory of records and counts: runs there are finished, and others are added."},
    )
    dry_run: bool = field(
        default=False, metadata={"help": "List the runs with parameters, cost and disk; run nothing."}
    )
    scheduler: Literal["local", "ray", "slurm"] = field(
        default="local", metadata={"help": "This machine, a Ray cluster, or a SLURM job array."}
    )
    workers: int | None = field(
        default=None, metadata={"help": "Runs at a time; one for each GPU, or one, if not given."}
    )
    threads: int | None = field(
        default=None, metadata={"help": "CPU threads of a run; the machine's divided by workers."}
    )
    max_attempts: int = field(
        default=3, metadata={"help": "Starts of a run, each from its checkpoint, before it counts as failed."}
    )
    keep_models: bool = field(
        default=True, metadata={"help": "Whether the checkpoint of a run stays after its evaluation."}
    )
    cache_features: str | None = field(
        default=None,
        metadata={"help": "Directory to keep the encoder's output in, for all runs that share an encoder."},
    )
    cache_max_gb: float = field(
        default=CacheArguments.cache_max_gb,
        metadata={"help": "Size of that directory; what was used least recently goes first."},
    )
    ray_address: str | None = field(
        default=None, metadata={"help": "Ray cluster to use, such as auto; one of its own if not given."}
    )
    slurm: list[str] = field(
        default_factory=list,
        metadata={"help": "Parameters of submitit: slurm_partition=gpu timeout_min=720 gpus_per_node=1."},
    )

    def __post_init__(self):
        for name in ("workers", "threads", "max_attempts"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}.")
        check_numbers(self, ("cache_max_gb",), above=0)
        if self.ray_address is not None and self.scheduler != "ray":
            raise ValueError("`ray_address` belongs to `--scheduler ray`.")
        if self.slurm and self.scheduler != "slurm":
            raise ValueError("`slurm` belongs to `--scheduler slurm`.")
        for setting in self.slurm:
            if "=" not in setting:
                raise ValueError(f"`slurm` takes name=value, got {setting!r}.")

    @property
    def slurm_parameters(self) -> dict[str, str | int | float]:
        pairs = (setting.partition("=") for setting in self.slurm)
        return {name: yaml.safe_load(value) for name, _, value in pairs}


@dataclass
class ListStudyArguments:
    """Which study's runs are listed"""

    study_dir: str = field(metadata={"help": "Directory of a study; may be given first, without its flag."})


@dataclass
class PublishStudyArguments:
    """Which study is published, and where"""

    study_dir: str = field(metadata={"help": "Directory of a study; may be given first, without its flag."})
    repo_id: str = field(metadata={"help": "owner/name of the dataset on the Hub; may be given second."})
    private: bool = field(default=False, metadata={"help": "Create the dataset for its owner's eyes only."})
    license: str | None = field(
        default=None, metadata={"help": "Licence, such as cc-by-4.0; predictions quote the test sets' texts."}
    )
    dry_run: bool = field(default=False, metadata={"help": "Print the card and the files; send nothing."})

    def __post_init__(self):
        check_repo_id(self.repo_id)


@dataclass
class ReportArguments:
    """Which study is reported, and where to."""

    study_dir: str = field(metadata={"help": "Output directory of a study, finished or not."})
    output: str | None = field(
        default=None, metadata={"help": "Directory of the report; STUDY_DIR/report by default. Replaced."}
    )
    paper: bool = field(default=False, metadata={"help": "Put the paper's published numbers beside ours."})
    x: str = field(
        default="keep_layers",
        metadata={"help": "Axis that curves run along, such as max_train_hours, layer_choice or llm."},
    )
    lines: list[str] = field(
        default_factory=list,
        metadata={"help": "Axes that the lines of a panel differ in; all that runs differ in if not given."},
    )
    clips: int = field(
        default=0,
        metadata={"help": "Clips of each language in the error browser, those the runs differ on most."},
    )
    withhold: list[str] = field(
        default_factory=list,
        metadata={"help": "Languages and datasets whose transcripts the report must not quote."},
    )

    def __post_init__(self):
        if self.clips < 0:
            raise ValueError(f"`clips` must be 0 (no audio) or a number of clips, got {self.clips}.")
        if self.paper and self.chooses_axes:
            raise ValueError("`paper` compares depths, with and without LoRA: leave `x` and `lines` out.")

    @property
    def chooses_axes(self) -> bool:
        return self.x != "keep_layers" or bool(self.lines)
