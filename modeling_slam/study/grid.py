"""The grid: from a study file to its runs, each with everything it needs, checked before any of them runs.

Flags are checked by the parsers of `train.py` and `eval.py`, architectures by `SlamAsrConfig`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from transformers import WhisperConfig

from modeling_slam import SlamAsrConfig
from modeling_slam.common.command_line import as_flags, build_parser, read_settings
from modeling_slam.common.known_models import base_config
from modeling_slam.data import DataArguments
from modeling_slam.evaluation.arguments import EvaluationArguments
from modeling_slam.study.specs import BaselineSpec, Mode, RunSpec
from modeling_slam.study.study_file import (
    FILE_NAME,
    DatasetEntry,
    DataSize,
    EncoderEntry,
    LoraSetting,
    StudyFile,
    read_study_file,
)
from modeling_slam.training.arguments import LoraArguments, ModelArguments, RunArguments
from modeling_slam.training.assembly import architecture

TRAIN_TYPES = (ModelArguments, LoraArguments, DataArguments, RunArguments)
EVAL_TYPES = (EvaluationArguments, DataArguments)
DATA_FLAGS = {data_field.name for data_field in dataclasses.fields(DataArguments)}
# Flags that the study's axes or its engine give; a recipe's values for them are replaced.
TRAIN_OWN = frozenset(
    ("encoder", "llm", "dataset", "language", "keep_layers", "lora_rank", "lora_alpha", "seed", "output_dir",
     "resume_from_checkpoint", "cache_features", "cache_depths", "cache_max_gb")
)  # fmt: skip
EVAL_OWN = frozenset(("model", "dataset", "language", "output_dir", "baseline"))
BASELINE_BEAMS = 1  # Whisper's own decoder, greedy, is the usual reference


@dataclass(frozen=True)
class PlannedRun:
    """A run and what can be known of it beforehand."""

    spec: RunSpec
    config: SlamAsrConfig
    data: DataArguments
    run: RunArguments
    size: DataSize | None


@dataclass(frozen=True)
class Study:
    """A checked study. `load_study` makes it."""

    name: str
    runs: list[PlannedRun]
    baselines: list[BaselineSpec]
    teraflops: int | float | None

    @property
    def specs(self) -> list[RunSpec]:
        return [run.spec for run in self.runs]


def load_study(path: str | Path, changes: Sequence[str] = ()) -> Study:
    """Read a study file, apply `changes` ("encoders.base.model=DIR"), check and expand it.

    Paths in it are relative to the current directory, as those of `train.py` are.

    Raises:
        ValueError: something in it is wrong; the message says what, what was expected and what to do.
        OSError: the file, a recipe or a base model's configuration cannot be read.
    """
    return expand(read_study_file(Path(path), changes))


def expand(file: StudyFile) -> Study:
    """Every run of the grid: seeds, datasets, encoders, depths and modes, the last one changing fastest."""
    if not FILE_NAME.fullmatch(file.name):
        raise ValueError(f"`name` must be letters, digits, `.`, `-` and `_`, got {file.name!r}.")
    for name in ("encoders", "datasets", "modes", "seeds"):
        check_list(name, list(getattr(file, name)))
    runs, baselines = [], []
    for seed in file.seeds:
        for language, dataset in file.datasets.items():
            for name, encoder in file.encoders.items():
                pair = Pair(file, name, encoder, language, dataset)
                runs += [pair.run(depth, mode, seed) for depth in pair.depths for mode in file.modes]
                if file.baselines and seed == file.seeds[0]:
                    baselines.append(pair.baseline())
    return Study(file.name, runs, baselines, file.teraflops)


def check_list(name: str, values: list[Any]) -> None:
    if not values or len(set(values)) < len(values):
        raise ValueError(f"`{name}` must name at least one, each once; got {values}.")


class Pair:
    """One encoder on one dataset: what its runs share."""

    def __init__(
        self, file: StudyFile, name: str, encoder: EncoderEntry, language: str, dataset: DatasetEntry
    ):
        self.name, self.encoder, self.language, self.dataset = name, encoder, language, dataset
        self.where = f"{name} on {language}"
        recipe = read_recipe(dataset.recipe or file.recipe, name, language)
        for flags in (file.train, dataset.train):
            refuse(TRAIN_OWN | {"kept_layer_indices"}, flags, f"{self.where}: `train`")
        for flags in (file.eval, dataset.eval):
            refuse(EVAL_OWN, flags, f"{self.where}: `eval`")
        self.train = {k: v for k, v in recipe.items() if k not in TRAIN_OWN} | file.train | dataset.train
        shared = {k: v for k, v in self.train.items() if k in DATA_FLAGS}
        self.eval = shared | file.eval | dataset.eval
        self.llm = file.llm or recipe.get("llm", ModelArguments().llm)
        self.lora = dataset.lora or file.lora or lora_of(recipe)
        self.audio_config = base_config(encoder.model)
        if not isinstance(self.audio_config, WhisperConfig):
            raise ValueError(f"{self.where}: {encoder.model} is not a Whisper model.")
        self.text_config = base_config(self.llm)
        self.model_args, self.lora_args, self.data, self.run_args = self.parse(
            TRAIN_TYPES, self.train | {"output_dir": "-"}
        )
        self.parse(EVAL_TYPES, self.eval | {"output_dir": "-", "model": "-"})

    @property
    def depths(self) -> list[int]:
        allowed = self.dataset.keep_layers
        depths = [d for d in self.encoder.keep_layers if allowed is None or d in allowed]
        check_list(f"{self.where}: keep_layers", depths)
        return depths

    def parse(self, types: Sequence[Any], flags: Mapping[str, Any]) -> list[Any]:
        """The flags as `train.py` or `eval.py` will read them; what they would refuse is a ValueError."""
        parser = build_parser(*types, description="")

        def complain(message: str) -> NoReturn:
            raise ValueError(f"{self.where}: {message}")

        parser.error = complain
        argv = as_flags({**flags, "dataset": self.dataset.dataset, "language": self.language})
        # Whether a device can compute in bf16 is known where the run runs, not where it is planned.
        namespace = vars(parser.parse_args(argv)) | {"bf16": False, "fp16": False}
        instances = []
        for kind in types:
            names = [entry.name for entry in dataclasses.fields(kind) if entry.init]
            values = {name: namespace[name] for name in names}
            try:
                instances.append(kind(**values))
            except ValueError as error:
                raise ValueError(f"{self.where}: {error}") from error
        return instances

    def run(self, depth: int, mode: Mode, seed: int) -> PlannedRun:
        rank, alpha = (self.lora.rank, self.lora.alpha) if mode == "lora" else (0, 0)
        if mode == "lora" and rank < 1:
            raise ValueError(f"{self.where}: the mode lora needs a rank of 1 or more, got {rank}.")
        spec = RunSpec(
            name=f"{self.name}-{depth}L-{mode}-{self.language}-s{seed}",
            encoder=self.encoder.model,
            encoder_name=self.name,
            encoder_layers=self.audio_config.encoder_layers,
            keep_layers=depth,
            llm=self.llm,
            dataset=self.dataset.dataset,
            language=self.language,
            mode=mode,
            lora_rank=rank,
            lora_alpha=alpha,
            seed=seed,
            train_flags=self.train,
            eval_flags=self.eval,
        )
        model_args = dataclasses.replace(self.model_args, keep_layers=depth)
        lora_args = dataclasses.replace(self.lora_args, lora_rank=rank, lora_alpha=alpha)
        try:
            config = architecture(model_args, lora_args, self.audio_config, self.text_config)
        except ValueError as error:
            raise ValueError(f"{spec.name}: {error}") from error
        return PlannedRun(spec, config, self.data, self.run_args, self.dataset.size)

    def baseline(self) -> BaselineSpec:
        return BaselineSpec(
            name=f"{self.name}-{self.language}",
            encoder=self.encoder.model,
            encoder_name=self.name,
            dataset=self.dataset.dataset,
            language=self.language,
            eval_flags=self.eval | {"num_beams": BASELINE_BEAMS},
        )


def read_recipe(template: str | None, encoder: str, language: str) -> dict[str, Any]:
    if template is None:
        return {}
    try:
        path = template.format(encoder=encoder, language=language)
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(
            f"`recipe` {template!r}: expected a path with {{encoder}} and {{language}} at most."
        ) from error
    return read_settings(Path(path))


def refuse(own: frozenset[str], flags: Mapping[str, Any], where: str) -> None:
    if taken := sorted(own & flags.keys()):
        raise ValueError(
            f"{where} sets {', '.join(taken)}, which the study itself gives to each run. Use the study's "
            "encoders, datasets, llm, modes, lora and seeds."
        )


def lora_of(recipe: Mapping[str, Any]) -> LoraSetting:
    defaults = LoraArguments()
    return LoraSetting(
        rank=recipe.get("lora_rank", defaults.lora_rank), alpha=recipe.get("lora_alpha", defaults.lora_alpha)
    )
