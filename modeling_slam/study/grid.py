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
from modeling_slam.analysis.results import decoders_of
from modeling_slam.common.command_line import as_flags, build_parser, read_recipe
from modeling_slam.common.known_models import base_config
from modeling_slam.common.shipped import find
from modeling_slam.data import DataArguments
from modeling_slam.evaluation.arguments import EvaluationArguments
from modeling_slam.study.axes import AXES, FURTHER, Chosen, check_list, combinations, flags_of, name_of
from modeling_slam.study.specs import OF_A_HEAD, BaselineSpec, Mode, RunSpec, flags_with
from modeling_slam.study.study_file import (
    FILE_NAME,
    DataSize,
    LoraSetting,
    StudyFile,
    read_study_file,
)
from modeling_slam.training.alignment import AlignmentArguments, wants_head
from modeling_slam.training.arguments import LoraArguments, ModelArguments, RunArguments
from modeling_slam.training.assembly import architecture
from modeling_slam.training.augmentation import AugmentationArguments
from modeling_slam.training.by_projector import settle

TRAIN_TYPES = (
    ModelArguments, LoraArguments, DataArguments, AugmentationArguments, AlignmentArguments, RunArguments
)  # fmt: skip
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
    axes: dict[str, str]  # further axes of its results, with their titles

    @property
    def specs(self) -> list[RunSpec]:
        return [run.spec for run in self.runs]


def load_study(path: str | Path, changes: Sequence[str] = ()) -> Study:
    """Read a study file, apply `changes` ("encoders.base.model=DIR"), check and expand it.

    `path` may be the name of one of this project's.

    Paths in it are relative to the current directory, as those of `train.py` are.

    Raises:
        ValueError: something in it is wrong; the message says what, what was expected and what to do.
        OSError: the file, a recipe or a base model's configuration cannot be read.
    """
    return expand(read_study_file(find(str(path), "study"), changes))


def expand(file: StudyFile) -> Study:
    """Every run of the grid, in the order of `combinations`."""
    if not FILE_NAME.fullmatch(file.name):
        raise ValueError(f"`name` must be letters, digits, `.`, `-` and `_`, got {file.name!r}.")
    for name in ("encoders", "datasets", "modes", "seeds"):
        check_list(name, list(getattr(file, name)))
    for name, values in file.axes.items():
        check_list(name, values)
    pairs: dict[tuple[str, str], Pair] = {}
    runs, baselines = [], []
    for chosen in combinations(file):
        key = chosen["encoder"], chosen["language"]
        if key not in pairs:
            pairs[key] = Pair(file, *key)
            if file.baselines and isinstance(pairs[key].audio_config, WhisperConfig):
                baselines.append(pairs[key].baseline())
        runs.append(pairs[key].run(chosen))
    names = [run.spec.name for run in runs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"Two runs would be called {twice[0]}; values of an axis must differ in their label."
        )
    axes = {name: AXES[name].title for name in file.axes}
    if any(len(pair.decoders) > 1 for pair in pairs.values()):
        axes["decoder"] = "decoder"  # an axis of the results: it makes no further run
    return Study(file.name, runs, baselines, file.teraflops, axes)


class Pair:
    """One encoder on one dataset: what its runs share."""

    def __init__(self, file: StudyFile, name: str, language: str):
        self.name, self.encoder = name, file.encoders[name]
        self.language, self.dataset = language, file.datasets[language]
        self.where = f"{name} on {language}"
        self.llms: dict[str, str] = file.axes.get("llm", {})
        recipe = recipe_of(self.dataset.recipe or file.recipe, name, language)
        self.variants = variants_of(file)
        given = TRAIN_OWN | self.further_flags(file)
        for flags in (file.train, self.dataset.train):
            refuse(given | {"kept_encoder_layers"}, flags, f"{self.where}: `train`")
        for flags in (file.eval, self.dataset.eval):
            refuse(EVAL_OWN, flags, f"{self.where}: `eval`")
        self.train = {k: v for k, v in recipe.items() if k not in given} | file.train | self.dataset.train
        if self.dataset.language is not None:
            self.train["language"] = self.dataset.language
        self.own_eval = file.eval | self.dataset.eval
        self.llm = file.llm or recipe.get("llm", ModelArguments().llm)
        self.lora = self.dataset.lora or file.lora or lora_of(recipe)
        self.audio_config = base_config(self.encoder.model)
        self.text_configs = {llm: base_config(llm) for llm in self.llms.values() or [self.llm]}
        self.parsed: dict[str, list[Any]] = {}
        self.decoders = decoders_of(self.own_eval)
        check_list(f"{self.where}: eval.decoder", self.decoders)
        for decoder in self.decoders:
            flags = flags_with(self.eval_flags(self.train), decoder)
            _, data = self.parse(EVAL_TYPES, flags | {"output_dir": "-", "model": "-"})
            self.recorded_dataset = data.recorded_dataset

    def further_flags(self, file: StudyFile) -> set[str]:
        """Flags that the axes set which this file spans beside those of every study.

        Those of a variant are not among them: it changes what recipe and study say.
        """
        points = [
            {name: value} for name, values in file.axes.items() if name != "variant" for value in values
        ]
        return {flag for point in points for flag in flags_of(point, self)}

    def eval_flags(self, train: Mapping[str, Any]) -> dict[str, Any]:
        """Flags of eval.py: what the data is, evaluation is told as well."""
        return {k: v for k, v in train.items() if k in DATA_FLAGS} | self.own_eval

    def lora_flags(self, mode: Mode) -> dict[str, int]:
        if mode == "projector":
            return {"lora_rank": 0, "lora_alpha": 0}
        if self.lora.rank < 1:
            raise ValueError(f"{self.where}: the mode lora needs a rank of 1 or more, got {self.lora.rank}.")
        return {"lora_rank": self.lora.rank, "lora_alpha": self.lora.alpha}

    def parse(self, types: Sequence[Any], flags: Mapping[str, Any]) -> list[Any]:
        """The flags as `train.py` or `eval.py` will read them; what they would refuse is a ValueError."""
        parser = build_parser(*types, description="")

        def complain(message: str) -> NoReturn:
            raise ValueError(f"{self.where}: {message}")

        parser.error = complain
        argv = as_flags({"language": self.language, **flags, "dataset": self.dataset.dataset})
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

    def settings(self, train: Mapping[str, Any]) -> list[Any]:
        """These flags of train.py, parsed once for all runs that share them."""
        key = repr(train)
        if key not in self.parsed:
            self.parsed[key] = self.parse(TRAIN_TYPES, {**train, "output_dir": "-"})
            settle(self.parsed[key][0].projector_type, *self.parsed[key])
        return self.parsed[key]

    def run(self, chosen: Chosen) -> PlannedRun:
        own: dict[str, Any] = {"llm": self.llm} | flags_of(chosen, self)
        train = self.train | {name: value for name, value in own.items() if name not in TRAIN_OWN}
        model_args, lora_args, data, _, align_args, run_args = parsed = self.settings(train)
        chosen = {name: as_read(parsed, name, value) for name, value in chosen.items()}
        spec = RunSpec(
            name=name_of(chosen),
            encoder=own["encoder"],
            encoder_name=self.name,
            encoder_layers=self.audio_config.num_hidden_layers,
            keep_layers=own["keep_layers"],
            llm=own["llm"],
            dataset=own["dataset"],
            language=own["language"],
            mode=chosen["mode"],
            lora_rank=own["lora_rank"],
            lora_alpha=own["lora_alpha"],
            seed=own["seed"],
            train_flags=train,
            eval_flags=self.eval_flags(train),
            axes={name: chosen[name] for name in FURTHER if name in chosen},
        )
        if not FILE_NAME.fullmatch(spec.name):
            raise ValueError(f"{spec.name!r} cannot be a directory's name; see the labels in study/axes.py.")
        model_args = dataclasses.replace(model_args, keep_layers=spec.keep_layers)
        lora_args = dataclasses.replace(lora_args, lora_rank=spec.lora_rank, lora_alpha=spec.lora_alpha)
        try:
            config = architecture(model_args, lora_args, self.audio_config, self.text_configs[spec.llm])
            if not wants_head(config, align_args, run_args) and "ctc" in self.decoders:
                raise ValueError(
                    "`eval` asks for the decoder ctc, and the run has no CTC head: set `align_epochs` or "
                    "`ctc_weight` in `train`."
                )
        except ValueError as error:
            raise ValueError(f"{spec.name}: {error}") from error
        return PlannedRun(spec, config, data, run_args, self.dataset.size)

    def baseline(self) -> BaselineSpec:
        # A Whisper has no use for the flags of a CTC head.
        flags = {name: value for name, value in self.eval_flags(self.train).items() if name not in OF_A_HEAD}
        return BaselineSpec(
            name=f"{self.name}-{self.language}",
            encoder=self.encoder.model,
            encoder_name=self.name,
            dataset=self.recorded_dataset,
            language=self.language,
            eval_flags=flags | {"num_beams": BASELINE_BEAMS},
        )


def variants_of(file: StudyFile) -> dict[str, dict[str, Any]]:
    """The flags that each variant changes; none, where the study does not span variants."""
    variants = file.axes.get("variant", {})
    if not isinstance(variants, dict) or not all(isinstance(flags, dict) for flags in variants.values()):
        raise ValueError(f"`variant` must be names, each with the flags that it changes; got {variants}.")
    for name, flags in variants.items():
        refuse(TRAIN_OWN, flags, f"`variant` {name}")
    return variants


def as_read(parsed: Sequence[Any], axis: str, value: Any) -> Any:
    """A further axis' value as train.py reads it: YAML takes 1e-4 for a word."""
    is_flag = axis in FURTHER and AXES[axis].flags is None
    groups = [group for group in parsed if is_flag and hasattr(group, axis)]
    read = getattr(groups[0], axis) if groups else value
    return value if isinstance(read, list) else read  # a flag of many, given one


def recipe_of(template: str | None, encoder: str, language: str) -> dict[str, Any]:
    if template is None:
        return {}
    try:
        path = template.format(encoder=encoder, language=language)
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(
            f"`recipe` {template!r}: expected a path with {{encoder}} and {{language}} at most."
        ) from error
    return read_recipe(find(path, "recipe"))


def refuse(own: frozenset[str], flags: Mapping[str, Any], where: str) -> None:
    if taken := sorted(own & flags.keys()):
        raise ValueError(
            f"{where} sets {', '.join(taken)}, which the study itself gives to each run. Use the study's "
            f"{', '.join(['encoders', 'datasets', 'modes', 'lora', 'seeds', *FURTHER])}."
        )


def lora_of(recipe: Mapping[str, Any]) -> LoraSetting:
    defaults = LoraArguments()
    return LoraSetting(
        rank=recipe.get("lora_rank", defaults.lora_rank), alpha=recipe.get("lora_alpha", defaults.lora_alpha)
    )
